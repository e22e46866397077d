"""
Python values as items: anything that can be iterated. Its place is a count, so going on means reading it again and skipping that many.

Text and whole numbers are their own key; mappings, dataclasses and pydantic models are records.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator

from durabatch.clock import monotonic_s
from durabatch.codec import decode_value, encode_value
from durabatch.errors import DurabatchError, InputError, ResultError, UsageError
from durabatch.intake.keys import Keys, UnusableKeyError, key_text
from durabatch.intake.source import FIRST_PAGE_ITEMS, Page, Row

__all__ = ["IterableSource"]

#: A page of a slow iterable is handed on after so many seconds.
PAGE_SECONDS = 0.05


class IterableSource:
    """
    Items from a Python iterable.

    Args:
        items: Anything but text and bytes. An iterator (a generator, say) can be read once only, a list or a range as often as needed.
        key: Field of records that is the key; None to look at the first record.
        max_item_bytes: Most bytes of one item as JSON.
        skip_bad: Told of a value that cannot be an item; True leaves it out. None stops before the first.

    Raises:
        UsageError: *items* cannot be iterated, or is text, which is surely meant as a path.
    """

    def __init__(
        self, items: Iterable[object] | object, *, key: str | None, max_item_bytes: int, skip_bad: Callable[[InputError], bool] | None = None
    ) -> None:
        if isinstance(items, str | bytes | bytearray):
            hint = f"For the lines of a file use durabatch.lines({items!r})." if isinstance(items, str) and len(items) < 100 else ""
            raise UsageError(f"{type(items).__name__} is not a collection of items", hint)
        if not isinstance(items, Iterable):
            hint = "Collect its items first, or use amap." if hasattr(items, "__aiter__") else ""
            raise UsageError(f"{type(items).__name__} is not a collection of items", hint)
        self.description = type(items).__name__
        self._items: Iterable[object] = items
        self._read_once = False
        self._limit_bytes = max_item_bytes
        self._keys = Keys(key)
        self._count = 0
        self._skip_bad = skip_bad

    @property
    def key_note(self) -> str | None:
        """The key field that was chosen by itself, as a sentence."""
        return self._keys.note

    def fingerprint(self) -> None:
        """Nothing tells whether an iterable is the same as before."""

    @property
    def repeatable(self) -> bool:
        """Whether iterating starts anew each time: lists do, generators do not."""
        return not isinstance(self._items, Iterator)

    def ready(self) -> bool:
        """Nothing tells whether an iterable would wait."""
        return True

    def pages(self, position: str | None, *, max_items: int, max_bytes: int) -> Iterator[Page]:
        """
        Yield the pages after *position*; see :class:`~durabatch.intake.source.Source`.

        Raises:
            UsageError: The items are an iterator that was read before.
        """
        iterator = self._iterator()
        state = json.loads(position) if position is not None else {"count": 0}
        self._keys.restore(state)
        self._count = 0
        try:
            for _ in range(state["count"]):
                next(iterator)
                self._count += 1
        except StopIteration:
            yield Page([], self._position(), done=True)
            return
        except Exception as error:  # noqa: BLE001 - whatever the user's iterator raises
            yield Page([], self._position(), self._ended_by(error))
            return
        limit = min(FIRST_PAGE_ITEMS, max_items)
        while True:
            page = self._page(iterator, limit, max_bytes)
            yield page
            if page.done or page.problem is not None:
                return
            limit = max_items

    def _iterator(self) -> Iterator[object]:
        iterator = iter(self._items)
        if iterator is self._items:
            if self._read_once:
                raise UsageError(f"{self.description} can be read only once", "Give a list, or an object whose iteration starts anew.")
            self._read_once = True
        return iterator

    def _position(self) -> str:
        return json.dumps({"count": self._count, **self._keys.state()})

    def _page(self, iterator: Iterator[object], max_items: int, max_bytes: int) -> Page:
        rows: list[Row] = []
        size = 0
        until = monotonic_s() + PAGE_SECONDS
        while len(rows) < max_items and size < max_bytes and (not rows or monotonic_s() < until):
            try:
                item = next(iterator)
            except StopIteration:
                return Page(rows, self._position(), done=True)
            except Exception as error:  # noqa: BLE001
                return Page(rows, self._position(), self._ended_by(error))
            try:
                row = self._row(item)
            except (ResultError, UnusableKeyError) as error:
                problem = InputError(f"item {self._count + 1}", _why(error), getattr(error, "hint", ""))
                if self._skip_bad is None or not self._skip_bad(problem):
                    return Page(rows, self._position(), problem)
                self._count += 1
                continue
            self._count += 1
            rows.append(row)
            size += len(row[1])
        return Page(rows, self._position())

    def _ended_by(self, error: Exception) -> InputError:
        """Return the error for items that could not be produced; the user's own exception is its cause."""
        if isinstance(error, InputError):
            return error
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        problem = InputError(self.description, f"ended by {what} after {self._count:,} items")
        problem.__cause__ = error
        return problem

    def _row(self, item: object) -> Row:
        payload = encode_value(item, limit_bytes=self._limit_bytes)
        if isinstance(item, str | int) and not isinstance(item, bool):
            return key_text(item), payload, self._count + 1
        if payload[0] != "{":
            return None, payload, self._count + 1
        # Dates, UUIDs and fields of models are keys in the form in which they are stored.
        record = item if type(item) is dict and type(item.get(self._keys.field)) in {str, int} else decode_value(payload)
        self._keys.decide(record)
        return self._keys.of(record) if self._keys.field is not None else None, payload, self._count + 1


def _why(error: Exception) -> str:
    return error.what if isinstance(error, DurabatchError) else str(error)
