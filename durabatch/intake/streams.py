"""
Bytes in: plain files, pipes, and files of other encodings as UTF-8. A stream is read forwards, in pieces of bounded size.
"""

from __future__ import annotations

import codecs
import os
import select
import stat
from typing import Any, BinaryIO, Protocol

from durabatch.errors import InputError, UsageError
from durabatch.intake.problems import cannot_read

__all__ = ["BrokenTextError", "ByteStream", "FileStream", "PipeStream", "RecodedStream", "check_encoding", "is_utf8", "open_stream"]


class BrokenTextError(ValueError):
    """The next byte of a stream does not decode; everything before it was handed out."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        super().__init__(fault)


class ByteStream(Protocol):
    """Where lines come from."""

    #: True when reading may wait for another program.
    waits: bool
    #: True when :meth:`seek` works; else a reader skips lines.
    seekable: bool

    def read(self, size: int) -> bytes:
        """Return up to *size* bytes, empty at the end. InputError when reading fails, BrokenTextError at a byte that does not decode."""
        ...

    def seek(self, offset: int) -> None:
        """Go to the byte *offset*. InputError when the stream ends before."""
        ...

    def ready(self) -> bool:
        """Return False when :meth:`read` would wait."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class FileStream:
    """A regular file, up to the size that it had when it was opened: what is appended later belongs to another reading."""

    waits = False
    seekable = True

    def __init__(self, path: str, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._offset = 0

    def read(self, size: int) -> bytes:
        """Return the next bytes; InputError when the file became shorter since it was opened."""
        try:
            data = self._file.read(max(0, min(size, self._size - self._offset)))
        except OSError as error:
            raise cannot_read(self.path, error) from error
        self._offset += len(data)
        if not data and self._offset < self._size:
            raise InputError(self.path, f"it became shorter while it was read: {self._offset:,} of {self._size:,} bytes are left")
        return data

    def seek(self, offset: int) -> None:
        """Go to *offset*, which may be one behind the end: where a last line without its newline would end."""
        if offset > self._size + 1:
            raise InputError(self.path, f"it became shorter: {self._size:,} bytes, {offset:,} were read before")
        self._offset = self._file.seek(offset)

    def ready(self) -> bool:
        """Files are always ready."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class PipeStream:
    """Standard input or a named pipe: read as the bytes come, never twice."""

    waits = True
    seekable = False

    def __init__(self, where: str, file: BinaryIO, *, owned: bool) -> None:
        self.where = where
        self._file: Any = file
        self._owned = owned

    def read(self, size: int) -> bytes:
        """Return what is there, waiting only when there is nothing."""
        try:
            data: bytes = self._file.read1(size) if hasattr(self._file, "read1") else self._file.read(size)
        except OSError as error:
            raise cannot_read(self.where, error) from error
        return data

    def seek(self, offset: int) -> None:
        """Pipes go forwards only; readers skip lines instead."""
        raise InputError(self.where, f"a pipe cannot go to byte {offset:,}")

    def ready(self) -> bool:
        """Return whether there are bytes, or the end, to read at once."""
        try:
            return bool(select.select([self._file.fileno()], [], [], 0)[0])
        except (OSError, ValueError):
            return True

    def close(self) -> None:
        """Close a pipe that we opened; standard input stays open."""
        if self._owned:
            self._file.close()


class RecodedStream:
    """Another stream as UTF-8, whatever its encoding; a place in it is a line, not a byte."""

    seekable = False

    def __init__(self, inner: ByteStream, encoding: str) -> None:
        self.waits = inner.waits
        self._inner = inner
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._broken: BrokenTextError | None = None
        self._ended = False

    def read(self, size: int) -> bytes:
        """Return the next piece as UTF-8, a little more or less than *size* bytes."""
        while not self._ended and self._broken is None:
            data = self._inner.read(size)
            self._ended = not data
            text = self._decode(data)
            if text:
                return text.encode("utf-8", "surrogatepass")
        if self._broken is not None:
            raise self._broken
        return b""

    def _decode(self, data: bytes) -> str:
        pending = len(self._decoder.getstate()[0])
        try:
            return self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            self._broken = BrokenTextError(f"byte 0x{error.object[error.start]:02x}")
            return self._decoder.decode(data[: max(0, error.start - pending)])
        except UnicodeError as error:
            self._broken = BrokenTextError(str(error))
            return ""

    def seek(self, offset: int) -> None:
        """Bytes of the file say nothing about bytes of UTF-8; readers skip lines instead."""
        raise InputError("recoded input", f"cannot go to byte {offset:,}")

    def ready(self) -> bool:
        """Return whether the inner stream is ready."""
        return self._inner.ready()

    def close(self) -> None:
        """Close the inner stream."""
        self._inner.close()


def is_utf8(encoding: str) -> bool:
    """Return whether *encoding* names UTF-8, with or without a mark at the start."""
    return codecs.lookup(encoding).name in {"utf-8", "utf-8-sig"}


def check_encoding(encoding: str) -> None:
    """Raise UsageError unless *encoding* names an encoding of text."""
    try:
        b"a\n".decode(encoding, "replace")
        codecs.getincrementaldecoder(encoding)
    except (LookupError, ValueError) as error:
        raise UsageError(f"unknown encoding '{encoding}'", "Names are those of Python, such as utf-16, latin-1, cp1252.") from error


def open_stream(path: str, encoding: str) -> ByteStream:
    """Return the file or named pipe at *path* as a stream of UTF-8; waits until somebody writes to a pipe."""
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115 - the stream closes it
    except OSError as error:
        raise cannot_read(path, error) from error
    regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    stream: ByteStream = FileStream(path, file) if regular else PipeStream(path, file, owned=True)
    return stream if is_utf8(encoding) else RecodedStream(stream, encoding)
