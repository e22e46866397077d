"""
How a setting of several values, or one that names code, is written: lists, tables, handlers and checks.
"""

from __future__ import annotations

import json
import os
import shlex
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from durabatch import options
from durabatch.config.kinds import Kind, described, typed_text
from durabatch.errors import HandlerImportError, UsageError
from durabatch.importing import split_target
from durabatch.limits import Budget

__all__ = [
    "Amounts",
    "Check",
    "Codes",
    "Inputs",
    "ItemKeys",
    "Listing",
    "Names",
    "Params",
    "Patterns",
    "Several",
    "Table",
    "Target",
    "exception_name",
]


class Several(Kind):
    """Several values in one setting."""

    @abstractmethod
    def parse_all(self, texts: Sequence[str], *, option: str) -> Any:
        """Return the value of one text for each part."""


class Listing(Several):
    """
    A list; as one text its parts are separated by commas.

    Attributes:
        parts: Types of a part in a file.
    """

    expected = "a list of texts"
    types = (list, str)
    parts: tuple[type, ...] = (str,)

    def parse(self, text: str, *, option: str) -> Any:
        """Return the parts of *text*."""
        return self.parse_all([part.strip() for part in text.split(",")], option=option)

    def read(self, value: object, *, option: str) -> Any:
        """Return the parts of a list, or of one text."""
        if isinstance(value, list):
            return self.parse_all([typed_text(part, self.parts, self.expected, option=option) for part in value], option=option)
        return self.parse(typed_text(value, (str, *self.parts), self.expected, option=option), option=option)

    def accept(self, value: object, *, name: str) -> Any:
        """Return the parts of an iterable, or of one part alone."""
        many = isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray | Mapping | type)
        return self.read([self.adapted(part) for part in value] if many else [self.adapted(value)], option=name)  # type: ignore[attr-defined]

    def adapted(self, part: object) -> object:
        """Return a part given in Python as a file would hold it."""
        return part

    def show(self, value: Any) -> list[Any]:
        """Return the list."""
        return list(value)


class Names(Listing):
    """Names of exception classes; in Python also the classes."""

    expected = "a list of exception names"

    def parse_all(self, texts: Sequence[str], *, option: str) -> tuple[str, ...]:
        """Return the names."""
        return options.parse_names(texts, option=option)

    def adapted(self, part: object) -> object:
        """Return the name of a class."""
        return exception_name(part) if isinstance(part, type) and issubclass(part, BaseException) else part


class Codes(Listing):
    """Exit codes."""

    expected = "a list of exit codes"
    parts = (int,)

    def parse_all(self, texts: Sequence[str], *, option: str) -> tuple[int, ...]:
        """Return the codes."""
        return options.parse_codes(texts, option=option)


class Patterns(Listing):
    """Patterns of file names."""

    def parse_all(self, texts: Sequence[str], *, option: str) -> tuple[str, ...]:
        """Return the patterns."""
        if not all(texts):
            raise UsageError(f"{option}: a pattern is empty")
        return tuple(texts)


class Inputs(Patterns):
    """Paths of inputs; one text is one path, whatever it holds."""

    def parse(self, text: str, *, option: str) -> tuple[str, ...]:
        """Return *text* alone."""
        return self.parse_all([text], option=option)


class ItemKeys(Listing):
    """Keys of items; a text of the command line may hold several, separated by commas, a part of a list in a file is one."""

    expected = "a list of keys"
    parts = (str, int)

    def parse_all(self, texts: Sequence[str], *, option: str) -> tuple[str, ...]:
        """Return the keys in all of *texts*, each once."""
        return self.checked([part.strip() for text in texts for part in text.split(",")], option)

    def read(self, value: object, *, option: str) -> tuple[str, ...]:
        """Return the keys of a list, or of one text."""
        if isinstance(value, list):
            return self.checked([typed_text(part, self.parts, self.expected, option=option) for part in value], option)
        return self.parse(typed_text(value, (str, *self.parts), self.expected, option=option), option=option)  # type: ignore[no-any-return]

    def checked(self, keys: Sequence[str], option: str) -> tuple[str, ...]:
        """Return *keys*, each once; UsageError for an empty one."""
        if not all(keys):
            raise UsageError(f"{option}: a key is empty")
        return tuple(dict.fromkeys(keys))


class Table(Several):
    """Names with values; as one text ``NAME=VALUE`` separated by commas, or a JSON object."""

    expected = "a table of names and values"
    types = (dict, list, str)

    def parse(self, text: str, *, option: str) -> dict[str, Any]:
        """Return the values by name."""
        if not text.lstrip().startswith("{"):
            return dict(self.parse_all([part.strip() for part in text.split(",")], option=option))
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{option}: {described(text)} is no JSON object", "Use NAME=VALUE, or a JSON object.") from error
        return self.of_mapping(found, option=option)

    def read(self, value: object, *, option: str) -> dict[str, Any]:
        """Return the values by name of a table, a list of ``NAME=VALUE``, or one text."""
        if isinstance(value, dict):
            return self.of_mapping(value, option=option)
        if isinstance(value, list):
            return dict(self.parse_all([typed_text(part, (str,), self.expected, option=option) for part in value], option=option))
        return self.parse(typed_text(value, (str,), self.expected, option=option), option=option)

    def accept(self, value: object, *, name: str) -> dict[str, Any]:
        """Return the values by name of a mapping."""
        if not isinstance(value, Mapping):
            raise UsageError(f"{name}={value!r} is not a mapping of names to values")
        return self.of_mapping(value, option=name)

    @abstractmethod
    def of_mapping(self, mapping: Mapping[str, Any], *, option: str) -> dict[str, Any]:
        """Return the values by name of a mapping with typed values."""


class Amounts(Table):
    """Amounts that may be spent, by unit."""

    def parse_all(self, texts: Sequence[str], *, option: str) -> dict[str, float]:
        """Return the amounts of ``UNIT=AMOUNT``, each unit once."""
        amounts: dict[str, float] = {}
        for budget in (Budget.parse(text, option=option) for text in texts):
            if budget.unit in amounts:
                raise UsageError(f"{option}: {budget.unit!r} is given twice", "Give each unit once.")
            amounts[budget.unit] = budget.amount
        return amounts

    def of_mapping(self, mapping: Mapping[str, Any], *, option: str) -> dict[str, float]:
        """Return the amounts of a table."""
        return self.parse_all([f"{unit}={amount_text(amount)}" for unit, amount in mapping.items()], option=option)


def amount_text(amount: object) -> str:
    """Return an amount without an exponent."""
    return f"{amount:.9f}".rstrip("0").rstrip(".") if isinstance(amount, float) and abs(amount) < 1e15 else str(amount)[:40]


class Params(Table):
    """Values of the handler's keyword-only parameters: text as typed, or values that keep their type."""

    def parse_all(self, texts: Sequence[str], *, option: str) -> dict[str, Any]:
        """Return the texts of ``NAME=VALUE`` by name; the handler's annotation decides what they become."""
        return dict(options.parse_params(texts, option=option))

    def of_mapping(self, mapping: Mapping[str, Any], *, option: str) -> dict[str, Any]:
        """Return typed values as they are stored."""
        from durabatch.loading import quote_params

        for name in mapping:
            options.parse_param(f"{name}=", option=option)
        try:
            return quote_params(mapping)
        except UsageError as error:
            raise UsageError(f"{option}: {error.what}", error.hint) from error

    def show(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values without the mark of literal text."""
        from durabatch.signatures import LITERAL

        return {name: one[LITERAL] if isinstance(one, dict) and LITERAL in one else one for name, one in value.items()}


class Target(Kind):
    """A handler by name, kept as text."""

    expected = "a text 'module:function'"

    def parse(self, text: str, *, option: str) -> str:
        """Return *text* when it has the form of a name."""
        try:
            split_target(text)
        except HandlerImportError as error:
            raise HandlerImportError(f"{option}{error.what.removeprefix('handler')}", error.hint) from error
        return text


class Check(Kind):
    """A preflight check: ``module:function``, or a command; kept as a reference. In Python also a function."""

    expected = "a text 'module:function', or a command"

    def parse(self, text: str, *, option: str) -> dict[str, Any]:
        """Return the reference of a function or a command."""
        from durabatch.loading import command_ref, parse_target

        try:
            return parse_target(text)
        except HandlerImportError:
            return command_ref(words_of(text, option), shell=False, parse="none")

    def accept(self, value: object, *, name: str) -> dict[str, Any]:
        """Return the reference of a function, or of a text."""
        if not callable(value):
            return dict(self.read(value, option=name))
        from durabatch.loading import describe_function

        reference = describe_function(value)
        if reference is None:
            raise UsageError(f"{name}: {getattr(value, '__qualname__', value)!r} has no importable name", "Put the check into a module.")
        return reference

    def show(self, value: dict[str, Any] | None) -> str | None:
        """Return the reference as typed."""
        return None if value is None else shlex.join(value["argv"]) if value["kind"] == "command" else shown_target(value["target"])


def words_of(text: str, option: str) -> list[str]:
    """Return the words of a command."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{option}: {described(text)} is no command: {str(error).lower()}") from error
    if not words:
        raise UsageError(f"{option}: is empty", "Give module:function, or a command.")
    return words


def shown_target(target: str) -> str:
    """Return a target with its file as seen from here."""
    return target.removeprefix(os.path.join(os.getcwd(), ""))


def exception_name(kind: type) -> str:
    """Return the name by which failures know an exception class: ``ConnectionError``, ``package.module.Error``; of the program itself the bare name."""
    return kind.__qualname__ if kind.__module__ in {"builtins", "__main__"} else f"{kind.__module__}.{kind.__qualname__}"
