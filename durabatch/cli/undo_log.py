"""
``durabatch undo-log``: what a command says before it does something that can be undone.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from durabatch.cli.options import verb
from durabatch.codec import InvalidJsonError, parse_item
from durabatch.errors import UndoError
from durabatch.sizes import size_text
from durabatch.undo_client import MAX_ARGUMENTS_BYTES, log_effect

__all__ = ["command"]

STDIN = "-"
#: More text than this is never read: there may be blanks in it, but not so many.
MAX_TEXT_BYTES = 16 * MAX_ARGUMENTS_BYTES


@verb(
    "undo-log",
    """durabatch undo-log remove '{"path": "/srv/site"}' && mkdir /srv/site""",
    "jq -n --arg url \"$URL\" '{$url}' | durabatch undo-log delete_site -",
    reads_files=False,
)
@click.argument("action", metavar="ACTION")
@click.argument("text", metavar="[JSON]", required=False)
@click.option("--irreversible", is_flag=True, help="Nothing can undo the effect, as with a mail: it is only listed.")
def command(action: str, text: str | None, irreversible: bool) -> int:
    """
    Log what undoes the next effect of a command; for scripts.

    JSON is an object, or - for one on stdin. When this ends with 0, the entry is on disk and the effect may happen; otherwise it must not. ACTION and
    the object are {action} and {args.NAME} of the run's --undo-command, which undoes the effect when the item does not succeed, and in a rollback. It must
    bear that there is nothing to undo: nobody knows whether the effect happened.
    """
    arguments = {} if text is None else arguments_of(sys.stdin.buffer.read(MAX_TEXT_BYTES + 1) if text == STDIN else text)
    log_effect(action, arguments, is_irreversible=irreversible)
    return 0


def arguments_of(text: str | bytes) -> dict[str, Any]:
    """Return the object that *text* holds; UndoError when it holds none."""
    hint = """Give an object, as in: '{"path": "/srv/site"}'."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    if len(data) > MAX_TEXT_BYTES:
        raise UndoError(f"undo-log: the JSON is longer than {size_text(MAX_ARGUMENTS_BYTES)}", "Keep the arguments short.")
    try:
        found, _ = parse_item(data.strip())
    except InvalidJsonError as error:
        raise UndoError(f"undo-log: {error}", hint) from error
    if not isinstance(found, dict):
        raise UndoError("undo-log: the JSON is not an object", hint)
    return found
