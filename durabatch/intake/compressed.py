"""
Compressed input: gzip and zstd are known by their first bytes, whatever a file is called, and unpacked as they are read.

Several members or frames behind one another are one text. What expands without bound is refused before it is in memory.
"""

from __future__ import annotations

import os
import zlib
from typing import Protocol

from durabatch.codec import FrameError, FrameUnpacker
from durabatch.intake.streams import BrokenStreamError, ByteStream

__all__ = ["CompressedStream", "SniffedStream", "bare_name", "unpacked"]

SUFFIXES = frozenset({".gz", ".gzip", ".zst", ".zstd"})
GZIP, ZSTD, SKIPPABLE = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18"
#: Bytes that tell.
HEAD_BYTES = 4
#: In what the libraries say of whole data whose checksum or length differs.
CHECKSUM_WORDS = ("data check", "length check", "checksum")
#: Compressed bytes of one read.
BLOCK_BYTES = 1 << 16
#: More than so many bytes for each compressed one are no text, ...
MOST_TIMES = 1000
#: ... once there are so many.
FREE_BYTES = 1 << 20
#: Compressed bytes unpacked at once: of zstd they become 64 MiB at most, of gzip as much as is asked for.
PIECE_BYTES = {"zstd": 2048, "gzip": 1 << 14}


def bare_name(path: str) -> str:
    """Return *path* without the suffix of a compressed file, if it has one: ``a.csv`` for ``a.csv.gz``."""
    name, suffix = os.path.splitext(path)
    return name if suffix.lower() in SUFFIXES else path


def kind_of(head: bytes) -> str | None:
    """Return ``gzip`` or ``zstd`` for the first bytes of such data, else None."""
    if head.startswith(GZIP):
        return "gzip"
    return "zstd" if head.startswith(ZSTD) or (head[1:4] == SKIPPABLE and head[0] & 0xF0 == 0x50) else None


def may_become(head: bytes) -> bool:
    """Tell whether further bytes behind *head*, of which there are too few, could make it compressed data."""
    return any(magic.startswith(head) for magic in (GZIP, ZSTD, head[:1] + SKIPPABLE if head[0] & 0xF0 == 0x50 else GZIP))


def unpacked(stream: ByteStream) -> ByteStream:
    """Return *stream*, which stands at its start, as the bytes that are in it. Of a pipe nothing is read yet."""
    if not stream.seekable:
        return SniffedStream(stream)
    kind = kind_of(stream.read(HEAD_BYTES) or b"")
    stream.seek(0)
    return stream if kind is None else CompressedStream(stream, kind)


class Unpacker(Protocol):
    """Unpacks one member or frame."""

    @property
    def eof(self) -> bool:
        """Whether the member is complete."""
        ...

    @property
    def unused_data(self) -> bytes:
        """Bytes behind it."""
        ...

    def unpack(self, data: bytes, max_bytes: int) -> tuple[bytes, bytes]:
        """Return unpacked bytes and the part of *data* that is still to be given. zlib.error or FrameError when it is damaged."""
        ...


class GzipUnpacker:
    """One member of gzip data. What stands before a fault is handed out before the fault is raised."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self._fault: zlib.error | None = None

    @property
    def eof(self) -> bool:
        """Whether the member is complete."""
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        """Bytes behind the member."""
        return self._inner.unused_data

    def unpack(self, data: bytes, max_bytes: int) -> tuple[bytes, bytes]:
        """Return unpacked bytes and the part of *data* that is still to be given; zlib.error when it is damaged."""
        if self._fault is not None:
            raise self._fault
        before = self._inner.copy()
        try:
            made = self._inner.decompress(data, max_bytes)
        except zlib.error as error:
            self._fault = error
            return sound_part(before, data), data
        return made, self._inner.unconsumed_tail


def sound_part(unpacker: zlib._Decompress, data: bytes) -> bytes:
    """Return what *unpacker* makes of *data* up to the fault that is in it."""
    parts: list[bytes] = []
    try:
        parts.extend(unpacker.decompress(data[index : index + 1]) for index in range(len(data)))
    except zlib.error:
        return b"".join(parts)
    return b"".join(parts)


class CompressedStream:
    """
    Compressed bytes, unpacked. Places in it are lines: going on means reading it again from the start.

    Args:
        inner: The compressed bytes.
        kind: ``gzip`` or ``zstd``.
        head: What was read of them already.
    """

    seekable = False
    is_cut = False

    def __init__(self, inner: ByteStream, kind: str, head: bytes = b"") -> None:
        self.waits = inner.waits
        self._inner = inner
        self._kind = kind
        self._pending = head
        self._made = b""
        self._unpacker: Unpacker | None = None
        self._taken = 0
        self._given = 0
        self._ended = False
        self._fault: BrokenStreamError | None = None

    def read(self, size: int) -> bytes | None:
        """Return the next bytes, up to *size*; of a pipe what one read of it gives."""
        parts: list[bytes] = []
        rest, reads = size, 1 if self._pending or self._made else 0
        while rest > 0 and (self._made or self._fault is None):
            if not self._made and not self._pending:
                if (reads and self.waits) or not self._refill():
                    break
                reads += 1
            if not self._made:
                self._made = self._unpack(rest)
            parts.append(self._made[:rest])
            self._made = self._made[rest:]
            rest -= len(parts[-1])
        if rest < size:
            return b"".join(parts)
        if self._fault is not None:
            raise self._fault
        return b"" if self._ended or not size else None

    def _refill(self) -> bool:
        """Read compressed bytes; False at the end."""
        self._pending = b"" if self._ended else self._inner.read(BLOCK_BYTES) or b""
        if not self._pending and not self._ended and self._unpacker is not None:
            self._fault = BrokenStreamError("ends in the middle (item {item})")
        self._ended = not self._pending
        return not self._ended

    def _unpack(self, most: int) -> bytes:
        piece, self._pending = self._pending[: PIECE_BYTES[self._kind]], self._pending[PIECE_BYTES[self._kind] :]
        if self._unpacker is None:
            # Files on tape and the like end with zeros.
            piece = piece.lstrip(b"\0") if self._kind == "gzip" and self._taken else piece
            self._unpacker = self._new() if piece else None
        if self._unpacker is None:
            return b""
        try:
            made, left = self._unpacker.unpack(piece, most)
        except (zlib.error, FrameError) as error:
            how = "its checksum differs" if any(word in str(error) for word in CHECKSUM_WORDS) else "it cannot be unpacked further"
            self._fault = BrokenStreamError(f"is damaged, {how} (item {{item}})")
            return b""
        if self._unpacker.eof:
            left, self._unpacker = self._unpacker.unused_data, None
        self._pending = left + self._pending
        return self._bounded(made, len(piece) - len(left))

    def _new(self) -> Unpacker:
        return GzipUnpacker() if self._kind == "gzip" else FrameUnpacker()

    def _bounded(self, made: bytes, taken: int) -> bytes:
        """Return *made*, which came of *taken* bytes; when that is beyond all bounds, what is within them."""
        self._taken += taken
        allowed = max(FREE_BYTES, MOST_TIMES * self._taken) - self._given
        if len(made) > allowed:
            self._fault = BrokenStreamError(f"expands more than {MOST_TIMES:,} times")
        self._given += len(made)
        return made[: max(0, allowed)]

    def seek(self, offset: int) -> None:
        """Readers skip lines instead."""
        raise BrokenStreamError(f"compressed data cannot go to byte {offset}")

    def ready(self) -> bool:
        """Return False when reading would wait."""
        return bool(self._pending or self._made) or self._ended or self._fault is not None or self._inner.ready()

    def close(self) -> None:
        """Close the compressed file."""
        self._inner.close()


class SniffedStream:
    """A pipe whose first bytes say whether it is compressed."""

    seekable = False
    is_cut = False

    def __init__(self, inner: ByteStream) -> None:
        self.waits = inner.waits
        self._inner = inner
        self._stream: ByteStream | None = None
        self._head = b""

    def read(self, size: int) -> bytes | None:
        """Return the next bytes; None while there are too few to tell what they are."""
        if self._stream is not None:
            return self._stream.read(size)
        data = self._inner.read(size)
        self._head += data or b""
        if data is None or (data and len(self._head) < HEAD_BYTES and may_become(self._head)):
            return None
        kind = kind_of(self._head)
        if kind is None:
            self._stream = self._inner
            return self._head
        self._stream = CompressedStream(self._inner, kind, self._head)
        return self._stream.read(size)

    def seek(self, offset: int) -> None:
        """Pipes go forwards only."""
        self._inner.seek(offset)

    def ready(self) -> bool:
        """Return False when reading would wait."""
        return (self._stream or self._inner).ready()

    def close(self) -> None:
        """Close the pipe."""
        self._inner.close()
