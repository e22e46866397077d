"""
From a path, or standard input, to a stream of UTF-8: opened, unpacked, and of whatever encoding.
"""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from durabatch.intake.compressed import unpacked
from durabatch.intake.problems import cannot_read
from durabatch.intake.streams import ByteStream, FileStream, Notes, PipeStream, RecodedStream, is_utf8

__all__ = ["open_stream", "stdin_stream"]


def open_stream(path: str, encoding: str, notes: Notes | None = None) -> ByteStream:
    """Return the file or named pipe at *path*; nobody need write to a pipe yet. InputError when it cannot be opened."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        file = open(number, "rb", buffering=0)  # noqa: SIM115 - the stream closes it
        regular = stat.S_ISREG(os.fstat(number).st_mode)
    except (OSError, ValueError) as error:
        raise cannot_read(path, error if isinstance(error, OSError) else OSError(0, str(error))) from error
    stream: ByteStream = FileStream(path, file, notes) if regular else PipeStream(path, file, owned=True, notes=notes)
    try:
        return decoded(unpacked(stream), encoding)
    except BaseException:
        stream.close()
        raise


def stdin_stream(file: BinaryIO, encoding: str, notes: Notes | None = None) -> ByteStream:
    """Return standard input, which stays open."""
    return decoded(unpacked(PipeStream("stdin", file, owned=False, notes=notes)), encoding)


def decoded(stream: ByteStream, encoding: str) -> ByteStream:
    """Return *stream* as UTF-8."""
    return stream if is_utf8(encoding) else RecodedStream(stream, encoding)
