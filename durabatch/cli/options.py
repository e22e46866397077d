"""
The options that verbs share, each written once, and the form that every verb has.

Values are read by :mod:`durabatch.options`, so a wrong one is a UsageError that names the option; click only finds the texts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from durabatch import options as texts
from durabatch.cli import printing
from durabatch.cli.failures import Manner
from durabatch.errors import UsageError
from durabatch.intake.problems import did_you_mean

__all__ = [
    "DEFAULT_LEDGER",
    "LEDGER_VARIABLE",
    "VerbCommand",
    "intake_options",
    "json_option",
    "name_options",
    "parsed",
    "recorded_options",
    "run_argument",
    "verb",
    "word_option",
    "working_options",
]

DEFAULT_LEDGER = "durabatch.db"
LEDGER_VARIABLE = "DURABATCH_LEDGER"
COMMON_NAMES = ("ledger", "color", "traceback")
MAX_RETRIES, MAX_BATCH, MAX_DEPTH = 1_000_000, 1_000_000, 5

_F = TypeVar("_F", bound=Callable[..., Any])


class VerbCommand(click.Command):
    """
    A verb whose help ends with examples, shown as they are typed.

    Args:
        examples: Command lines.
    """

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.examples = examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line; what is wrong with it is said to be wrong with this verb."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Examples"):
            for line in self.examples:
                formatter.write(f"  {line}\n")


def verb(name: str, *examples: str, cls: type[VerbCommand] = VerbCommand) -> Callable[[Callable[..., int]], click.Command]:
    """Return the decorator that makes a function the verb *name*, with the options that every verb has; it returns the exit code."""

    def decorate(function: Callable[..., int]) -> click.Command:
        for option in reversed((ledger_option, color_option, traceback_option)):
            function = option(function)
        settings = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
        command = click.command(name, cls=cls, examples=examples, context_settings=settings)(function)
        # Help begins with what is particular to the verb.
        command.params.sort(key=lambda parameter: parameter.name in COMMON_NAMES)
        return command

    return decorate


def parsed(parse: Callable[..., Any], **bounds: Any) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """Return a click callback that reads the text of an option with *parse*; an option that was not given stays None."""

    def read(_context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
        return None if value is None else parse(value, option=parameter.opts[-1], **bounds)

    return read


def word_option(flag: str, words: tuple[str, ...], *, default: str | None, help: str, **rest: Any) -> Callable[[_F], _F]:
    """Return the decorator for an option that is one of *words*."""

    def read(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        if value is not None and value not in words:
            raise UsageError(f"{flag}: {value!r} is not one of {', '.join(words)}", did_you_mean(value, words))
        then: Callable[[click.Context, click.Parameter, str | None], None] | None = rest.get("then")
        if then is not None:
            then(context, parameter, value)
        return value

    passed = {name: value for name, value in rest.items() if name != "then"}
    return click.option(flag, metavar="|".join(words), default=default, callback=read, help=help, **passed)


def remember_color(_context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    """Color what is printed from now on."""
    printing.use_color(value or "auto")


def remember_traceback(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    """Let a failure show its traceback."""
    manner = context.find_object(Manner)
    if manner is not None:
        manner.traceback = value


ledger_option = click.option(
    "--ledger",
    metavar="PATH",
    default=DEFAULT_LEDGER,
    envvar=LEDGER_VARIABLE,
    show_default=True,
    show_envvar=True,
    help="The SQLite file that holds the runs.",
)
traceback_option = click.option(
    "--traceback",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=remember_traceback,
    help="Show the Python traceback of an error.",
)
color_option = word_option(
    "--color",
    ("auto", "always", "never"),
    default="auto",
    help="Color; auto: on a terminal, unless NO_COLOR is set.",
    then=remember_color,
    is_eager=True,
    expose_value=False,
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document with schema_version.")
run_argument = click.argument("run", metavar="[RUN]", required=False)


def several(*options: Callable[[_F], _F]) -> Callable[[_F], _F]:
    """Return one decorator for all of *options*, shown in help in this order."""

    def decorate(function: _F) -> _F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


#: How a run works; names are those of RunSettings where they stand there, None means not given.
working_options = several(
    click.option(
        "-j",
        "--workers",
        metavar="N|N%",
        callback=parsed(texts.parse_workers),
        help="Worker processes; 0 runs items in this process. [default: usable cores]",
    ),
    click.option(
        "--batch-size",
        metavar="N",
        callback=parsed(texts.parse_count, minimum=1, maximum=MAX_BATCH),
        help="Items in a batch, the unit of --output files. [default: 100]",
    ),
    click.option(
        "--pipeline-depth",
        metavar="D",
        callback=parsed(texts.parse_count, minimum=1, maximum=MAX_DEPTH),
        help="Dispatches a worker holds at once, 1 to 5. [default: 2]",
    ),
    click.option(
        "--retries",
        metavar="N",
        callback=parsed(texts.parse_count, minimum=0, maximum=MAX_RETRIES),
        help="Further tries for an item that fails. [default: 0]",
    ),
    click.option("--output", metavar="DIR", help="Write batch_0001.json ... and summary.json there."),
    click.option("--max-item-bytes", metavar="SIZE", callback=parsed(texts.parse_size), help="Largest item. [default: 16MiB]"),
    click.option("--max-result-bytes", metavar="SIZE", callback=parsed(texts.parse_size), help="Largest result as JSON. [default: 64MiB]"),
    click.option(
        "--term-grace", metavar="T", callback=parsed(texts.parse_duration), help="From asking a worker to end to killing it. [default: 5s]"
    ),
    click.option(
        "--drain", metavar="T", callback=parsed(texts.parse_duration), help="Time a first Ctrl-C leaves to running items. [default: 30s]"
    ),
    word_option(
        "--durability",
        ("power", "process"),
        default="power",
        help="What a commit survives: a power cut, or only the death of processes. [default: power]",
    ),
    click.option("--allow-network-fs", is_flag=True, help="Accept a ledger on a network file system that only this host uses."),
    word_option(
        "--progress",
        ("auto", "bar", "plain", "json", "none"),
        default="auto",
        help="On stderr; auto: a bar on a terminal, else a line every 30 s. [default: auto]",
    ),
)

#: What a run is called.
name_options = several(
    click.option("--name", metavar="NAME", help="Name of the run. [default: HANDLER's function:INPUT]"),
    click.option("--fresh", is_flag=True, help="Start a new run of that name instead of going on with the last one."),
)

#: What the items are.
intake_options = several(
    click.option("--format", metavar="FORMAT", help="lines, csv, tsv, jsonl or files. [default: by suffix]"),
    click.option("--files", "as_files", is_flag=True, help="A plain file is an item too, not a list."),
    click.option("--include", metavar="PATTERN", multiple=True, help="Only files of that name in directories; may be repeated."),
    click.option("--key", metavar="FIELD", help="Field that identifies an item. [default: key or id, else the content]"),
    click.option("--delimiter", metavar="CHAR", help="What separates columns."),
    click.option("--encoding", metavar="NAME", default="utf-8", show_default=True, help="Encoding of lists."),
    click.option("--null", is_flag=True, help="Lines end with NUL, as find -print0 writes them."),
)

#: What a run on record is taken up with.
recorded_options = several(
    click.option("--handler", metavar="HANDLER", help="module:function or file.py:function in the place of the recorded one."),
    click.option("--trust-ledger", is_flag=True, help="Import the recorded handler although another user or machine made the ledger."),
)
