"""
Some of the items of a source: a range, those with certain keys, a sample, the first so many. In this order, each of what the one before left.

Positions are those of the source with what was counted so far, so that going on in the middle takes exactly the rest. A sample needs all
of the source before its first item, and is drawn anew from the same items when it is gone on with.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from durabatch.clock import monotonic_s
from durabatch.errors import InputError, UsageError
from durabatch.intake.problems import available
from durabatch.intake.source import FIRST_PAGE_ITEMS, Page, Row, Source
from durabatch.options import parse_count

__all__ = ["Selected", "parse_range"]

#: While nothing is chosen an empty page is handed on after so many seconds, so that whoever reads can do other things.
PAGE_SECONDS = 0.05
MAX_ORDINAL = 2**62


def parse_range(text: str, *, option: str = "--range") -> tuple[int, int | None]:
    """Return first and last item of ``A:B``, counted from 1, both included; None for the last of ``A:``. UsageError for anything else."""
    first, colon, last = text.partition(":")
    if not colon or not (first or last):
        raise UsageError(f"{option}: {text!r} is not A:B", "Use 1:1000, :1000 or 1001:, counted from 1, both ends included.")
    begin = parse_count(first, option=option, minimum=1, maximum=MAX_ORDINAL) if first else 1
    end = parse_count(last, option=option, minimum=1, maximum=MAX_ORDINAL) if last else None
    if end is not None and end < begin:
        raise UsageError(f"{option}: {text!r} ends before it begins", f"Use {end}:{begin}.")
    return begin, end


@dataclass(slots=True)
class Counts:
    """
    How far a selection has come.

    Attributes:
        seen: Rows of the source.
        given: Rows handed on.
        unmet: A bit for each of the keys, in order, that no row had yet.
    """

    seen: int
    given: int
    unmet: int


class Selected:
    """
    A source of which some items are taken.

    Args:
        source: All the items.
        range: First and last item, counted from 1; a last of None means up to the end. None takes all.
        limit: Most items; None for all.
        select: Keys of the items to take; empty takes all. A key that no item has is bad input at the end of the source.
        sample: So many items, chosen by a hash of key and payload: the same ones of the same items, wherever they stand. None for all.
    """

    def __init__(
        self, source: Source, *, range: tuple[int, int | None] | None = None, limit: int | None = None, select: Collection[str] = (),
        sample: int | None = None,
    ) -> None:  # fmt: skip
        self.description = source.description
        self._source = source
        self._first, self._last = range or (1, None)
        self._limit = limit
        self._keys = sorted(set(select))
        self._bits = {key: 1 << index for index, key in enumerate(self._keys)}
        self._all = (1 << len(self._keys)) - 1
        self._sample = sample

    @property
    def key_note(self) -> str | None:
        """The key field that was chosen by itself, as a sentence."""
        return self._source.key_note

    @property
    def repeatable(self) -> bool:
        """Whether the source can be read from its start more than once."""
        return self._source.repeatable

    @property
    def choice(self) -> str:
        """What is taken, as short text that differs whenever the choice does."""
        words = {"range": f"{self._first}:{self._last or ''}", "limit": self._limit, "sample": self._sample}
        keys = hashlib.blake2b("\0".join(self._keys).encode(), digest_size=8).hexdigest() if self._keys else None
        return " ".join(f"{name}={value}" for name, value in {**words, "select": keys}.items() if value not in {None, "1:"})

    def fingerprint(self) -> list[dict[str, Any]] | None:
        """Return that of the source with the choice in each entry: another choice of the same files is another input."""
        prints = self._source.fingerprint()
        return None if prints is None else [{**entry, "choice": self.choice} for entry in prints]

    def ready(self) -> bool:
        """Return False when the next page would wait for a program that writes to a pipe."""
        return self._source.ready()

    def pages(self, position: str | None, *, max_items: int, max_bytes: int) -> Iterator[Page]:
        """
        Yield the pages after *position*; see :class:`~durabatch.intake.source.Source`. Pages without rows stand for time that passes.

        Raises:
            UsageError: *position* is not one of this choice.
        """
        place = self._place(position)
        reading = self._sampled if self._sample is not None else self._picked
        yield from reading(place, max_items, max_bytes)

    def _place(self, position: str | None) -> dict[str, Any]:
        if position is None:
            return {"at": None, "seen": 0, "given": 0, "unmet": hex(self._all)}
        place = json.loads(position)
        if not isinstance(place, dict) or place.get("choice") != self.choice:
            raise UsageError("the run was started with another choice of items (--range, --select, --sample, --limit)")
        return place

    def _position(self, at: str | None, counts: Counts) -> str:
        return json.dumps({"choice": self.choice, "at": at, "seen": counts.seen, "given": counts.given, "unmet": hex(counts.unmet)})

    # -- as they come -----------------------------------------------------------------------------------------------------------

    def _picked(self, place: dict[str, Any], max_items: int, max_bytes: int) -> Iterator[Page]:
        """Yield what is chosen of each page of the source; empty pages only when there is a reason to hand something on."""
        counts = Counts(place["seen"], place["given"], int(place["unmet"], 16))
        if self._is_over(counts):
            missing = self._missing(counts)
            yield Page([], self._position(place["at"], counts), missing, done=missing is None)
            return
        until = monotonic_s() + PAGE_SECONDS
        for page in self._source.pages(place["at"], max_items=max_items, max_bytes=max_bytes):
            rows, problem = self._chosen(page.rows, counts)
            is_over = page.done or self._is_over(counts)
            problem = problem or (self._missing(counts) if is_over else page.problem)
            if not (rows or problem or is_over) and self._source.ready() and monotonic_s() < until:
                continue
            yield Page(rows, self._position(page.position, counts), problem, done=is_over and problem is None)
            if is_over or problem is not None:
                return
            until = monotonic_s() + PAGE_SECONDS

    def _is_over(self, counts: Counts) -> bool:
        """Tell whether nothing that follows can be taken."""
        return self._is_full(counts) or (self._last is not None and counts.seen >= self._last)

    def _is_full(self, counts: Counts) -> bool:
        return self._sample is None and self._limit is not None and counts.given >= self._limit

    def _chosen(self, rows: list[Row], counts: Counts) -> tuple[list[Row], InputError | None]:
        """Return the rows of *rows* that are taken, and what is wrong with the choice; counts them."""
        before = counts.seen
        counts.seen += len(rows)
        begin = max(0, self._first - 1 - before)
        end = len(rows) if self._last is None else max(0, self._last - before)
        rows = rows[begin:end] if begin or end < len(rows) else rows
        if self._keys:
            if rows and rows[0][0] is None and counts.unmet == self._all:
                return [], InputError(
                    "--select", "items without a key are known by their content", "Name their field with --key, or use --range."
                )
            rows = self._selected(rows, counts)
        if self._limit is not None and self._sample is None:
            rows = rows[: self._limit - counts.given]
        counts.given += len(rows)
        return rows, None

    def _selected(self, rows: list[Row], counts: Counts) -> list[Row]:
        taken = [row for row in rows if row[0] in self._bits]
        for row in taken:
            counts.unmet &= ~self._bits[row[0] or ""]
        return taken

    def _missing(self, counts: Counts) -> InputError | None:
        """Return the error for keys that no item had; None when all were met, or a limit was reached before."""
        keys = [key for key in self._keys if counts.unmet & self._bits[key]]
        if not keys or self._is_full(counts):
            return None
        hint = "Is it outside --range?" if (self._first, self._last) != (1, None) else ""
        return InputError("--select", f"no item has the key {available(keys)}", hint)

    # -- a sample ---------------------------------------------------------------------------------------------------------------

    def _sampled(self, place: dict[str, Any], max_items: int, max_bytes: int) -> Iterator[Page]:
        """Yield empty pages while the source is read, then the sample in the order of the source."""
        counts = Counts(0, 0, self._all)
        start = self._position(None, Counts(0, place["given"], counts.unmet))
        # The rows with the lowest hashes so far; the highest of them, which leaves first, on top.
        lowest: list[tuple[int, int, Row]] = []
        for page in self._source.pages(None, max_items=max_items, max_bytes=max_bytes):
            rows, problem = self._chosen(page.rows, counts)
            is_over = page.done or self._is_over(counts)
            problem = problem or (self._missing(counts) if is_over else page.problem)
            if problem is not None:
                yield Page([], start, problem)
                return
            self._draw(lowest, rows)
            if is_over:
                break
            yield Page([], start)
        sample = [row for _, _, row in sorted(lowest, key=lambda entry: -entry[1])][: self._limit]
        yield from self._sliced(sample, place["given"], counts, max_items, max_bytes)

    def _draw(self, lowest: list[tuple[int, int, Row]], rows: list[Row]) -> None:
        assert self._sample is not None
        for row in rows:
            entry = (-rank(row), -row[2], row)
            if len(lowest) < self._sample:
                heapq.heappush(lowest, entry)
            elif entry > lowest[0]:
                heapq.heapreplace(lowest, entry)

    def _sliced(self, sample: list[Row], given: int, counts: Counts, max_items: int, max_bytes: int) -> Iterator[Page]:
        """Yield *sample* from its row *given* on, in pages."""
        most = min(FIRST_PAGE_ITEMS, max_items)
        while True:
            rows: list[Row] = []
            size = 0
            while given < len(sample) and len(rows) < most and (size < max_bytes or not rows):
                rows.append(sample[given])
                size += len(sample[given][1])
                given += 1
            is_done = given >= len(sample)
            yield Page(rows, self._position(None, Counts(0, given, counts.unmet)), done=is_done)
            if is_done:
                return
            most = max_items


def rank(row: Row) -> int:
    """Return a number that is random, and the same for the same key and payload."""
    text = f"{row[0]}\0{row[1]}" if row[0] is not None else row[1]
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, person=b"sample").digest())
