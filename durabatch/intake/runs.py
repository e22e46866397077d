"""
The results of an earlier run as items, ``run:NAME`` or ``run:NAME@LEDGER``: the key of each item that succeeded, with its value.

They come in input order, a page at a time, from a ledger that others may be writing to. Which run a name means is decided once: it stands in
the position, so that a reading that goes on reads the same run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from durabatch.engine.results import ValueReader, rows_of_run
from durabatch.errors import DurabatchError, InputError, LedgerMissingError, NotFoundError, UsageError
from durabatch.intake.problems import printable
from durabatch.intake.source import Batch, Row
from durabatch.intake.text import too_large
from durabatch.ledger import run
from durabatch.ledger.item import ItemRow
from durabatch.ledger.reader import Reader as LedgerReader
from durabatch.ledger.run import RunRow
from durabatch.states import ItemState, RunState

__all__ = ["PREFIX", "ResultsReader", "RunPart"]

#: How an input that is a run begins.
PREFIX = "run:"
SkipBad = Callable[[InputError], bool]


@dataclass(kw_only=True)
class RunPart:
    """
    The succeeded results of one run.

    Args:
        where: The input as typed, for messages.
        ledger: Path of the ledger.
        name: Name of the run, of its series, or its id.
        skip_bad: Told of a result that cannot be an item; True leaves it out. None stops before it.
    """

    where: str
    ledger: str
    name: str
    max_item_bytes: int
    skip_bad: SkipBad | None = None
    path: None = None
    repeatable: bool = True

    @classmethod
    def of(
        cls,
        argument: str,
        ledger: str | None,
        series: str | None,
        *,
        max_item_bytes: int,
        skip_bad: SkipBad | None = None,
        notes: Callable[[str], None] | None = None,
    ) -> RunPart:
        """
        Return the part for ``run:NAME`` or ``run:NAME@LEDGER``, once it is known to be there.

        Args:
            ledger: The ledger that is meant when none is named.
            series: The series whose next run reads the results; none of its runs can be read.
            notes: Told when the run is not finished.

        Raises:
            InputError: There is no such ledger or run.
            UsageError: The run would read its own results.
            LedgerError: The ledger cannot be read.
        """
        name, path = split(argument, ledger)
        part = cls(where=printable(argument), ledger=path, name=name, max_item_bytes=max_item_bytes, skip_bad=skip_bad)
        with part.opened() as reader:
            row = part.row(reader)
        if ledger is not None and os.path.realpath(path) == os.path.realpath(ledger) and row.series == series:
            raise UsageError(f"{part.where}: a run cannot read the results of its own series", "Give the new run another --name.")
        if notes is not None and row.state != RunState.FINISHED:
            notes(f"run {printable(row.name)} is {row.state}: the results that it has by now are read")
        return part

    def opened(self) -> LedgerReader:
        """Return the ledger, opened for reading; InputError when it is not there."""
        try:
            return LedgerReader(self.ledger)
        except LedgerMissingError as error:
            raise InputError(f"cannot read {self.where}", f"there is no ledger {printable(self.ledger)}", error.hint) from error

    def row(self, reader: LedgerReader) -> RunRow:
        """Return the run that is meant; InputError when there is none."""
        try:
            return run.find(reader, self.name)
        except NotFoundError as error:
            raise InputError(f"cannot read {self.where}", error.what, error.hint) from error

    def open(self, state: dict[str, Any] | None, base: int) -> ResultsReader:
        """Return a reader behind *state*; InputError when the run that it was read from is gone."""
        ledger = self.opened()
        try:
            if state is None:
                state = {"run": self.row(ledger).run_id, "item": 0, "count": 0}
            return ResultsReader(self, ledger, state, base)
        except BaseException:
            ledger.close()
            raise


class ResultsReader:
    """Reads the results of a run from the item after the one in *state* on; takes *ledger* over."""

    waits = False

    def __init__(self, part: RunPart, ledger: LedgerReader, state: dict[str, Any], base: int) -> None:
        self._part = part
        self._ledger = ledger
        self._base = base
        self._state = dict(state)
        try:
            run.get(ledger, state["run"])
        except NotFoundError as error:
            raise InputError(part.where, "the run that was read before is not in the ledger any more") from error
        self._values = ValueReader(ledger)
        self._found: Iterator[ItemRow] = rows_of_run(ledger, state["run"], first_item_id=state["item"] + 1)

    def read(self, max_items: int, max_bytes: int) -> Batch:
        """Return the next results."""
        rows: list[Row] = []
        size = 0
        try:
            for item in self._found:
                row = self._row(item) if item.state == ItemState.SUCCEEDED else None
                self._state |= {"item": item.item_id, "count": self._state["count"] + (item.state == ItemState.SUCCEEDED)}
                if row is not None:
                    rows.append(row)
                    size += len(row[1])
                if len(rows) >= max_items or size >= max_bytes:
                    return Batch(rows, size)
        except InputError as error:
            return Batch(rows, size, error)
        except DurabatchError as error:
            return Batch(rows, size, InputError(self._part.where, error.what, error.hint))
        return Batch(rows, size, ended=True)

    def _row(self, item: ItemRow) -> Row | None:
        """Return a result as an item, None when it is left out; InputError when it cannot be one."""
        try:
            return item.key, self._payload(item), self._base + self._state["count"] + 1
        except InputError as error:
            if self._part.skip_bad is None or not self._part.skip_bad(error):
                raise
            return None

    def _payload(self, item: ItemRow) -> str:
        place = f"{self._part.where}: item '{printable(item.key)}'"
        try:
            text = self._values.text(item)
        except DurabatchError as error:
            raise InputError(place, error.what) from error
        if text is None:
            raise InputError(place, "it succeeded, but its value is missing")
        limit = self._part.max_item_bytes
        if len(text) > limit or (not text.isascii() and len(text.encode()) > limit):
            raise too_large(place, limit)
        return text

    def state(self) -> dict[str, Any]:
        """Return the run, the last item of it and the results so far."""
        return dict(self._state)

    def position(self) -> int:
        """Return the position of the last result."""
        return int(self._base + self._state["count"])

    def ready(self) -> bool:
        """Ledgers are always ready."""
        return True

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()


def split(argument: str, ledger: str | None) -> tuple[str, str]:
    """Return the name and the ledger in ``run:NAME`` or ``run:NAME@LEDGER``; a name may hold an @ when it is that of a run of *ledger*."""
    text = argument.removeprefix(PREFIX)
    name, at, other = text.rpartition("@")
    if at and name and other and not is_run(text, ledger):
        return name, other
    if not text or ledger is None:
        raise UsageError(f"{printable(argument)}: it does not say which run of which ledger", "Give run:NAME or run:NAME@LEDGER.")
    return text, ledger


def is_run(name: str, ledger: str | None) -> bool:
    """Tell whether *ledger* is there and has a run of that name."""
    if ledger is None or not os.path.exists(ledger):
        return False
    with LedgerReader(ledger) as reader:
        return run.find_id(reader, name) is not None
