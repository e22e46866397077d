"""
Files that appear whole or not at all: written beside their place, synced, then renamed into it.

A reader sees the old file or the new one. What a crash leaves behind is a hidden ``.NAME.part``, which the next write replaces.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from durabatch.errors import OutputError, OutputFullError

__all__ = ["explained", "opened_new", "replacing", "sync_directory", "write_whole"]

#: What a file system answers when there is no room: on the disk, in the quota, or in the size limit of the process.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: Bytes gathered before the kernel is asked to write.
BUFFER_BYTES = 1 << 18


def write_whole(path: Path, pieces: Iterable[str]) -> int:
    """
    Put the text of *pieces* at *path*, in place of what is there, and return its size in bytes.

    On return the file is on disk, under its name.

    Raises:
        OutputError: It could not be written; OutputFullError for lack of room. What was at *path* before is there still, and nothing is left beside it.
    """
    with replacing(path) as part, io.BufferedWriter(opened_new(part), BUFFER_BYTES) as file:
        file.writelines(piece.encode() for piece in pieces)
        return file.tell()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """
    Give the place of a new file, which is put at *path*, in place of what is there, when the body has ended: on disk, under its name.

    Raises:
        OutputError: It could not be written; OutputFullError for lack of room. What was at *path* before is there still, and nothing is left beside
            it; so it is when the body raises anything else.
    """
    part = path.with_name(f".{path.name}.part")
    with explained(path):
        try:
            yield part
            sync_file(part)
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def opened_new(path: Path) -> io.FileIO:
    """Return a new file at *path*, in place of what is there, open for writing and without a buffer; a link in its place is refused."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    return io.FileIO(os.open(path, flags, 0o666), "wb")


def sync_file(path: Path) -> None:
    """Have what stands in a file on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(folder: Path) -> None:
    """Make the names in *folder* outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the file system raises in the body into our error."""
    try:
        yield
    except OSError as error:
        what = "no room on the disk" if error.errno in NO_ROOM else error.strerror or str(error)
        todo = "Make room" if error.errno in NO_ROOM else "Make the directory writable"
        # A size limit of the process is not lifted by waiting.
        kind = OutputFullError if error.errno in NO_ROOM - {errno.EFBIG} else OutputError
        raise kind(
            path, f"cannot be written ({what})", f"{todo} and start the same command again: the results are in the ledger."
        ) from error
