"""
What became of the items, in input order, in pages: constant memory whatever the number of items.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from durabatch.codec import unpack_frame
from durabatch.errors import ResultError
from durabatch.ledger import item, result, span
from durabatch.ledger.executor import Executor
from durabatch.ledger.item import ItemRow
from durabatch.models import Result

__all__ = ["ValueReader", "chosen", "results", "results_of_batch"]

#: Items read at once: no read transaction is longer than that, so the log can be moved on meanwhile.
PAGE = 1000


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
            ResultError: The stored bytes are damaged; the other items are not concerned.
        """
        if row.segment_id is None:
            return row.value
        start, size = row.segment_offset or 0, row.raw_bytes or 0
        value = self.segment(row.segment_id, row.key)[start : start + size]
        if len(value) != size:
            raise ResultError(f"result of item {row.key!r} is damaged (it reaches beyond its segment)", "The other results are not concerned.")
        return value.decode()

    def segment(self, segment_id: int, key: str) -> bytes:
        """Return the raw bytes of a segment, checked."""
        if segment_id != self.segment_id:
            stored = result.get_segment(self.ledger, segment_id)
            if stored is None:
                raise ResultError(f"result of item {key!r} is damaged (segment {segment_id} is missing)", "The other results are not concerned.")
            try:
                self.raw = unpack_frame(stored[2], raw_bytes=stored[0], limit_bytes=stored[0], digest=stored[1])
            except ResultError as error:
                raise ResultError(f"result of item {key!r} is damaged ({error.what})", "The other results are not concerned.") from error
            self.segment_id = segment_id
        return self.raw

    def result(self, row: ItemRow) -> Result:
        """Return one item for users."""
        error = None if row.error_type is None else f"{row.error_type}: {row.error_message}"
        return Result(row.key, row.state, error, row.charged_count, self.text(row))


def results(ledger: Executor, run_id: int) -> Iterator[Result]:
    """Yield every item of a run in input order."""
    reader = ValueReader(ledger)
    for row in rows_of_run(ledger, run_id):
        yield reader.result(row)


def rows_of_run(ledger: Executor, run_id: int) -> Iterator[ItemRow]:
    """Yield the rows of every item of a run in input order, a page at a time."""
    for first, last in span.list_of_run(ledger, run_id):
        start = first
        while start <= last:
            page = item.list_page(ledger, start, last, PAGE)
            yield from page
            start = page[-1].item_id + 1 if page else last + 1


def results_of_batch(ledger: Executor, batch_id: int) -> list[Result]:
    """Return the items of a batch in input order."""
    reader = ValueReader(ledger)
    return [reader.result(row) for row in item.list_of_batch(ledger, batch_id)]


def chosen(ledger: Executor, item_ids: Sequence[int] | Iterable[int]) -> list[Result]:
    """Return these items in the given order."""
    reader = ValueReader(ledger)
    return [reader.result(row) for row in item.list_chosen(ledger, list(item_ids))]
