"""
The command ``durabatch``: finds the verb, runs it, ends with its exit code.

A verb is a module of this room with a ``command``, imported when it is called. Importing this module loads neither the ledger nor rich.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from durabatch.cli import printing
from durabatch.cli.failures import Manner, complain, guarded
from durabatch.options import did_you_mean
from durabatch.version import __version__

__all__ = ["Verbs", "cli", "main"]

#: The verbs by what they are for, each with the first sentence of its help: so that none has to be imported to be named.
VERBS = {
    "Run": {
        "run": "Run a function once for each item of the input.",
        "exec": "Run a command once for each item of the input.",
        "plan": "Show what `durabatch run` with the same words would do, and do nothing.",
        "resume": "Go on with a run that was interrupted or halted.",
        "retry": "Run the failed items again.",
        "submit": "Add items to an open run, from any process at any time.",
        "work": "Work on an open run, and wait for more items.",
        "close": "Let an open run take no more items, and finish.",
    },
    "Look": {
        "status": "Show where a run stands.",
        "runs": "List the runs of the ledger, oldest first.",
        "items": "List the items of a run in input order.",
        "results": "Print the results of a run as JSON lines in input order.",
        "export": "Write the results of a run to a file.",
        "errors": "Show the failed items of a run grouped by error.",
        "attempts": "Show every try at the item KEY, oldest first.",
        "explain": "Say what happened to the item KEY, and what happens to it next.",
        "checkpoints": "List the checkpoints of a run.",
        "sql": "Query the ledger, read-only.",
    },
    "Steer": {
        "pause": "Pause the run that is at work.",
        "unpause": "Let a paused run go on.",
        "scale": "Change the number of workers of the run that is at work to N.",
        "set": "Change settings of the run that is at work.",
        "drain": "Stop the run that is at work after its items in flight.",
        "cancel": "End a run for good; its open items are cancelled.",
    },
    "Undo": {
        "rollback": "Undo what the items of a run did.",
        "transactions": "List the transactions of the ledger, oldest first.",
        "undo-log": "Log what undoes the next effect of a command; for scripts.",
    },
    "Care": {
        "init": "Write a commented durabatch.toml here.",
        "check": "Show each setting in force here and where it comes from.",
        "verify": "Check that the ledger is sound.",
        "backup": "Copy the ledger to FILE, also while a run is on.",
    },
}
NAMES = tuple(name for names in VERBS.values() for name in names)

EXAMPLES = (
    "durabatch run audit.py:audit servers.csv --key host -j 8",
    "durabatch exec hosts.txt -- ping -c1 {}",
    "durabatch status",
    "durabatch results > results.jsonl",
    "durabatch retry",
)
EXIT_CODES = (
    ("0", "all items succeeded"),
    ("1", "finished with failed or undone items, or cancelled, or rolled back with effects that remain"),
    ("2", "wrong use, or an input that has changed; nothing was started"),
    ("3", "halted; the same command goes on"),
    ("4", "the ledger cannot be used: held by another, foreign, damaged, missing; or not as it was recorded"),
    ("5", "no items"),
    ("70", "an error in durabatch itself"),
    ("129, 130, 143", "ended by HUP, INT, TERM; the same command goes on"),
)


class Verbs(click.Group):
    """The verbs, in the order in which they are met, each loaded when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click calls it
        """Return the names of all verbs."""
        return list(NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as click calls it
        """Return the verb of that name, or None."""
        if cmd_name not in NAMES:
            return None
        command: click.Command = importlib.import_module(f"durabatch.cli.{cmd_name.replace('-', '_')}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the verb that *args* begin with and the rest; an unknown one is a usage error with the nearest name."""
        if not args[0].startswith("-") and args[0] not in NAMES:
            hint = did_you_mean(args[0], NAMES)
            raise click.UsageError(f"unknown command '{args[0]}'{'. ' if hint else ''}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as click calls it
        """Write the verbs by what they are for."""
        for title, verbs in VERBS.items():
            with formatter.section(title):
                formatter.write_dl(list(verbs.items()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as click calls it
        """Write examples and exit codes."""
        with formatter.section("Examples"):
            for line in EXAMPLES:
                formatter.write(f"  {line}\n")
        with formatter.section("Exit codes"):
            formatter.write_dl(list(EXIT_CODES))


@click.group(
    cls=Verbs,
    name="durabatch",
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(__version__, message="durabatch %(version)s", help="Show the version and end.")
def cli() -> None:
    """map() that survives kill -9, a power cut and a bad item: batches in one SQLite file, resumed by the same command."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """End the process with the exit code of the command line *arguments*, by default those of the process."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    printing.prepare_streams()
    printing.use_color("auto")
    manner = Manner()
    if os.name == "nt":
        complain("Windows: file locks and signals work differently there. Use durabatch inside WSL.")
        sys.exit(2)
    sys.exit(guarded(lambda: dispatched(words, manner), manner))


def dispatched(words: list[str], manner: Manner) -> int:
    """Run the verb that *words* name and return its exit code."""
    if not words:
        printing.say(f"usage: durabatch VERB [OPTION]... [ARGUMENT]...    (verbs: {', '.join(NAMES)})")
        printing.say("Try `durabatch --help`.")
        return 2
    with cli.make_context("durabatch", words, obj=manner) as context:
        code = cli.invoke(context)
    return code if isinstance(code, int) else 0
