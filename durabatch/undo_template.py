"""
The command that undoes what the commands of a run have logged: ``--undo-command 'rm -rf -- {args.path}'``.

    {action}       the name under which the effect was logged
    {args.NAME}    an argument of it, {args.A.B} one from inside it; a text as it is, anything else as compact JSON
    {args}         all of them, as a JSON object
    {key}          the key of the item

Whether the effect happened is not known when it is run, so it has to end with 0 also where nothing is to be undone.

The words are those that a shell would see; none is started, so what is put in stays (part of) one word. The program is named by whoever
started the run, never by an entry.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from typing import Any

from durabatch.errors import HandlerImportError, UndoError, UsageError
from durabatch.options import did_you_mean
from durabatch.placeholders import Placeholder, as_text, field_at, guarded, parts_of, refusal_of

__all__ = ["UndoTemplate"]

OPTION = "--undo-command"
NAMES = ("action", "args", "key")
ARGUMENT = "args."
FORMS = "{action}, {args.NAME}, {args} and {key}"


class UndoTemplate:
    """
    A command with places for what an entry holds; ``str`` gives the text that it was parsed from.

    Attributes:
        program: The word by which the program is found.
    """

    def __init__(self, text: str, words: list[list[str | Placeholder]]) -> None:
        self._text = text
        self._words = words
        self.program = "".join(map(str, words[0]))

    @classmethod
    def parse(cls, text: str, *, option: str = OPTION) -> UndoTemplate:
        """
        Return the command in *text*.

        Raises:
            UsageError: It has no words, an open quote, a lone brace, a placeholder of another name, or one in the place of the program.
        """
        try:
            words = shlex.split(text)
            parts = [parts_of(word) for word in words]
        except ValueError as error:
            raise UsageError(f"{option}: {text[:100]!r}: {str(error).lower()}", "It is split into words as a shell would.") from error
        except HandlerImportError as error:
            raise UsageError(f"{option}: {error.what}", error.hint) from error
        if not words or not words[0]:
            raise UsageError(f"{option}: names no program", "Give a command, as in: rm -rf -- {args.path}.")
        check_places(parts, option)
        return cls(text, [guarded(word, is_open="--" not in words[1:index]) for index, word in enumerate(parts)])

    def check_program(self) -> None:
        """Return when the program is there; UsageError when it is not."""
        if shutil.which(self.program) is None:
            raise UsageError(f"{OPTION}: cannot run {self.program!r}: no such program", "Give its path, or put it on PATH.")

    def render(self, action: str, arguments: Mapping[str, Any], key: str) -> list[str]:
        """
        Return program and arguments for one entry.

        Args:
            key: Key of the item.

        Raises:
            UndoError: The entry has no value for a placeholder, or one that no program can be given there.
        """
        values = {"action": action, "args": dict(arguments), "key": key}
        return ["".join(part if isinstance(part, str) else text_for(part, values) for part in word) for word in self._words]

    def __str__(self) -> str:
        return self._text


def check_places(words: list[list[str | Placeholder]], option: str) -> None:
    """Return when each placeholder has a name that there is, and none stands in the program."""
    for index, word in enumerate(words):
        for name in (part.name for part in word if isinstance(part, Placeholder)):
            if name not in NAMES and not (name.startswith(ARGUMENT) and name != ARGUMENT):
                near = did_you_mean(name, NAMES) or f"Did you mean '{ARGUMENT}{name}'?" if name else ""
                raise UsageError(f"{option}: unknown placeholder {{{name}}}", f"{near} There are {FORMS}.".strip())
            if index == 0:
                raise UsageError(f"{option}: the program would come from {{{name}}}", "Name the program; entries are its arguments.")


def text_for(place: Placeholder, values: Mapping[str, Any]) -> str:
    """Return the text for a place."""
    try:
        text = as_text(values[place.name] if place.name in values else field_at(values["args"], place.name.removeprefix(ARGUMENT)))
    except LookupError:
        there = ", ".join(values["args"]) or "none"
        raise UndoError(f"{OPTION} names {{{place.name}}}, and the entry has no such argument", f"Its arguments: {there}.") from None
    refusal = refusal_of(text, place)
    if refusal is not None:
        raise UndoError(f"{OPTION}: {refusal}")
    return text
