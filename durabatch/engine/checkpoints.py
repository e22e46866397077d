"""
The checkpoints of a run: every batch that has finished is one, and holds the items that had ended when it did.

Which items these are stands in :mod:`durabatch.ledger.checkpoint`; here they are counted for all checkpoints at once, named, and looked up.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

from durabatch.clock import iso
from durabatch.engine.digests import digest_of_batch
from durabatch.errors import NotFoundError, UsageError
from durabatch.ledger import checkpoint, run
from durabatch.ledger.checkpoint import BatchPoint
from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor

__all__ = ["CheckpointFacts", "digest_text", "held_counts", "list_checkpoints", "mark", "point", "remaining"]

#: The end of time, for batches that have not finished.
NEVER_US = (1 << 63) - 1
#: Characters of a name.
LONGEST_LABEL = 200


@dataclass(frozen=True, kw_only=True)
class CheckpointFacts:
    """
    A checkpoint of a run.

    Attributes:
        number: That of its batch.
        finished_at: When it was made, ISO 8601 in UTC.
        items: Items of its batch.
        failed: Those of them that ended otherwise than succeeded or skipped.
        done: Items of the run that it holds: those that had ended when it was made, and have not run again since.
        left: All others.
        result_bytes: Bytes of the results of its batch, as JSON.
        digest: Of these results, whatever their order, as 16 hexadecimal digits.
        labels: The names that it was given, oldest first.
    """

    number: int
    finished_at: str
    items: int
    failed: int
    done: int
    left: int
    result_bytes: int
    digest: str
    labels: tuple[str, ...]


def list_checkpoints(ledger: Executor, run_id: int) -> list[CheckpointFacts]:
    """
    Return the checkpoints of a run by number, as of one moment.

    A digest that is not recorded is computed; a batch that is open again is no checkpoint until it has finished once more.

    Raises:
        NotFoundError: There is no such run.
    """
    with ledger.snapshot():
        row = run.get(ledger, run_id)
        points, labels = checkpoint.list_batches(ledger, run_id), checkpoint.list_marks(ledger, run_id)
        is_all_in_batches = row.ended_count <= sum(one.ended_count for one in points)
        without_batch = () if is_all_in_batches else checkpoint.ends_without_batch(ledger, run_id)
        held = held_counts(points, partial(checkpoint.ends_of_batch, ledger), without_batch)
        made = [one for one in points if one.finished_at_us is not None]
        return [facts(ledger, one, held[one.number], row.total_count, labels.get(one.number, ())) for one in made]


def facts(ledger: Executor, one: BatchPoint, held: int, total: int, labels: Sequence[str]) -> CheckpointFacts:
    """Return a checkpoint for users."""
    size, digest = (
        digest_of_batch(ledger, one.batch_id) if one.digest is None or one.result_bytes is None else (one.result_bytes, one.digest)
    )
    return CheckpointFacts(
        number=one.number, finished_at=iso(one.finished_at_us) or "", items=one.item_count, failed=one.failed_count, done=held,
        left=total - held, result_bytes=size, digest=digest_text(digest), labels=tuple(labels),
    )  # fmt: skip


def digest_text(digest: int) -> str:
    """Return the digest of a batch as it is shown."""
    return f"{digest:016x}"


def held_counts(points: Sequence[BatchPoint], ends_of: Callable[[int], Sequence[int]], without_batch: Sequence[int]) -> dict[int, int]:
    """
    Return, by number, how many items each checkpoint holds: all that ended of batches that had finished, and of the others what had.

    Items are looked at one by one only in batches that finished after a later one; each such batch is asked for once.

    Args:
        points: All batches of the run, by number.
        ends_of: Gives, ascending, when the ended items of a batch had ended.
        without_batch: The same for the items that are in no batch.
    """
    ends = [NEVER_US if one.finished_at_us is None else one.finished_at_us for one in points]
    made = sorted(end for end in ends if end != NEVER_US)
    #: For each batch, when the first of those behind it finished.
    soonest = list(accumulate(reversed([*ends, NEVER_US][1:]), min))[::-1]
    counts, sums = dict[int, int](), Sums(len(made))
    for one, end, sooner in zip(points, ends, soonest, strict=True):
        each = ends_of(one.batch_id) if sooner < end else ()
        sums.add(bisect_left(made, end), one.ended_count - len(each))
        for place, count in Counter(bisect_left(made, min(ended, end)) for ended in each).items():
            sums.add(place, count)
        if one.finished_at_us is not None:
            counts[one.number] = sums.upto(bisect_left(made, end)) + bisect_right(without_batch, end)
    return counts


class Sums:
    """Counts at places, of which those up to a place are added up in few steps: a Fenwick tree."""

    def __init__(self, size: int) -> None:
        self._counts = [0] * (size + 1)

    def add(self, place: int, count: int) -> None:
        """Add to a place, from 0; one behind the last counts for nothing."""
        place += 1
        while place < len(self._counts):
            self._counts[place] += count
            place += place & -place

    def upto(self, place: int) -> int:
        """Return the sum of all counts up to a place, and at it."""
        place, total = place + 1, 0
        while place:
            total += self._counts[place]
            place &= place - 1
        return total


def point(ledger: Executor, run_id: int, wanted: str | int | None) -> BatchPoint:
    """
    Return the batch that is the checkpoint of that number or name; None is the one that was made last.

    Raises:
        NotFoundError: There is none, or its batch is open again.
    """
    if wanted is None:
        found = checkpoint.last(ledger, run_id)
        if found is None:
            raise NotFoundError("this run has no checkpoint yet", "Every batch becomes one when it has finished.")
        return found
    number = number_of(ledger, run_id, wanted)
    points = checkpoint.list_batches(ledger, run_id)
    found = next((one for one in points if one.number == number), None)
    if found is None:
        raise NotFoundError(f"no checkpoint {number} in this run", f"It has {len(points):,} so far." if points else "It has none so far.")
    if found.finished_at_us is None:
        raise NotFoundError(f"checkpoint {wanted} is not there yet: batch {number} has not finished", "`durabatch status` shows the run.")
    return found


def number_of(ledger: Executor, run_id: int, wanted: str | int) -> int:
    """Return the number that a number or a name of a checkpoint means; NotFoundError for a name that was not given."""
    if isinstance(wanted, int) or wanted.isdecimal():
        return int(wanted)
    found = checkpoint.get_mark(ledger, run_id, wanted)
    if found is None:
        names = [name for names in checkpoint.list_marks(ledger, run_id).values() for name in names][-5:]
        raise NotFoundError(
            f"no checkpoint is called {wanted!r} in this run", f"There are: {', '.join(names)}." if names else "None has a name."
        )
    return found


def remaining(ledger: Executor, run_id: int, number: int, finished_at_us: int) -> Iterator[str]:
    """Yield the keys of the items that a checkpoint does not hold, in input order: what was not done when it was made, or ran again since."""
    return (one.key for one in checkpoint.outside(ledger, run_id, number, finished_at_us))


def mark(ledger: Connection, run_id: int, label: str, wanted: str | int | None, *, now_us: int) -> int:
    """
    Give the checkpoint of that number or name (None: the one that was made last) one more name; return its number.

    One write transaction. A name that it has already changes nothing.

    Raises:
        NotFoundError: There is no such checkpoint.
        UsageError: The name is none, or another checkpoint of the run has it. Nothing was changed.
    """
    if not label.strip() or label.isdecimal() or len(label) > LONGEST_LABEL or not label.isprintable():
        raise UsageError(f"{label[:LONGEST_LABEL]!r} cannot name a checkpoint", "Use a word or two that are not a number.")
    with ledger.transaction():
        number, has_it = point(ledger, run_id, wanted).number, checkpoint.get_mark(ledger, run_id, label)
        if has_it not in (None, number):
            raise UsageError(f"checkpoint {has_it} is called {label!r} already", "Choose another name.")
        if has_it is None:
            checkpoint.insert_mark(ledger, run_id, label, number, now_us)
    return number
