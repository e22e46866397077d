"""
What the results of a batch come to: their bytes as JSON, and one digest that shows whether they are still what was recorded.

    results come  →  their digests are added to the batch  →  the batch finishes
    results go, or come from the cache  →  not known  →  added up anew when the batch finishes, else when its run stops

Both ways make the same number of the same results, whatever their order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from durabatch.codec import inline_digests, packed_digests
from durabatch.ledger import batch, checkpoint
from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor

__all__ = ["NewResults", "add_answered", "digest_of_batch", "settle", "settle_run"]

#: Results read at once.
PAGE = 1000


class NewResults:
    """What the results of one message add to their batches."""

    def __init__(self) -> None:
        self._bytes: Counter[int] = Counter()
        self._digests: Counter[int] = Counter()

    def add(self, batch_ids: Sequence[int], sizes: Iterable[int], digests: Iterable[int]) -> None:
        """Add results: the batch, the bytes and the digest of each; there is at least one."""
        first = batch_ids[0]
        if batch_ids.count(first) == len(batch_ids):
            self._bytes[first] += sum(sizes)
            self._digests[first] += sum(digests)
            return
        for batch_id, size, digest in zip(batch_ids, sizes, digests, strict=True):
            self._bytes[batch_id] += size
            self._digests[batch_id] += digest

    def by_batch(self) -> dict[int, tuple[int | None, int | None]]:
        """Return (bytes, digest) of the results by their batches."""
        return {batch_id: (size, self._digests[batch_id]) for batch_id, size in self._bytes.items()}


def digest_of_batch(ledger: Executor, batch_id: int) -> tuple[int, int]:
    """Return (bytes, digest) of the results of a batch as they are stored, in constant memory; packed ones are not unpacked."""
    size = digest = 0
    for ids, values in pages_of(checkpoint.inline_results(ledger, batch_id)):
        size += sum(map(len, values))
        digest += sum(inline_digests(ids, values))
    for ids, segments, offsets, sizes in pages_of(checkpoint.packed_results(ledger, batch_id)):
        size += sum(sizes)
        digest += sum(packed_digests(ids, segments, offsets, sizes))
    return size, digest


def pages_of(rows: Iterator[tuple[Any, ...]]) -> Iterator[tuple[tuple[Any, ...], ...]]:
    """Yield the columns of *rows*, a page at a time."""
    while page := list(islice(rows, PAGE)):
        yield tuple(zip(*page, strict=True))


def settle(ledger: Connection, batch_ids: Iterable[int]) -> None:
    """Add up what the results of these batches come to, inside a transaction."""
    for batch_id in batch_ids:
        checkpoint.set_digest(ledger, batch_id, *digest_of_batch(ledger, batch_id))


def settle_run(ledger: Connection, run_id: int) -> None:
    """Do so for the finished batches of a run of which it is not known, inside a transaction."""
    settle(ledger, checkpoint.unknown_digests(ledger, run_id))


def add_answered(ledger: Connection, counts: Iterable[tuple[int, int]], now_us: int) -> None:
    """Count items that ended by results of before, inside a transaction: (batch_id, items) each."""
    rows = [(batch_id, count, 0) for batch_id, count in counts]
    settle(ledger, batch.add_ended(ledger, rows, now_us, results={row[0]: (None, None) for row in rows}))
