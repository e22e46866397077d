"""
Bytes in: plain files, pipes, and either of them in another encoding as UTF-8. A stream is read forwards, in pieces of bounded size.
"""

from __future__ import annotations

import codecs
import os
import select
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

from durabatch.errors import InputError, UsageError
from durabatch.intake.problems import cannot_read, printable

__all__ = [
    "BrokenStreamError",
    "BrokenTextError",
    "ByteStream",
    "FileStream",
    "Notes",
    "PipeStream",
    "RecodedStream",
    "check_encoding",
    "is_utf8",
]

#: A pipe that has given nothing for so many seconds is spoken of.
PATIENCE_S = 2.0

#: Takes a sentence for people, without a final full stop.
Notes = Callable[[str], None]


class BrokenStreamError(ValueError):
    """
    The rest of a stream cannot be read; everything before it was handed out.

    Args:
        fault: Why, as a template: ``{items}`` stands for the items before it, ``{item}`` for the one in which it ends.
    """

    def __init__(self, fault: str) -> None:
        self.fault = fault
        super().__init__(fault)

    def at(self, where: str, items: int) -> InputError:
        """Return the error for the input *where* of which *items* items were read."""
        return InputError(where, self.fault.format(items=f"{items:,}", item=f"{items + 1:,}"))


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

    @property
    def is_cut(self) -> bool:
        """True behind the last byte when there are more of them by now: the last line may be half of one."""
        ...

    def read(self, size: int) -> bytes | None:
        """
        Return up to about *size* bytes, empty at the end, None when there will be more but reading on would wait.

        Raises:
            InputError: Reading fails.
            BrokenStreamError: The rest cannot be read, as far as one can tell.
            BrokenTextError: The next byte does not decode.
        """
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
    """
    A regular file, up to the size that it had when it was opened: what is appended later belongs to another reading.

    Args:
        path: For messages.
        file: The file, unbuffered, at its start.
        notes: Hears that the file changed while it was read.
    """

    waits = False
    seekable = True

    def __init__(self, path: str, file: BinaryIO, notes: Notes | None = None) -> None:
        self.path = path
        self.is_cut = False
        self._file = file
        self._notes = notes
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
        if not data and size:
            self._compare()
        return data

    def _compare(self) -> None:
        """Say it, once, when the file behind the last byte is not as it was."""
        now = os.fstat(self._file.fileno()).st_size
        self.is_cut = now > self._size
        if self._notes is not None and now > self._size:
            self._notes(f"{printable(self.path)} grew while it was read: what was added since it was opened is left to the next reading")
        elif self._notes is not None and now < self._size:
            self._notes(f"{printable(self.path)} became shorter after it was read")
        self._notes = None

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
    """
    Standard input or a named pipe: read as the bytes come, never twice.

    Args:
        where: For messages.
        file: What to read.
        owned: It is ours to close, and was opened so that reading does not wait.
        notes: Hears that nothing comes.
    """

    waits = True
    seekable = False
    is_cut = False

    def __init__(self, where: str, file: BinaryIO, *, owned: bool, notes: Notes | None = None) -> None:
        self.where = where
        self._file: Any = file
        self._owned = owned
        self._notes = notes
        self._begun = False

    def read(self, size: int) -> bytes:
        """Return what is there, waiting only when there is nothing. A signal whose handler raises ends the wait."""
        try:
            if not self._begun:
                self._await()
            data: bytes = self._file.read1(size) if hasattr(self._file, "read1") else self._file.read(size)
        except OSError as error:
            why = (error.strerror or str(error)).lower().replace("{", "(").replace("}", ")")
            raise BrokenStreamError(f"input ended by error after {{items}} items: {why}") from error
        return data

    def _await(self) -> None:
        """Wait for the first bytes, or for the end; say it when that takes long."""
        self._begun = True
        try:
            number = self._file.fileno()
        except (OSError, AttributeError):
            return
        if not select.select([number], [], [], PATIENCE_S)[0]:
            self._say(number)
            select.select([number], [], [])
        if self._owned:
            os.set_blocking(number, True)

    def _say(self, number: int) -> None:
        if self._notes is not None and self._owned:
            self._notes(f"waiting for a program that writes to {printable(self.where)}")
        elif self._notes is not None and os.isatty(number):
            self._notes("reading items from the terminal; end with Ctrl-D")

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

    @property
    def is_cut(self) -> bool:
        """Whether the inner stream was cut."""
        return self._inner.is_cut

    def read(self, size: int) -> bytes | None:
        """Return the next piece as UTF-8, a little more or less than *size* bytes."""
        while not self._ended and self._broken is None:
            data = self._inner.read(size)
            if data is None:
                return None
            self._ended = not data
            text = self._decode(data)
            if text:
                return text.encode("utf-8", "surrogatepass")
            if self.waits and data and self._broken is None:
                return None
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
