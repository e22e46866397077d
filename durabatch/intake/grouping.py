"""
One item for each value of a field: all that a source gives is read first, then the groups come in the order of their first members.

Memory holds one group at a time, whatever the number of items and groups: they wait in a temporary database on disk.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pydantic_core import from_json, to_json

from durabatch.errors import InputError, UsageError
from durabatch.intake.keys import MISSING, UnusableKeyError, key_text, lookup
from durabatch.intake.problems import printable
from durabatch.intake.source import FIRST_PAGE_ITEMS, Page, Row, Source
from durabatch.intake.text import too_large
from durabatch.ledger import group
from durabatch.ledger.group import Member
from durabatch.ledger.scratch import Scratch

__all__ = ["Grouped"]

#: Rows and input bytes of the pages that are read.
PAGE_ITEMS, PAGE_BYTES = 10_000, 8 << 20


class Grouped:
    """
    A source of groups: key and ``"key"`` are the value of the field, ``"items"`` the payloads of the members in input order.

    A value that is a number and its text are the same key and so the same group. Its place is the number of the row with which the last group
    began: going on reads the source again from the start.

    Args:
        source: What is grouped.
        field: A field of its payloads, dotted for a field inside a field; text or a whole number.
        max_item_bytes: Most bytes of a group.
        skip_bad: Told of members and groups that cannot be; True leaves them out. None stops there.
    """

    key_note = None

    def __init__(self, source: Source, field: str, *, max_item_bytes: int, skip_bad: Callable[[InputError], bool] | None = None) -> None:
        self.description = source.description
        self._source = source
        self._field = field
        self._limit_bytes = max_item_bytes
        self._skip_bad = skip_bad
        self._reading = False

    def fingerprint(self) -> list[dict[str, Any]] | None:
        """Return that of what is grouped."""
        return self._source.fingerprint()

    @property
    def repeatable(self) -> bool:
        """Whether what is grouped can be read more than once."""
        return self._source.repeatable

    def ready(self) -> bool:
        """Return False when the next page would wait for a program that writes to a pipe."""
        return not self._reading or self._source.ready()

    def pages(self, position: str | None, *, max_items: int, max_bytes: int) -> Iterator[Page]:
        """
        Yield pages of groups; see :class:`~durabatch.intake.source.Source`.

        The first page of a reading from the start comes when all is read, with a problem that was met on the way and no rows. A reading that
        goes on gives an empty page for each page that is read.

        Raises:
            UsageError: *position* is not one of this source.
        """
        state = {"behind": 0} if position is None else from_json(position)
        if not isinstance(state, dict) or not isinstance(state.get("behind"), int):
            raise UsageError("the input differs in kind from the one that the run was started with")
        with Scratch() as scratch:
            group.make(scratch)
            self._reading = True
            for page in self._source.pages(None, max_items=PAGE_ITEMS, max_bytes=PAGE_BYTES):
                problem = self._take(scratch, page)
                if problem is not None:
                    yield Page([], at(state["behind"]), problem)
                    return
                if position is not None and not page.done:
                    yield Page([], position)
            self._reading = False
            yield from self._group_pages(scratch, state["behind"], max_items, max_bytes)

    def _take(self, scratch: Scratch, page: Page) -> InputError | None:
        """Put the rows of *page* into their groups; return the problem that it has, or that of the first row without a group."""
        members: list[Member] = []
        problem = page.problem
        for _, payload, place in page.rows:
            try:
                members.append(self._member(payload, place))
            except InputError as error:
                if self._skip_bad is None or not self._skip_bad(error):
                    problem = error
                    break
        group.add(scratch, members)
        return problem

    def _member(self, payload: str, place: int) -> Member:
        where = f"{self.description}:{place}"
        value = lookup(from_json(payload), self._field)
        if value is MISSING:
            raise InputError(where, f"field '{printable(self._field)}' of --group-by is missing")
        try:
            return key_text(value), to_json(value).decode(), place, payload
        except UnusableKeyError as error:
            raise InputError(where, f"--group-by '{printable(self._field)}': {error}") from None

    def _group_pages(self, scratch: Scratch, behind: int, max_items: int, max_bytes: int) -> Iterator[Page]:
        rows: list[Row] = []
        size, limit = 0, min(FIRST_PAGE_ITEMS, max_items)
        for first_id, members in itertools.groupby(group.list_behind(scratch, behind), key=operator.itemgetter(0)):
            try:
                rows.append(self._row(scratch, first_id, (payload for _, payload in members)))
                size += len(rows[-1][1])
            except InputError as error:
                if self._skip_bad is None or not self._skip_bad(error):
                    yield Page(rows, at(behind), error)
                    return
            behind = first_id
            if len(rows) >= limit or size >= max_bytes:
                yield Page(rows, at(behind))
                rows, size, limit = [], 0, max_items
        yield Page(rows, at(behind), done=True)

    def _row(self, scratch: Scratch, first_id: int, payloads: Iterable[str]) -> Row:
        """Return the item of a group; InputError when it is too large."""
        key, value, place = group.get(scratch, first_id)
        kept: list[str] = []
        size = len(f'{{"key":{value},"items":[]}}'.encode()) - 1
        for payload in payloads:
            size += (len(payload) if payload.isascii() else len(payload.encode())) + 1
            if size > self._limit_bytes:
                raise too_large(f"{self.description}: group '{printable(key)}'", self._limit_bytes)
            kept.append(payload)
        return key, f'{{"key":{value},"items":[{",".join(kept)}]}}', place


def at(first_id: int) -> str:
    """Return the place behind the group that begins with that row; 0 for the place before all of them."""
    return to_json({"behind": first_id}).decode()
