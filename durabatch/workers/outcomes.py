"""
What a worker has finished and not yet sent, dispatch by dispatch.

Those who run the items add, any thread takes. Small results are added without a lock: ``list.append`` and the removal of a slice are each
one step, so a result is either taken or still there. Everything else is rare and locked.
"""

from __future__ import annotations

import resource
import sys
import threading

from durabatch.codec import frame_digest, pack_frame
from durabatch.workers.protocol import Failure, Flush, Frame, Packed, Success, Work

__all__ = ["RSS_UNIT", "Outcomes", "peak_rss_bytes"]

#: What ``getrusage`` counts memory in.
RSS_UNIT = 1 if sys.platform == "darwin" else 1024
#: Values in one frame, unless one alone is larger: who reads a value unpacks no more than that.
FRAME_BYTES = 256 * 1024


class Outcomes:
    """
    Finished items of one dispatch.

    Args:
        worker: The worker's number, part of every record.
        inline_bytes: Values up to this many bytes of JSON travel as they are; bigger ones are packed into frames of their batch.
        dispatch_id: The dispatch.

    Attributes:
        waiting_bytes: About how much waits to be taken.
    """

    def __init__(self, worker: int, inline_bytes: int, dispatch_id: int = 0) -> None:
        self.dispatch_id = dispatch_id
        self.waiting_bytes = 0
        self._worker = worker
        self._inline_bytes = inline_bytes
        self._lock = threading.Lock()
        self._succeeded: list[Success] = []
        self._failed: list[Failure] = []
        self._packed: list[Packed] = []
        #: (batch_id, values) of each frame, and the last frame of each batch.
        self._raw: list[tuple[int, bytearray]] = []
        self._last: dict[int, int] = {}
        self._spends: dict[int, dict[str, float]] = {}

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

    def spend(self, item_id: int, spent: dict[str, float]) -> None:
        """Note what an item spent, before its success or failure is added: both are then taken together."""
        with self._lock:
            self._spends[item_id] = spent

    def take(self, *, finished: bool) -> Flush:
        """Return everything added so far, in the order in which it was added, and forget it. Compresses; may take a while."""
        with self._lock:
            succeeded = self._succeeded[:]
            del self._succeeded[: len(succeeded)]
            failed, self._failed = self._failed, []
            packed, self._packed = self._packed, []
            raw, self._raw, self._last = self._raw, [], {}
            self.waiting_bytes = 0
        frames = [frame_of(batch_id, data) for batch_id, data in raw]
        spends = self._take_spends(succeeded, packed, failed) if self._spends else {}
        return Flush(self.dispatch_id, succeeded, packed, frames, failed, finished, peak_rss_bytes(), spends)

    def _pack(self, batch_id: int, work: Work, started_at_us: int, duration_us: int, data: bytes) -> None:
        with self._lock:
            frame = self._last.get(batch_id)
            if frame is None or len(self._raw[frame][1]) + len(data) > FRAME_BYTES:
                frame = self._last[batch_id] = len(self._raw)
                self._raw.append((batch_id, bytearray()))
            raw = self._raw[frame][1]
            self._packed.append((work[0], work[1], self._worker, started_at_us, duration_us, frame, len(raw), len(data)))
            raw += data

    def _take_spends(self, succeeded: list[Success], packed: list[Packed], failed: list[Failure]) -> dict[int, dict[str, float]]:
        """Return what the items of a flush spent; what others spent, whose end has not been added yet, stays."""
        ids = [*(entry[0] for entry in succeeded), *(entry[0] for entry in packed), *(failure.item_id for failure in failed)]
        with self._lock:
            return {item_id: self._spends.pop(item_id) for item_id in ids if item_id in self._spends}


def peak_rss_bytes() -> int:
    """Return the most memory that this process, or one of the processes that it waited for, has ever had."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * RSS_UNIT
    try:
        with open("/proc/self/status", "rb") as status:
            # What getrusage says of the process itself begins at the size of the one that started it.
            return max(children, int(status.read().partition(b"VmHWM:")[2].split(maxsplit=1)[0]) * 1024)
    except (OSError, IndexError):
        return max(children, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT)


def frame_of(batch_id: int, raw: bytearray) -> Frame:
    """Return the values of a batch, back to back, as a checked and compressed frame."""
    return Frame(batch_id, len(raw), frame_digest(raw), pack_frame(raw))
