"""
What comes back from workers, and what the engine says about it: plain values between the coordinator and the verbs that record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from durabatch.flow.retrying import AttemptEnd
from durabatch.states import AttemptOutcome, ItemState

__all__ = ["FailedAttempt", "FailureNote", "Finished", "PackedFrame", "PackedResult", "Returned"]

#: (item_id, attempt number, worker, started_at_us, duration_us, value as JSON text)
InlineResult = tuple[int, int, int, int, int, str]
#: (item_id, attempt number, worker, started_at_us, duration_us, index of the frame, offset, bytes)
PackedResult = tuple[int, int, int, int, int, int, int, int]
#: (batch_id, raw bytes, SHA-256 of them, frame)
PackedFrame = tuple[int, int, bytes, bytes]


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """
    One attempt that did not succeed.

    Attributes:
        retryable: False when the handler said that no further try makes sense.
        row: The columns of its row; those that stay empty may be missing.
        kinds: Names of its exception's class and of the bases of that, short and qualified.
        after_s: Seconds until the next try, where the handler named them.
        dispatch_id: The dispatch that holds the item, where that is another one than the message's.
    """

    outcome: AttemptOutcome
    retryable: bool
    row: Mapping[str, Any]
    kinds: Sequence[str] = ()
    after_s: float | None = None
    dispatch_id: int | None = None

    def end(self, *, alone: bool = False) -> AttemptEnd:
        """Return what the decision about the item rests on."""
        return AttemptEnd(self.outcome, self.kinds, self.row.get("exit_code"), self.after_s, self.retryable, alone)


@dataclass(slots=True)
class Returned:
    """
    What came back from one dispatch.

    Attributes:
        peak_rss_bytes: Most memory that the worker ever held, up to the message.
        spends: Item to what its attempt has spent, amounts by unit.
    """

    dispatch_id: int
    inline: Sequence[InlineResult] = ()
    packed: Sequence[PackedResult] = ()
    frames: Sequence[PackedFrame] = ()
    failed: Sequence[FailedAttempt] = ()
    batch_of: Mapping[int, int] = field(default_factory=dict)
    peak_rss_bytes: int | None = None
    spends: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    def item_ids(self) -> list[int]:
        """Return the ids of all items in it."""
        ids = [row[0] for row in self.inline]
        ids += [row[0] for row in self.packed]
        ids += [one.row["item_id"] for one in self.failed]
        return ids


@dataclass(frozen=True, slots=True)
class FailureNote:
    """
    What became of an item whose attempt did not succeed, for those who count failures.

    Attributes:
        state: The item's state after it.
        after_s: Seconds that the handler asked to be left alone for.
    """

    item_id: int
    outcome: AttemptOutcome
    error_group: str | None
    state: ItemState
    after_s: float | None


@dataclass(slots=True)
class Finished:
    """
    What was new in a message.

    Attributes:
        recorded: Attempts.
        succeeded: Successes among them.
        ended_failed: Items that failed for good or were quarantined.
        ended: Items that ended by it, beside those of the message.
    """

    recorded: int = 0
    succeeded: int = 0
    ended_failed: int = 0
    failures: list[FailureNote] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
