"""
How a command that durabatch runs says what undoes its next effect, before that happens.

The command, and every process that it starts with its descriptors, holds one end of a datagram socket. Whoever has something to log sends
the end of a fresh stream socket over it and then speaks with the worker there, alone: one line of JSON, ``{"action": ..., "arguments":
{...}, "is_irreversible": false}``, and one line back, ``{"recorded": true}`` once the entry is on disk, or ``{"refusal": ...}``. So many processes may log at once,
and none of them ever opens the ledger.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Mapping

from pydantic_core import from_json, to_json

from durabatch.codec import encode_value
from durabatch.errors import ResultError, UndoError, UsageError

__all__ = [
    "IN_CHECK",
    "IN_STEP",
    "MAX_ARGUMENTS_BYTES",
    "NO_UNDO_COMMAND",
    "UNDO_VARIABLE",
    "answer_line",
    "check_action",
    "door_text",
    "log_effect",
    "request_line",
    "undo_log",
]

#: The variable that says where a command logs: ``DESCRIPTOR:INODE`` of its socket, or one of the words below.
UNDO_VARIABLE = "DURABATCH_UNDO_FD"
NO_UNDO_COMMAND, IN_CHECK, IN_STEP = "no-undo-command", "in-check", "in-undo-command"
MAX_ARGUMENTS_BYTES = 64 * 1024
#: Characters of an action's name.
MAX_ACTION = 200
READ_BYTES = 4096
ENDED = "The command or its worker has ended; let the effect not happen."
#: Why nothing can be logged in a command, and what to do.
REFUSALS = {
    NO_UNDO_COMMAND: ("this run has no command that undoes effects", "Give one: --undo-command 'rm -rf -- {args.path}'."),
    IN_CHECK: ("this is the preflight check, which has no effects to undo", "Log in the command that is run for the item."),
    IN_STEP: ("this is the command that undoes effects", "What it does is not undone."),
}


def undo_log(action: str, /, **arguments: object) -> None:
    """
    Log what undoes the next effect of this command; call it before that. The entry is on disk on return.

    For Python programs that ``durabatch exec`` runs; in a handler it is ``ctx.undo``. The run's ``--undo-command`` undoes it when the item does
    not succeed, and in a rollback.

    Args:
        action: Its name, what ``{action}`` stands for.
        arguments: What ``{args.NAME}`` stands for: values that can be stored as JSON.

    Raises:
        UndoError: It is not recorded, and the effect must not happen.
        UsageError: This process is not part of such a command.
    """
    log_effect(action, arguments)


def log_effect(action: str, arguments: Mapping[str, object], *, is_irreversible: bool = False) -> None:
    """As :func:`undo_log`, with the arguments as one mapping. With *is_irreversible* nothing can undo the effect: it is kept to be listed."""
    request = request_line(action, arguments, is_irreversible=is_irreversible)
    descriptor = door()
    try:
        answer = asked(descriptor, request)
    except OSError as error:
        raise UndoError(f"{action!r} is not recorded: no answer from the run ({error.strerror or error})", ENDED) from error
    if answer is None:
        raise UndoError(f"{action!r} is not recorded: no answer from the run", ENDED)
    refusal = from_json(answer).get("refusal")
    if refusal is not None:
        raise UndoError(f"{action!r} is not recorded: {refusal}")


def request_line(action: str, arguments: Mapping[str, object], *, is_irreversible: bool = False) -> bytes:
    """Return the line that asks for an entry; UndoError when the name or the arguments cannot be stored."""
    check_action(action)
    try:
        text = encode_value(dict(arguments), limit_bytes=MAX_ARGUMENTS_BYTES)
    except ResultError as error:
        raise UndoError(
            f"the arguments of {action!r} cannot be stored: {error.what}", "Give an object of at most 64 KiB of JSON."
        ) from error
    return b'{"action":%b,"arguments":%b,"is_irreversible":%b}\n' % (to_json(action), text.encode(), to_json(is_irreversible))


def check_action(action: object) -> None:
    """Return when *action* can be the name of one; UndoError when it cannot."""
    if not isinstance(action, str) or not action or not action.isprintable() or len(action) > MAX_ACTION:
        raise UndoError(f"{action!r:.100} is not the name of an action", f"Give a printable text of 1 to {MAX_ACTION} characters.")


def answer_line(refusal: str | None) -> bytes:
    """Return the line that answers: the entry is on disk, or why it is not."""
    return to_json({"recorded": True} if refusal is None else {"refusal": refusal}) + b"\n"


def door_text(descriptor: int) -> str:
    """Return the value of the variable for an open socket."""
    return f"{descriptor}:{os.fstat(descriptor).st_ino}"


def door() -> int:
    """Return the descriptor of this command's socket; an error that says why there is none."""
    value = os.environ.get(UNDO_VARIABLE, "")
    if value in REFUSALS:
        what, todo = REFUSALS[value]
        raise UndoError(f"nothing can be logged: {what}", todo)
    number, _, inode = value.partition(":")
    if not (number.isascii() and number.isdigit() and inode.isascii() and inode.isdigit()):
        raise UsageError(
            "undo-log: this is no command that durabatch runs",
            "Call it in a command of `durabatch exec`; a Python handler has ctx.undo(...).",
        )
    try:
        found = os.fstat(int(number))
    except (OSError, OverflowError):
        found = None
    if found is None or not stat.S_ISSOCK(found.st_mode) or found.st_ino != int(inode):
        raise UsageError(
            f"undo-log: descriptor {number} of the command was closed on the way to here",
            f"Let programs inherit it; in Python: subprocess.run(..., pass_fds=[{number}]), or durabatch.undo_log(...).",
        )
    return int(number)


def asked(descriptor: int, request: bytes) -> bytes | None:
    """Send a request and return the line that comes back; None when there is nobody any more to answer."""
    own, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with own:
        with theirs, socket.socket(fileno=os.dup(descriptor)) as shared:
            socket.send_fds(shared, [b"u"], [theirs.fileno()])
        own.sendall(request)
        answer = bytearray()
        while not answer.endswith(b"\n"):
            data = own.recv(READ_BYTES)
            if not data:
                return None
            answer += data
        return bytes(answer)
