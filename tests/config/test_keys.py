"""The registry: complete, without doubles, and true of its own defaults."""

from __future__ import annotations

import dataclasses
import importlib

import click
import pytest

from durabatch.cli.main import NAMES
from durabatch.cli.options import parameter_of
from durabatch.config import keys
from durabatch.config.compounds import Several
from durabatch.config.keys import SETTINGS, by_field, by_variable, for_verb, named
from durabatch.options import usable_cores
from durabatch.settings import RunSettings

every = pytest.mark.parametrize("key", SETTINGS)
WORKING = ("run", "exec", "plan", "resume", "retry", "work", "submit", "rollback")
#: Options that are for one call, of verbs that have settings.
NO_SETTINGS = {"traceback", "help", "handler", "trust_ledger", "error_type", "group", "where", "states", "keys", "as_json"}
#: The same of one verb alone; the names mean something else elsewhere.
OWN = {"plan": {"full", "output"}, "submit": {"priority", "due"}, "resume": {"force"}, "retry": {"undone"},
       "rollback": {"transaction", "batch", "to_batch", "dry_run", "yes", "force", "keep_going"}}  # fmt: skip
#: Settings that say how an input is read.
INTAKE = {
    "format", "key", "delimiter", "sheet", "encoding", "null", "numbers", "files", "include", "exclude", "hidden", "gitignore", "min_size",
    "max_size", "chunk_size", "overlap", "group_by", "range", "limit", "select", "sample",
}  # fmt: skip


def options_of(verb: str) -> dict[str, click.Option]:
    command = importlib.import_module(f"durabatch.cli.{verb}").command
    return {one.name: one for one in command.params if isinstance(one, click.Option)}


def test_each_field_of_the_settings_of_a_run_has_one_setting():
    """Nothing that a run records is without a flag, a key and a variable."""
    assert list(by_field()) == [one.name for one in dataclasses.fields(RunSettings)]
    assert len({one.field for one in SETTINGS.values() if one.field}) == len([one for one in SETTINGS.values() if one.field])


def test_flags_and_variables_are_all_different():
    """A name means one setting; none of them is a variable that commands find in their environment."""
    settings = list(SETTINGS.values())
    assert len({one.flag for one in settings}) == len(by_variable()) == len(settings)
    assert not {"DURABATCH_KEY", "DURABATCH_ATTEMPT", "DURABATCH_IDEMPOTENCY_KEY"} & set(by_variable())


def test_a_key_may_be_written_like_its_flag():
    """batch-size and batch_size are the same key; what is none is not found."""
    assert named("batch-size") is named("batch_size") is SETTINGS["batch_size"]
    assert named("batchsize") is None


@pytest.mark.parametrize("verb", WORKING)
def test_every_option_of_a_working_verb_is_a_setting(verb):
    """No option stands beside the registry, apart from those that are for one call."""
    found = options_of(verb)
    wanted = {one.key for one in for_verb(verb) if not one.is_argument}
    assert wanted <= set(found)
    assert set(found) - wanted <= NO_SETTINGS | OWN.get(verb, set())
    for key in wanted:
        assert SETTINGS[key].flag in found[key].opts
        assert found[key].help


def test_run_offers_all_but_what_is_of_commands_alone():
    """Options of the verbs that work or read differ only where they would mean nothing."""
    of = {verb: {one.key for one in for_verb(verb)} for verb in WORKING}
    assert of["run"] ^ of["exec"] == {"handler", "param", "shell", "parse", "retry_exit", "undo_command"}
    assert of["resume"] - of["retry"] == {"on_change", "from_item", "from_batch", "undo", "idle_exit"}
    assert of["retry"] - of["resume"] == set()
    assert of["exec"] - of["resume"] == {
        *INTAKE, "input", "name", "fresh", "shell", "parse", "priority", "order", "shuf", "on_bad_input", "dedupe", "preflight", "preflight_only",
        "retry_failed", "dry_run", "open",
    }  # fmt: skip
    assert of["run"] - of["plan"] == {"dry_run", "open", "idle_exit", "output"}
    assert of["work"] - of["resume"] == of["rollback"] - of["resume"] == set()
    assert of["submit"] == {
        *INTAKE, "input", "on_bad_input", "max_item_bytes", "profile", "ledger", "durability", "allow_network_fs", "color",
    }  # fmt: skip


def test_verbs_that_look_have_the_ledger_and_nothing_else():
    """A look needs no settings; init needs not even a ledger."""
    assert set(options_of("status")) >= {"ledger", "color"}
    assert not (set(options_of("status")) & set(SETTINGS)) - {"ledger", "color"}
    assert "ledger" not in options_of("init")
    assert set(NAMES) >= {"init", "check"}


@every
def test_a_default_is_a_value_of_its_setting(key):
    """What check shows and init writes can be read back and is the same."""
    one = SETTINGS[key]
    if one.default_value is not None and one.default_value != () and one.default_value != {}:
        assert one.kind.read(one.kind.show(one.default_value), option="x") == one.default_value
    else:
        assert one.example is not None or key == "profile"


@every
def test_an_example_is_a_value_of_its_setting(key):
    """Every example can be typed, and is no default."""
    one = SETTINGS[key]
    if one.example is not None:
        value = one.kind.read(one.example, option="x")
        assert one.kind.read(one.kind.show(value), option="x") == value
        assert value != one.default_value or key == "workers"


@every
def test_a_setting_says_what_it_is(key):
    """Help is a sentence; what takes a value says which."""
    one = SETTINGS[key]
    assert one.help.endswith(".")
    assert one.group in keys.GROUPS
    assert one.metavar or isinstance(parameter_of(key), click.Option)
    assert not one.is_repeatable or isinstance(one.kind, Several)


def test_workers_are_the_usable_cores_by_default():
    """The default is this machine's, not a number in the code."""
    assert SETTINGS["workers"].default_value == usable_cores()
