"""
What a worker sent back is recorded: ends of items, attempts, results, spending, counters and batches, together.

One write transaction: when this returns, the results are on disk.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from durabatch.engine.active import ActiveRun
from durabatch.engine.recording import Recording
from durabatch.engine.returned import FailedAttempt, FailureNote, Finished, PackedFrame, PackedResult, Returned
from durabatch.engine.reuse import Cache
from durabatch.flow.retrying import RetryPolicy
from durabatch.ledger.connection import Connection
from durabatch.states import ItemState

__all__ = ["FailedAttempt", "FailureNote", "Finished", "PackedFrame", "PackedResult", "Returned", "finish"]


def finish(
    ledger: Connection,
    active: ActiveRun,
    returned: Returned,
    *,
    policy: RetryPolicy,
    now_us: int,
    luck: Callable[[], float] = random.random,
    cache: Cache | None = None,
) -> Finished:
    """
    Record *returned* and return what of it was new.

    Successes end their items. What follows another outcome is decided by :func:`durabatch.flow.retrying.after_attempt`.

    Args:
        luck: Gives numbers from 0 to 1 for the waits before further tries.
        cache: Learns the results of successes.
    """
    with ledger.transaction():
        recording = Recording(ledger, active, returned, cache=cache)
        succeeded = recording.inline(now_us) + recording.packed(now_us)
        active.move(succeeded, ItemState.RUNNING, ItemState.SUCCEEDED)
        recording.finished.recorded = recording.finished.succeeded = succeeded
        for one in returned.failed:
            recording.failed(one, one.end(), policy, now_us, luck())
        recording.close(now_us)
    return recording.finished
