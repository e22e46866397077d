"""
From an exception to one line on stderr and an exit code: the only place that decides how a command fails.

    durabatch: <what>: <why>. <what to do>

Exit codes are frozen; README.md lists them. A traceback is shown with ``--traceback`` alone; without it, that of an error in durabatch
itself goes to a file.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import click

from durabatch.cli import printing
from durabatch.errors import DurabatchError
from durabatch.options import did_you_mean
from durabatch.version import __version__

__all__ = ["Manner", "complain", "guarded", "usage_sentence"]

OK, USAGE, LEDGER, INTERNAL, INTERRUPTED = 0, 2, 4, 70, 130


@dataclass(slots=True)
class Manner:
    """How a command was asked to behave when it fails; options set it while they are parsed."""

    traceback: bool = False


def guarded(call: Callable[[], int], manner: Manner) -> int:
    """Return the exit code of *call*; whatever it raises becomes a line on stderr and a code of ours."""
    try:
        try:
            code = call()
        except click.exceptions.Exit as end:
            code = end.exit_code
        printing.flush()
        return code
    except printing.OutputError as error:
        return failed_output(error)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except (DurabatchError, click.ClickException) as error:
        return failed(error, manner)
    except Exception as error:  # noqa: BLE001 - the last net: a user is shown a line, and a file keeps the rest
        return broken(error, manner)


def failed(error: DurabatchError | click.ClickException, manner: Manner) -> int:
    """Say what was wrong and return the error's exit code."""
    if manner.traceback:
        show_traceback(error)
    if isinstance(error, DurabatchError):
        complain(str(error))
        return error.exit_code
    complain(usage_sentence(error))
    return USAGE


def failed_output(error: printing.OutputError) -> int:
    """Return the exit code for a stdout that cannot be written to: all is well when its reader has read enough."""
    printing.silence_stdout()
    if error.is_reader_gone:
        return OK
    complain(f"cannot write to stdout: {error}. Make room, or write to another place.")
    return LEDGER


def broken(error: Exception, manner: Manner) -> int:
    """Say that durabatch itself is wrong, and where the details are."""
    what = f"internal error: {type(error).__name__}: {printing.clean(str(error))[:300]}"
    if manner.traceback:
        show_traceback(error)
        complain(f"{what}. Please report it with this traceback.")
        return INTERNAL
    try:
        complain(f"{what}. Please report it with {debug_file(error)}, which holds the traceback.")
    except OSError as trouble:
        show_traceback(error)
        complain(f"{what}. Please report it with this traceback; it could not be kept in a file ({trouble.strerror}).")
    return INTERNAL


def complain(sentence: str) -> None:
    """Print *sentence* on stderr as the one line of an error, with a full stop."""
    line = printing.clean(sentence)
    line = line if line.endswith((".", "?", "!")) else f"{line}."
    printing.say(f"{printing.painted('durabatch:', 'bad', sys.stderr)} {line}")


def show_traceback(error: BaseException) -> None:
    """Print the traceback of *error* and of its causes on stderr; line ends stay, all else that could harm is escaped."""
    for line in "".join(traceback.format_exception(error)).splitlines():
        printing.say(printing.clean(line))


def debug_file(error: BaseException) -> str:
    """Return the path of a new file, readable by this user alone, with the traceback; options and data of the command are not in it."""
    descriptor, path = tempfile.mkstemp(prefix="durabatch-error-", suffix=".txt")
    head = f"durabatch {__version__}, Python {platform.python_version()}, {platform.platform()}, pid {os.getpid()}\n\n"
    with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(head + "".join(traceback.format_exception(error)))
    return path


def usage_sentence(error: click.ClickException) -> str:
    """Return what click found wrong as one sentence, with the way to the help of the verb."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "durabatch"
    what, hint = usage_facts(error)
    hint = hint or options_stand_behind(error, context)
    return f"{what}{'' if what.endswith('?') else '.'} {f'{hint} ' if hint else ''}Try `{path} --help`."


def usage_facts(error: click.ClickException) -> tuple[str, str]:
    """Return what is wrong, without a full stop, and a hint that may be empty."""
    if isinstance(error, click.NoSuchOption):
        return f"unknown option '{error.option_name}'", did_you_mean(error.option_name, error.possibilities or ())
    if isinstance(error, click.MissingParameter):
        return f"{parameter_name(error)} is missing", ""
    if isinstance(error, click.BadParameter):
        return f"{parameter_name(error)}: {lowered(error.message)}", ""
    return lowered(error.message), ""


def options_stand_behind(error: click.ClickException, context: click.Context | None) -> str:
    """Return the hint for an option of a verb that was typed before the verb."""
    if isinstance(error, click.NoSuchOption) and context is not None and context.parent is None:
        return f"Options stand behind the verb, as in `durabatch status {error.option_name}`."
    return ""


def parameter_name(error: click.BadParameter) -> str:
    """Return the option or argument that *error* is about, as typed."""
    if error.param is None:
        return str(error.param_hint or "an argument")
    return error.param.opts[-1] if error.param.param_type_name == "option" else error.param.human_readable_name


def lowered(message: str) -> str:
    """Return *message* of click's as the middle of a sentence: without capital and full stop."""
    return " ".join((message[:1].lower() + message[1:]).split()).rstrip(".")
