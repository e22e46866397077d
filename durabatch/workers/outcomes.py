"""
What a worker has finished and not yet sent.

One thread adds (the one that runs the items), any thread takes. Small results are added without a lock: ``list.append`` and the removal of
a slice are each one step, so a result is either taken or still there. Everything else is rare and locked.
"""

from __future__ import annotations

import threading

from durabatch.codec import frame_digest, pack_frame
from durabatch.workers.protocol import Failure, Flush, Frame, Packed, Success, Work

__all__ = ["Outcomes"]


class Outcomes:
    """
    Finished items of one dispatch at a time.

    Args:
        worker: The worker's number, part of every record.
        inline_bytes: Values up to this many bytes of JSON travel as they are; bigger ones are packed, batch by batch.
    """

    def __init__(self, worker: int, inline_bytes: int) -> None:
        self.waiting_bytes = 0
        self._worker = worker
        self._inline_bytes = inline_bytes
        self._lock = threading.Lock()
        self._succeeded: list[Success] = []
        self._failed: list[Failure] = []
        self._packed: dict[int, list[Packed]] = {}
        self._raw: dict[int, bytearray] = {}

    def __bool__(self) -> bool:
        """Whether anything waits to be taken."""
        return bool(self._succeeded or self._failed or self._packed)

    def succeed(self, batch_id: int, work: Work, started_at_us: int, duration_us: int, value: str) -> None:
        """Add a success; *value* is JSON text."""
        self.waiting_bytes += len(value)
        if len(value) <= self._inline_bytes and (value.isascii() or len(value.encode()) <= self._inline_bytes):
            self._succeeded.append((work[0], work[1], self._worker, started_at_us, duration_us, value))
        else:
            self._pack(batch_id, work, started_at_us, duration_us, value.encode())

    def fail(self, failure: Failure) -> None:
        """Add a try that did not succeed."""
        with self._lock:
            self._failed.append(failure)
            self.waiting_bytes += len(failure.message) + len(failure.traceback)

    def take(self, dispatch_id: int, *, finished: bool) -> Flush:
        """Return everything added so far, in the order in which it was added, and forget it. Compresses; may take a while."""
        with self._lock:
            succeeded = self._succeeded[:]
            del self._succeeded[: len(succeeded)]
            failed, self._failed = self._failed, []
            packed, self._packed = self._packed, {}
            raw, self._raw = self._raw, {}
            self.waiting_bytes = 0
        frames = [frame_of(batch_id, bytes(data)) for batch_id, data in raw.items()]
        entries = [(*entry[:5], index, *entry[6:]) for index, batch_id in enumerate(raw) for entry in packed[batch_id]]
        return Flush(dispatch_id, succeeded, entries, frames, failed, finished)

    def _pack(self, batch_id: int, work: Work, started_at_us: int, duration_us: int, data: bytes) -> None:
        with self._lock:
            raw = self._raw.setdefault(batch_id, bytearray())
            entry = (work[0], work[1], self._worker, started_at_us, duration_us, 0, len(raw), len(data))
            self._packed.setdefault(batch_id, []).append(entry)
            raw += data


def frame_of(batch_id: int, raw: bytes) -> Frame:
    """Return the values of a batch, back to back, as a checked and compressed frame."""
    return Frame(batch_id, len(raw), frame_digest(raw), pack_frame(raw))
