"""
The frames between the coordinator and a worker: typed, length-prefixed, checksummed, never unpickled.

A frame is ``magic, length, CRC-32, body``; the body is MessagePack of one of the structs below. A frame that does not check out
means that the pipe was written to by somebody else or cut in the middle; the reader raises :class:`ProtocolError` and the
coordinator treats the worker as dead. Payloads and results travel as JSON text that neither side of the pipe parses.

    coordinator ──▶ worker      Start, Dispatch, Release, Tune, Collect, Ask, Recorded, Interrupt, Stop
    worker ──▶ coordinator      Ready, Flush, Released, Busy, Promise, Refused

One Start comes first and is answered by Ready or Refused. Dispatches are begun in the order in which they came, items in the order of
the dispatch; with several at once they end in any order, and dispatches overlap. Items that were not started when a Release arrives
come back in a Released frame and are never started afterwards. A Promise (an undo entry) is answered by Recorded once it is on disk.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, Literal, TypeVar

import msgspec

__all__ = [
    "MAX_FRAME_BYTES",
    "Ask",
    "Busy",
    "Collect",
    "Dispatch",
    "Failure",
    "Flush",
    "Frame",
    "FrameBuffer",
    "FromWorker",
    "Group",
    "Interrupt",
    "Packed",
    "Promise",
    "ProtocolError",
    "Ready",
    "Recorded",
    "Refused",
    "Release",
    "Released",
    "Start",
    "Step",
    "Stop",
    "Success",
    "Task",
    "ToWorker",
    "Tune",
    "Work",
    "decode_from_worker",
    "decode_to_worker",
    "encode",
]

MAGIC = 0xD5BA7C41
HEADER = struct.Struct("<III")
#: Bytes of one frame: the largest result (64 MiB by default, settable) and what surrounds it stay far below.
MAX_FRAME_BYTES = 1 << 30

#: What a worker does with the items of a dispatch.
Task = Literal["run", "check", "undo"]
#: One item to do: (item_id, attempt number from 1, key, payload as JSON text).
Work = tuple[int, int, str, str]
#: One success with its value inline: (item_id, attempt number, worker number, started_at_us, duration_us, value as JSON text).
Success = tuple[int, int, int, int, int, str]
#: One success packed into a frame: (item_id, attempt number, worker number, started_at_us, duration_us, frame index, offset, bytes).
Packed = tuple[int, int, int, int, int, int, int, int]


class ProtocolError(Exception):
    """The bytes on a pipe are not a frame."""


class Start(msgspec.Struct, tag="start", frozen=True, kw_only=True):
    """
    Everything a worker needs before its first item.

    ``handler`` and ``preflight`` are the JSON forms of handler references (see :mod:`durabatch.loading`), ``params`` the values for the
    keyword-only parameters with secrets still as references, ``sys_path`` the module path of the coordinator.

    ``concurrency`` items run at once at first, and never more than ``cell_count``, the number of the worker's cells from ``cell`` on.
    ``timeout_s`` ends attempts of async handlers and of commands; sync functions are ended from outside. ``marker`` stands in the
    environment of everything that the worker starts, as DURABATCH_RUN_MARKER.
    """

    worker: int
    run_id: int
    run_name: str
    handler: dict[str, Any]
    params: dict[str, Any]
    sys_path: list[str]
    cells_path: str
    cell: int
    inline_bytes: int
    max_result_bytes: int
    term_grace_s: float
    concurrency: int = 1
    cell_count: int = 1
    timeout_s: float | None = None
    cpu_limit_s: float | None = None
    preflight: dict[str, Any] | None = None
    marker: str = ""
    undo_command: str | None = None
    max_undo_bytes: int = 64 << 20


class Group(msgspec.Struct, array_like=True, frozen=True):
    """Consecutive items of one batch inside a dispatch."""

    batch_id: int
    items: list[Work]


class Dispatch(msgspec.Struct, tag="dispatch", frozen=True):
    """
    Items to run, in this order.

    ``task`` says to what: the handler, the preflight check, or the undoing of what an item did. ``limits`` has, for items with a deadline of
    their own, the seconds that are left to them; the smaller of it and the timeout counts. For ``undo`` each work is one step: its id is that
    of the undo entry below zero, its key the item's, its payload the JSON of a Step; ``blobs`` has the old contents that steps need.
    """

    dispatch_id: int
    groups: list[Group]
    task: Task = "run"
    limits: dict[int, float] = {}
    blobs: dict[int, bytes] = {}


class Step(msgspec.Struct, frozen=True):
    """
    One effect to be undone.

    ``key`` is the idempotency key, the same at every try. ``is_forced`` has it undone although something was changed since.
    """

    action: str
    arguments: dict[str, Any]
    key: str
    is_forced: bool = False


class Release(msgspec.Struct, tag="release", frozen=True):
    """Give back, unstarted, up to ``limit`` items from the end of what is waiting (None: all of them)."""

    limit: int | None = None


class Tune(msgspec.Struct, tag="tune", frozen=True):
    """From now on another timeout, also for what is running, and another concurrency; that is capped by the number of cells."""

    timeout_s: float | None
    concurrency: int


class Collect(msgspec.Struct, tag="collect", frozen=True):
    """Memory runs short: collect garbage before the next item."""


class Ask(msgspec.Struct, tag="ask", frozen=True):
    """Say what is holding up the others; answered by Busy, unless the interpreter itself is held."""


class Recorded(msgspec.Struct, tag="recorded", frozen=True):
    """
    A promise is on disk: its effect may happen. With a ``refusal`` it is not, and must not.

    ``token`` is that of the promise, ``undo_id`` the number of its entry.
    """

    token: int
    undo_id: int = 0
    refusal: str | None = None


class Interrupt(msgspec.Struct, tag="interrupt", frozen=True):
    """Stop at once: flush what is finished and exit; the items in the cells are interrupted, not failed."""


class Stop(msgspec.Struct, tag="stop", frozen=True):
    """Finish what is waiting, flush, tear down and exit with status 0."""


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """The handler is imported; items may come."""

    pid: int


class Refused(msgspec.Struct, tag="refused", frozen=True):
    """The handler cannot be used: one line for the user, and the traceback for those who ask."""

    message: str
    traceback: str


class Frame(msgspec.Struct, array_like=True, frozen=True):
    """Encoded results of one batch, back to back, as one checked zstd frame (see :mod:`durabatch.codec`)."""

    batch_id: int
    raw_bytes: int
    digest: bytes
    data: bytes


class Failure(msgspec.Struct, array_like=True, frozen=True):
    """
    One attempt that did not succeed.

    ``outcome`` is an :class:`~durabatch.states.AttemptOutcome`: failed, timed_out, skipped, snoozed, and interrupted for what an inline
    run cut off. ``retryable`` False means that further attempts are pointless (``Fail``); texts are capped. ``exit_code`` and the tails are
    set for commands.

    ``error_group`` is the same for errors that differ only in numbers, names and places. ``kinds`` are the class names by which a retry
    policy knows the error. ``after_s`` is when to try again, if the handler said so. Skipped and snoozed have no ``error_type``; their
    ``message`` is the reason, and ``remedy`` what to do about a skipped item. ``peak_rss_bytes`` is that of a command's process.
    """

    item_id: int
    number: int
    worker: int
    started_at_us: int
    duration_us: int
    outcome: str
    error_type: str
    message: str
    traceback: str
    retryable: bool = True
    exit_code: int | None = None
    stdout_tail: str | None = None
    stderr_tail: str | None = None
    error_group: str = ""
    kinds: list[str] = []
    after_s: float | None = None
    remedy: str | None = None
    peak_rss_bytes: int | None = None


class Flush(msgspec.Struct, tag="flush", frozen=True):
    """
    What a worker finished since its last flush, all of one dispatch.

    ``finished`` is True in the last flush of the dispatch: every item of it is then ended or released. ``peak_rss_bytes`` is the most
    memory that the worker, or one of the processes it waited for, has ever had. ``spends`` has, for items of this flush, what they spent by unit.
    """

    dispatch_id: int
    succeeded: list[Success]
    packed: list[Packed]
    frames: list[Frame]
    failed: list[Failure]
    finished: bool
    peak_rss_bytes: int = 0
    spends: dict[int, dict[str, float]] = {}


class Released(msgspec.Struct, tag="released", frozen=True):
    """Items given back unstarted: dispatch id to item ids, in input order."""

    items: dict[int, list[int]]


class Promise(msgspec.Struct, tag="promise", frozen=True):
    """
    What takes back the effect that an attempt is about to have; whoever sends it waits for Recorded.

    ``token`` tells promises of one worker apart. ``sequence`` counts from 1 in the attempt, ``arguments`` is JSON text. ``old`` is what stands in
    the place of the effect, as a checked zstd frame with its raw size and the SHA-256 of that; None when there is nothing to keep.
    """

    token: int
    dispatch_id: int
    item_id: int
    number: int
    sequence: int
    action: str
    arguments: str
    is_irreversible: bool = False
    old: bytes | None = None
    old_bytes: int = 0
    old_digest: bytes = b""


class Busy(msgspec.Struct, tag="busy", frozen=True):
    """The item that blocks the loop right now; 0: something does, and it is not known whose; None: nothing."""

    item_id: int | None


ToWorker = Start | Dispatch | Release | Tune | Collect | Ask | Recorded | Interrupt | Stop
FromWorker = Ready | Refused | Flush | Released | Busy | Promise

_T = TypeVar("_T")

_encoder = msgspec.msgpack.Encoder()
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


def encode(message: ToWorker | FromWorker) -> bytes:
    """Return the whole frame of *message*, header included."""
    body = _encoder.encode(message)
    return HEADER.pack(MAGIC, len(body), zlib.crc32(body)) + body


def decode_to_worker(body: bytes | memoryview) -> ToWorker:
    """Return the message in *body*, as sent by a coordinator."""
    return _decode(_to_worker, body)


def decode_from_worker(body: bytes | memoryview) -> FromWorker:
    """Return the message in *body*, as sent by a worker."""
    return _decode(_from_worker, body)


def _decode(decoder: msgspec.msgpack.Decoder[_T], body: bytes | memoryview) -> _T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"frame of an unknown kind: {error}") from error


class FrameBuffer:
    """Cuts a stream of bytes into the bodies of frames; bytes of an unfinished frame wait for the rest."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[memoryview]:
        """
        Add *data* and return the bodies of all frames that are complete now, in order. They are not copied: big ones should not be kept.

        Raises:
            ProtocolError: The bytes are no frame. The stream is of no further use.
        """
        self._bytes += data
        view = memoryview(self._bytes)
        bodies: list[memoryview] = []
        start = 0
        while len(view) - start >= HEADER.size:
            magic, length, checksum = HEADER.unpack_from(view, start)
            if magic != MAGIC or length > MAX_FRAME_BYTES:
                raise ProtocolError("the pipe holds bytes that are no frame")
            end = start + HEADER.size + length
            if len(view) < end:
                break
            body = view[start + HEADER.size : end]
            if zlib.crc32(body) != checksum:
                raise ProtocolError("a frame has a wrong checksum")
            bodies.append(body)
            start = end
        if start:
            self._bytes = bytearray(view[start:])
        else:
            # Bytes that are looked at cannot grow.
            view.release()
        return bodies
