"""
What every source is: a stream of pages, each with the durable position behind it.

A page is bounded by rows and bytes, so memory is too. Its position is JSON text that stands in the ledger beside the rows: after a
crash the same source opened again goes on from it exactly, without the rows that are recorded and without a gap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from durabatch.errors import InputError

__all__ = ["FIRST_PAGE_ITEMS", "Batch", "Page", "Part", "Reader", "Row", "Source"]

#: The first page is small, so that work starts at once.
FIRST_PAGE_ITEMS = 200

#: One item: key (None: known by its content, the engine gives the ordinal), payload as canonical JSON text, source position from 1.
Row = tuple[str | None, str, int]


@dataclass(slots=True)
class Page:
    """
    A piece of a source.

    Attributes:
        rows: Items in source order; their positions are strictly increasing over the whole source. May be empty.
        position: Where to go on after these rows, JSON text for :meth:`Source.pages`.
        problem: Bad input met right after these rows; no page follows. A corrected source goes on from ``position``.
        done: True on the last page of a source that was read to its end.
        left_out: What was wrong with the lines that were stepped over between the page before this one and its end.
    """

    rows: list[Row]
    position: str
    problem: InputError | None = None
    done: bool = False
    left_out: Sequence[InputError] = ()


class Source(Protocol):
    """Where the items of a run come from."""

    #: The input as typed, for messages and default names.
    description: str

    @property
    def key_note(self) -> str | None:
        """A sentence for stderr about a key field that was chosen by itself; None before the first page and when there was no choice."""
        ...

    def fingerprint(self) -> list[dict[str, Any]] | None:
        """
        Return path (absolute), ``bytes`` and ``mtime_ns`` of every input file as they are now.

        None when files do not tell everything: standard input, pipes, directories, patterns, iterables.
        """
        ...

    @property
    def repeatable(self) -> bool:
        """Whether it can be read from its start more than once: pipes and iterators cannot."""
        ...

    def ready(self) -> bool:
        """Return False when the next page would have to wait for a program that writes to a pipe; True otherwise."""
        ...

    def pages(self, position: str | None, *, max_items: int, max_bytes: int) -> Iterator[Page]:
        """
        Yield the pages after *position* (None: from the start) in order; the last one is ``done`` or has a ``problem``.

        The first page has at most :data:`FIRST_PAGE_ITEMS` rows, every other at most *max_items*. *max_bytes* bounds the input bytes
        of a page, names of columns included; the last item of a page may go over it. A page of a pipe holds what is there.
        """
        ...


@dataclass(slots=True)
class Batch:
    """What one read of a part gave: rows, their input bytes, a problem behind them, and whether the part ends here."""

    rows: list[Row]
    bytes: int = 0
    problem: InputError | None = None
    ended: bool = False


class Reader(Protocol):
    """An opened part of a source."""

    #: True when reading may wait for another program; its rows are handed on as they come.
    waits: bool

    def read(self, max_items: int, max_bytes: int) -> Batch:
        """Return the next rows, at least one unless the part ended, waits, or has a problem. Never raises InputError."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what :meth:`Part.open` needs to go on behind the rows read so far."""
        ...

    def position(self) -> int:
        """Return the source position of the last row or line consumed, counted as the rows are."""
        ...

    def ready(self) -> bool:
        """Return False when :meth:`read` would wait."""
        ...

    def close(self) -> None:
        """Let go of files. The reader is of no further use."""
        ...


class Part(Protocol):
    """One piece of a source: a file, standard input, or files that are items themselves."""

    @property
    def path(self) -> str | None:
        """Path of a plain input file; None when the part is not one."""
        ...

    @property
    def repeatable(self) -> bool:
        """Whether it can be opened more than once: what reads a pipe cannot."""
        ...

    def open(self, state: dict[str, Any] | None, base: int) -> Reader:
        """
        Return a reader behind *state* (None: from the start) whose rows count their positions from *base* + 1.

        Raises:
            InputError: The part cannot be read, or its head is wrong.
        """
        ...
