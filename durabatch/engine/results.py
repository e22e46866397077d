"""
What became of the items, in input order, in pages: constant memory whatever the number of items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from durabatch.codec import unpack_frame
from durabatch.errors import LedgerDamagedError, ResultError
from durabatch.ledger import item, result, span
from durabatch.ledger.executor import Executor
from durabatch.ledger.item import ItemRow
from durabatch.ledger.paths import shown
from durabatch.models import Result
from durabatch.states import ItemState

__all__ = ["MAX_SEGMENT_BYTES", "OnDamage", "ValueReader", "chosen", "results", "results_of_batch", "rows_of_run"]

#: What is told of a stored value that cannot be read.
OnDamage = Callable[[LedgerDamagedError], None]
#: Items read at once: no read transaction is longer than that, so the log can be moved on meanwhile.
PAGE = 1000
#: A frame that says that it is larger than this is not unpacked: no worker packs as much.
MAX_SEGMENT_BYTES = 1 << 30


class ValueReader:
    """Reads packed values; the last unpacked segment is kept, since the values of a segment are read one after the other."""

    def __init__(self, ledger: Executor) -> None:
        self.ledger = ledger
        self.segment_id: int | None = None
        self.raw = b""

    def text(self, row: ItemRow) -> str | None:
        """
        Return the JSON text of the item's value, or None when it has no result.

        Raises:
            LedgerDamagedError: The stored bytes are not what was recorded; the other items are not concerned.
        """
        if row.segment_id is None:
            return row.value
        try:
            raw = self.segment(row.segment_id)
            return slice_of(raw, row.segment_offset or 0, row.raw_bytes or 0).decode()
        except (ResultError, UnicodeDecodeError) as error:
            why = error.what if isinstance(error, ResultError) else "it is not UTF-8"
            raise LedgerDamagedError(
                shown(self.ledger.files.ledger), f"result of item {row.key!r} is damaged ({why})", "The other results are not concerned."
            ) from error

    def segment(self, segment_id: int) -> bytes:
        """Return the raw bytes of a segment, checked; ResultError when they are damaged or missing."""
        if segment_id != self.segment_id:
            stored = result.get_segment(self.ledger, segment_id)
            if stored is None or not (isinstance(stored[0], int) and isinstance(stored[2], bytes)):
                raise ResultError(f"segment {segment_id} is missing")
            self.raw = unpack_frame(stored[2], raw_bytes=stored[0], limit_bytes=MAX_SEGMENT_BYTES, digest=stored[1])
            self.segment_id = segment_id
        return self.raw

    def result(self, row: ItemRow, on_damage: OnDamage | None = None) -> Result:
        """
        Return one item for users.

        Args:
            on_damage: Called when the stored value is damaged; the item is then returned without a value. None raises instead.
        """
        error = error_of(row)
        try:
            value = self.text(row)
        except LedgerDamagedError as damage:
            if on_damage is None:
                raise
            on_damage(damage)
            value, error = None, damage.what
        return Result(row.key, row.state, error, row.charged_count, value)


def error_of(row: ItemRow) -> str | None:
    """Return what was wrong with the last attempt, the reason alone of an item that was left out; None when there is nothing to say."""
    if row.error_type is None:
        return row.error_message if row.state == ItemState.SKIPPED else None
    return f"{row.error_type}: {row.error_message}"


def slice_of(raw: bytes, start: int, size: int) -> bytes:
    """Return *size* bytes from *start* on; ResultError when they are not all there."""
    if start < 0 or size < 0 or start + size > len(raw):
        raise ResultError("it reaches beyond its segment")
    return raw[start : start + size]


def results(ledger: Executor, run_id: int, *, on_damage: OnDamage | None = None) -> Iterator[Result]:
    """Yield every item of a run in input order; *on_damage* as for :meth:`ValueReader.result`."""
    reader = ValueReader(ledger)
    return (reader.result(row, on_damage) for row in rows_of_run(ledger, run_id))


def rows_of_run(ledger: Executor, run_id: int, *, first_item_id: int = 1) -> Iterator[ItemRow]:
    """Yield the rows of every item of a run from *first_item_id* on, in input order, a page at a time."""
    for first, last in span.list_of_run(ledger, run_id):
        start = max(first, first_item_id)
        while start <= last:
            page = item.list_page(ledger, start, last, PAGE)
            yield from page
            start = page[-1].item_id + 1 if page else last + 1


def results_of_batch(ledger: Executor, batch_id: int) -> Iterator[Result]:
    """Yield the items of a batch in input order, a page of rows and one packed value at a time."""
    reader, after = ValueReader(ledger), 0
    while page := item.list_of_batch(ledger, batch_id, after, PAGE):
        for row in page:
            yield reader.result(row)
        after = page[-1].item_id


def chosen(ledger: Executor, item_ids: Sequence[int] | Iterable[int], *, on_damage: OnDamage | None = None) -> list[Result]:
    """Return these items in the given order; *on_damage* as for :meth:`ValueReader.result`."""
    reader = ValueReader(ledger)
    return [reader.result(row, on_damage) for row in item.list_chosen(ledger, list(item_ids))]
