"""
The form that every verb has, and the options that verbs share.

Options that are settings are made from the registry (:mod:`durabatch.config.keys`); their values are looked for on the command line, in
variables and in files. A wrong value is a UsageError that names its place; click only finds the texts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import click

from durabatch.cli import printing
from durabatch.cli.failures import Manner
from durabatch.config.compounds import Several
from durabatch.config.keys import GROUPS, SETTINGS, Setting, for_verb
from durabatch.config.kinds import Switch
from durabatch.config.resolving import resolve
from durabatch.errors import UsageError
from durabatch.options import did_you_mean

__all__ = ["VerbCommand", "json_option", "ledger_here", "once", "parsed", "recorded_options", "run_argument", "verb", "word_option"]

#: Settings that every verb has; those that only look need no others.
COMMON = ("ledger", "color")
#: Where a context keeps the ledger that a command means without ``--ledger``.
LEDGER_HERE = "durabatch.ledger"
ELSEWHERE = (
    "Each of these is also a key of durabatch.toml and a variable: --batch-size is batch_size and DURABATCH_BATCH_SIZE. "
    "--no-files and the like turn off what stands there. `durabatch check` shows what is in force, and from where."
)

_F = TypeVar("_F", bound=Callable[..., Any])


class VerbCommand(click.Command):
    """
    A verb whose help ends with examples, and whose settings also come from variables and files.

    Args:
        examples: Command lines, shown as they are typed.
        keys: Settings among its options and arguments. It is called with ``wishes``, or with ``ledger`` where it takes no other.
        reads_files: Look for settings elsewhere than on the command line.
    """

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), keys: frozenset[str], reads_files: bool = True, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.examples = examples
        self.keys = keys
        self.reads_files = reads_files

    @property
    def takes_wishes(self) -> bool:
        """Whether it is called with all settings."""
        return not self.keys <= set(COMMON)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line; what is wrong with it is said to be wrong with this verb."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Call the verb with what is in force."""
        flags = {key: value for key in self.keys if (value := ctx.params.pop(key, None)) not in (None, ())}
        if self.reads_files:
            wishes = resolve(flags)
            printing.use_color(wishes["color"])
            ctx.meta[LEDGER_HERE] = wishes.standing("ledger")
            ctx.params |= {"wishes": wishes} if self.takes_wishes else {"ledger": wishes["ledger"]}
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, the many of a verb that works by what they are about."""
        if not self.takes_wishes:
            super().format_options(ctx, formatter)
            return
        options = [one for one in self.get_params(ctx) if isinstance(one, click.Option)]
        for group in (*GROUPS, "Other"):
            records = [one.get_help_record(ctx) for one in options if self.group_of(one) == group]
            if records:
                with formatter.section(group):
                    formatter.write_dl([record for record in records if record is not None])
        formatter.write_paragraph()
        formatter.write_text(ELSEWHERE)

    def group_of(self, option: click.Option) -> str:
        """Return the heading of an option."""
        return SETTINGS[str(option.name)].group if option.name in self.keys else "Other"

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Examples"):
            for line in self.examples:
                formatter.write(f"  {line}\n")


def verb(
    name: str, *examples: str, settings: str | None = None, reads_files: bool = True, cls: type[VerbCommand] = VerbCommand
) -> Callable[[Callable[..., int]], click.Command]:
    """
    Return the decorator that makes a function the verb *name*; it returns the exit code.

    Args:
        settings: It takes the settings of the verb of this name, as ``wishes``; without it the ledger alone.
        reads_files: Look for settings elsewhere than on the command line; without it the verb has no ledger.
    """
    shared = for_verb(settings) if settings else tuple(SETTINGS[key] for key in (COMMON if reads_files else ("color",)))

    def decorate(function: Callable[..., int]) -> click.Command:
        help_names = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
        keys = frozenset(one.key for one in shared)
        make = click.command(name, cls=cls, examples=examples, keys=keys, reads_files=reads_files, context_settings=help_names)
        command = make(traceback_option(function))
        # Help begins with what is particular to the verb.
        own = [one for one in command.params if one.name != "traceback"]
        command.params = [*own, *(parameter_of(one.key) for one in shared), *(one for one in command.params if one.name == "traceback")]
        return command

    return decorate


@cache
def parameter_of(key: str) -> click.Parameter:
    """Return the option or the argument by which a setting stands on a command line; without it, it is None."""
    one = SETTINGS[key]
    if one.is_argument:
        many = isinstance(one.kind, Several)
        return click.Argument(
            [one.key], required=False, nargs=-1 if many else 1, metavar=f"[{one.metavar}]{'...' * many}", callback=reader_of(one)
        )
    is_switch = isinstance(one.kind, Switch)
    names = [one.key, *filter(None, [one.short]), f"{one.flag}/--no-{one.flag[2:]}" if is_switch else one.flag]
    callback = remembering_color if one.key == "color" else reader_of(one)
    if is_switch:
        return SwitchOption(names, is_flag=True, default=None, help=one.help_text, callback=callback)
    return click.Option(
        names, metavar=one.metavar, multiple=one.is_repeatable, help=one.help_text, callback=callback, is_eager=one.key == "color"
    )


def reader_of(one: Setting) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return the click callback that makes the value of a setting from its texts."""

    def read(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        if value is None or value == () or isinstance(value, bool):
            return value
        if isinstance(value, tuple) and isinstance(one.kind, Several):
            return one.kind.parse_all(value, option=one.flag)
        return one.kind.parse(value, option=one.metavar.lower() if one.is_argument else one.flag)

    return read


def remembering_color(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Read the color and use it from now on, also for what is wrong with the rest of the command line."""
    color: str | None = reader_of(SETTINGS["color"])(context, parameter, value)
    printing.use_color(color or "auto")
    return color


class SwitchOption(click.Option):
    """An option that is on or off; help shows the form that turns it on, and both where it is on by default."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return flag and help."""
        record = super().get_help_record(ctx)
        if record is None or SETTINGS[str(self.name)].default_value is True:
            return record
        return record[0].partition(" / ")[0], record[1]


def parsed(parse: Callable[..., Any], **bounds: Any) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """Return a click callback that reads the text of an option with *parse*; an option that was not given stays None."""

    def read(_context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
        return None if value is None else parse(value, option=parameter.opts[-1], **bounds)

    return read


def once(
    read: Callable[[click.Context, click.Parameter, str | None], Any],
) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], Any]:
    """Return *read* for an option with ``multiple``: given twice it is refused, where click would drop all but the last without a word."""

    def single(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> Any:
        if len(values) > 1:
            raise UsageError(f"{parameter.opts[-1]} was given {len(values)} times", "Give it once.")
        return read(context, parameter, values[0] if values else None)

    return single


def word_option(flag: str, words: tuple[str, ...], *, default: str | None, help: str, **rest: Any) -> Callable[[_F], _F]:
    """Return the decorator for an option that is one of *words*."""

    def read(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
        if value is not None and value not in words:
            raise UsageError(f"{flag}: {value!r} is not one of {', '.join(words)}", did_you_mean(value, words))
        return value

    return click.option(flag, metavar="|".join(words), default=default, callback=read, help=help, **rest)


def remember_traceback(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    """Let a failure show its traceback."""
    manner = context.find_object(Manner)
    if manner is not None:
        manner.traceback = value


traceback_option = click.option(
    "--traceback",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=remember_traceback,
    help="Show the Python traceback of an error.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document with schema_version.")
run_argument = click.argument("run", metavar="[RUN]", required=False)


def recorded_options(function: _F) -> _F:
    """Give a verb the options by which a run on record is taken up."""
    handler = click.option("--handler", metavar="HANDLER", help="module:function or file.py:function in the place of the recorded one.")
    trust = click.option(
        "--trust-ledger", is_flag=True, help="Import the recorded handler although another user or machine made the ledger."
    )
    return handler(trust(function))


def ledger_here() -> str:
    """Return the ledger that a command without ``--ledger`` means here."""
    context = click.get_current_context(silent=True)
    return str(context.meta.get(LEDGER_HERE, SETTINGS["ledger"].fallback)) if context else str(SETTINGS["ledger"].fallback)
