"""
The value of every setting, and where it comes from.

    command line  >  DURABATCH_* variables  >  the chosen profile  >  files of the project  >  the user's own file  >  the handler  >  defaults

A more important source replaces the value of a less important one; tables (``param``, ``budget``) are joined name by name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from durabatch.config.files import ConfigFile, config_files
from durabatch.config.keys import PREFIX, SETTINGS, Setting, by_field, by_variable, named
from durabatch.errors import DurabatchError, UsageError
from durabatch.options import did_you_mean, nearest

__all__ = ["Effective", "Found", "resolve"]

PROFILES = "profile"
DEFAULT = "default"
#: Variables that durabatch sets for the commands it starts: theirs to read, not settings.
OTHER_VARIABLES = (
    "DURABATCH_KEY", "DURABATCH_ATTEMPT", "DURABATCH_IDEMPOTENCY_KEY", "DURABATCH_RUN_MARKER", "DURABATCH_ITEM_MARKER",
    "DURABATCH_RUN", "DURABATCH_BATCH", "DURABATCH_OUTPUT_FILE", "DURABATCH_UNDO_FD", "DURABATCH_UNDO_ACTION", "DURABATCH_UNDO_ARGS",
)  # fmt: skip
OTHER_PREFIX = "DURABATCH_VALUE_"


@dataclass(frozen=True, slots=True)
class Found:
    """
    A value that some source gives.

    Attributes:
        source: ``--workers``, ``DURABATCH_WORKERS``, ``durabatch.toml:7``, ``handler`` or ``default``.
        refusal: Why the value must not be used; empty when it may.
    """

    value: Any
    source: str
    refusal: str = ""


Layer = dict[str, Found]


@dataclass(frozen=True, slots=True)
class Effective:
    """
    What is in force for one call.

    Attributes:
        found: The settings that some source gives.
        asked: Of them those that this very call asks for, by flags or by naming a profile: they count over what a run has on record.
        here: Those that would be in force without the command line.
        notes: Sentences for people: variables that look like settings and are none.
        files: The configuration files that were read.
    """

    found: Layer
    asked: Layer = field(default_factory=dict)
    here: Layer = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    files: tuple[ConfigFile, ...] = field(default=(), repr=False)

    def __getitem__(self, key: str) -> Any:
        """
        Return the value of a setting, its default when nothing gives one.

        Raises:
            UsageError: It stands in a file that may not give it.
        """
        return value_in(self.found, key)

    def standing(self, key: str) -> Any:
        """Return the value that a setting would have without the command line."""
        return value_in(self.here, key)

    def source(self, key: str) -> str:
        """Return where the value of a setting comes from."""
        return self.found[key].source if key in self.found else DEFAULT

    def label(self, key: str) -> str:
        """Return what a message calls a setting: by the place that gives its value."""
        one, source = SETTINGS[key], self.source(key)
        if source == DEFAULT:
            return one.flag
        return source if source in {one.variable, flag_of(one)} else f"{source}: {key}"

    def is_typed(self, key: str) -> bool:
        """Return whether the command line gives a setting."""
        return self.source(key) == flag_of(SETTINGS[key])

    def fields(self) -> dict[str, Any]:
        """Return the fields of RunSettings that some source gives."""
        return fields_of(self.found)

    def asked_fields(self) -> dict[str, Any]:
        """Return the fields of RunSettings that this very call asks for."""
        return fields_of(self.asked)

    def of_verb(self, verb: str) -> Effective:
        """Return those that mean something to *verb*: a file serves several."""
        meant = {key for key, one in SETTINGS.items() if verb in one.verbs}
        found, asked = ({key: one for key, one in layer.items() if key in meant} for layer in (self.found, self.asked))
        return replace(self, found=found, asked=asked)

    def with_declared(self, fields: Mapping[str, Any], source: str) -> Effective:
        """Return these settings with the *fields* of RunSettings that the handler declares beneath all others."""
        below = {one.key: Found(fields[name], source) for name, one in by_field().items() if name in fields}
        return replace(self, found=joined([self.found, below]))


def value_in(layer: Layer, key: str) -> Any:
    """Return the value of a setting in a layer, else its default."""
    return usable(SETTINGS[key], layer[key]) if key in layer else SETTINGS[key].default_value


def usable(one: Setting, found: Found) -> Any:
    """Return the value of a setting; UsageError when it must not be used."""
    if found.refusal:
        raise UsageError(found.refusal, f"Own the file and run `chmod go-w`, or give it by {by_hand(one)}.")
    return found.value


def fields_of(layer: Layer) -> dict[str, Any]:
    """Return the values of a layer by field of RunSettings."""
    return {one.field: usable(one, layer[key]) for key, one in SETTINGS.items() if key in layer and one.field is not None}


def by_hand(one: Setting) -> str:
    """Return how a setting is given on the command line, for sentences."""
    return f"the argument {one.metavar}" if one.is_argument else one.flag


def flag_of(one: Setting) -> str:
    """Return where on the command line a setting stands."""
    return one.metavar if one.is_argument else one.flag


def resolve(flags: Mapping[str, Any]) -> Effective:
    """
    Return what is in force, given the values of the command line by key.

    Raises:
        UsageError: A variable or a file holds something wrong; it begins with the variable's name, or with ``FILE:LINE``.
    """
    typed = {key: Found(value, flag_of(SETTINGS[key])) for key, value in flags.items()}
    variables, notes = from_environment(os.environ)
    files = tuple(config_files())
    tables = [tables_of(file) for file in files]
    chosen = typed.get(PROFILES) or variables.get(PROFILES)
    profile = [] if chosen is None else chosen_profile(chosen, [profiles for _, profiles in tables])
    asked = joined([typed, *(profile if PROFILES in typed else [])])
    here = [variables, *profile, *(layer for layer, _ in tables)]
    return Effective(joined([typed, *here]), asked, joined(here), notes, files)


def joined(layers: list[Layer]) -> Layer:
    """Return the values of all layers, the first ones winning; tables are joined by name."""
    result: Layer = {}
    for layer in layers:
        for key, one in layer.items():
            above = result.get(key)
            if above is None:
                result[key] = one
            elif isinstance(above.value, dict) and isinstance(one.value, dict) and key != "preflight":
                result[key] = both(above, one)
    return result


def both(above: Found, below: Found) -> Found:
    """Return two tables as one."""
    return Found({**below.value, **above.value}, f"{above.source}, {below.source}", above.refusal or below.refusal)


def from_environment(environment: Mapping[str, str]) -> tuple[Layer, tuple[str, ...]]:
    """Return what variables give, and a note for each that looks like a setting and is none."""
    known = by_variable()
    layer, notes = {}, []
    for name in sorted(one for one in environment if one.startswith(PREFIX)):
        if name in known:
            layer[known[name].key] = Found(variable_value(known[name], environment[name]), name)
        elif name not in OTHER_VARIABLES and not name.startswith(OTHER_PREFIX):
            near = nearest(name.removeprefix(PREFIX), (one.removeprefix(PREFIX) for one in known))
            notes += [] if near is None else [f"the variable {name} is no setting. Did you mean {PREFIX}{near}?"]
    return layer, tuple(notes)


def variable_value(one: Setting, text: str) -> Any:
    """Return the value of a variable's text."""
    if not text:
        raise UsageError(f"{one.variable}: is set but empty", "Unset it, or give it a value.")
    return one.kind.parse(text, option=one.variable)


def tables_of(file: ConfigFile) -> tuple[Layer, dict[str, Layer]]:
    """Return what a file sets, and what each of its profiles does; all of it is checked."""
    values = dict(file.values)
    profiles = values.pop(PROFILES, {})
    if not isinstance(profiles, dict) or not all(isinstance(one, dict) for one in profiles.values()):
        raise UsageError(f"{file.place(PROFILES)}: profile is not a table of profiles", "Write [profile.NAME], and its settings below.")
    return layer_of(file, values, ()), {str(name): layer_of(file, one, (PROFILES, str(name))) for name, one in profiles.items()}


def layer_of(file: ConfigFile, values: Mapping[str, Any], above: tuple[str, ...]) -> Layer:
    """Return the settings of one table of a file."""
    layer: Layer = {}
    for key, value in values.items():
        place = file.place(*above, str(key))
        one = named(str(key))
        if one is None or one.key == PROFILES:
            raise UsageError(f"{place}: unknown key {str(key)!r}", did_you_mean(str(key), SETTINGS) or "`durabatch init` writes them all.")
        if one.key in layer:
            raise UsageError(f"{place}: {one.key!r} stands here and on line {layer[one.key].source.rpartition(':')[2]}")
        layer[one.key] = Found(file_value(one, value, f"{place}: {key}"), place, refusal=refusal(one, file, place))
    return layer


def file_value(one: Setting, value: object, option: str) -> Any:
    """Return the value of a setting in a file; every fault names the place."""
    try:
        return one.kind.read(value, option=option)
    except DurabatchError as error:
        if error.what.startswith(option):
            raise
        raise UsageError(f"{option}: {error.what}", error.hint) from error


def refusal(one: Setting, file: ConfigFile, place: str) -> str:
    """Return why a setting of a file must not be used; empty when it may."""
    if not one.is_guarded or not file.distrust:
        return ""
    verb = "imported" if one.key == "handler" else "used"
    return f"{place}: {file.shown} {file.distrust}; its {one.key} is not {verb}"


def chosen_profile(chosen: Found, files: list[dict[str, Layer]]) -> list[Layer]:
    """Return the layers of the chosen profile, given the profiles of each file; UsageError when none has it."""
    name = chosen.value
    found = [profiles[name] for profiles in files if name in profiles]
    if not found:
        known = dict.fromkeys(profile for profiles in files for profile in profiles)
        there = f"There are: {', '.join(known)}." if known else "No configuration file here has profiles."
        raise UsageError(f"{chosen.source}: there is no profile {name!r}", there)
    return [{key: replace(one, source=f"{one.source} ({name})") for key, one in layer.items()} for layer in found]
