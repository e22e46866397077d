"""
``durabatch exec``: a command once for each item, without a shell in between.
"""

from __future__ import annotations

import click

from durabatch.cli.options import VerbCommand, verb
from durabatch.cli.starting import start_run
from durabatch.config.resolving import Effective

__all__ = ["ExecCommand", "command"]


class ExecCommand(VerbCommand):
    """A verb whose words after ``--`` are a command, whatever they look like."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the words after the first ``--`` away before options are looked for; they are the parameter ``words``."""
        cut = args.index("--") if "--" in args else len(args)
        rest = super().parse_args(ctx, args[:cut])
        ctx.params["words"] = tuple(args[cut + 1 :])
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the words of the usage line."""
        return [*super().collect_usage_pieces(ctx), "-- COMMAND [ARG]..."]


@verb(
    "exec",
    "durabatch exec hosts.txt -j 8 -- ping -c1 {}",
    "durabatch exec servers.csv --key host --retries 2 -- ssh {host} uptime",
    "durabatch exec 'photos/*.png' -- convert {} {}.webp",
    "durabatch exec urls.txt --shell --parse json -- 'curl -s {} | jq .headers'",
    settings="exec",
    cls=ExecCommand,
)
def command(words: tuple[str, ...], wishes: Effective) -> int:
    """
    Run a command once for each item of the input.

    In COMMAND and ARG, {} is the item, {key} its key, {column} a field of it, {#} its number; {{ and }} are braces. No shell is in
    between unless --shell is given. INPUT is read as by `durabatch run`. The result is {"exit_code", "stdout", "stderr"}; an exit code other than
    0 is a failure.
    """
    from durabatch.loading import command_ref

    return start_run(command_ref(words, shell=wishes["shell"], parse=wishes["parse"]), wishes.of_verb("exec"))
