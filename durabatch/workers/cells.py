"""
What every worker is doing right now, in a memory-mapped file that outlives ``kill -9`` of everybody.

    header   magic, version, cell count, hash of the boot id, run id               64 bytes
    cell     pid, start ticks, item, dispatch, attempt number, started at, item     64 bytes, one writer each

A cell is written without locks: fields are stored in order and the item stands in it twice, so a worker killed in the middle of a write
leaves a cell that reads as empty (the item before it was finished, the next one not started). After another boot nothing in the file is
true any more and every cell reads as empty; so does anything that is no cells file. Reading never raises.
"""

from __future__ import annotations

import dataclasses
import hashlib
import mmap
import os
import struct
from pathlib import Path

__all__ = ["WORK", "Cell", "Cells"]

MAGIC = b"dbcells\0"
VERSION = 1
HEADER = struct.Struct("=8sII16sq24x")
#: Native order and width: each field is stored by one machine instruction.
CELL = struct.Struct("qqqqqqqq")
OWNER = struct.Struct("qq")
WORK = struct.Struct("qqqqq")
#: Where :data:`WORK` begins inside a cell.
WORK_OFFSET = OWNER.size


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """
    What one worker does. ``pid`` and ``start_ticks`` name the process; ``item_id`` is None between items.

    ``started_at_us`` is the wall-clock instant at which the handler was called, in UTC microseconds.
    """

    index: int
    pid: int
    start_ticks: int
    item_id: int | None
    dispatch_id: int
    number: int
    started_at_us: int


class Cells:
    """A mapped cells file. Made by the coordinator, written by workers (one cell each), read by whoever wants to know."""

    def __init__(self, mapped: mmap.mmap | None, count: int, run_id: int) -> None:
        self.count = count
        self.run_id = run_id
        self._mapped = mapped

    @classmethod
    def create(cls, path: str | os.PathLike[str], count: int, boot_id: str, run_id: int) -> Cells:
        """
        Replace whatever is at *path* by a file of *count* empty cells, readable and writable by this user only.

        Processes that have the old file mapped keep the old one; they cannot write into the new one.
        """
        content = HEADER.pack(MAGIC, VERSION, count, _boot_hash(boot_id), run_id) + bytes(count * CELL.size)
        fresh = f"{os.fspath(path)}.new"
        Path(fresh).unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)
        os.replace(fresh, path)
        return cls.open(path, boot_id)

    @classmethod
    def open(cls, path: str | os.PathLike[str], boot_id: str) -> Cells:
        """Return the cells at *path*; none at all when it is missing, damaged, not ours or of another boot."""
        try:
            # Appending, so that a handler that writes to every descriptor it finds cannot overwrite the cells of others.
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return cls(None, 0, 0)
        try:
            return cls._mapped_from(descriptor, boot_id)
        except (OSError, ValueError):
            return cls(None, 0, 0)
        finally:
            os.close(descriptor)

    @classmethod
    def _mapped_from(cls, descriptor: int, boot_id: str) -> Cells:
        magic, version, count, boot_hash, run_id = HEADER.unpack(os.pread(descriptor, HEADER.size, 0).ljust(HEADER.size, b"\0"))
        size = HEADER.size + count * CELL.size
        if (magic, version, boot_hash) != (MAGIC, VERSION, _boot_hash(boot_id)) or os.fstat(descriptor).st_size < size:
            return cls(None, 0, 0)
        return cls(mmap.mmap(descriptor, size), count, run_id)

    def occupy(self, index: int, pid: int, start_ticks: int) -> None:
        """Give the cell to a process; it shows no item. IndexError when there is no such cell."""
        CELL.pack_into(self._map_of(index), self._offset(index), pid, start_ticks, 0, 0, 0, 0, 0, 0)

    def enter(self, index: int, item_id: int, dispatch_id: int, number: int, started_at_us: int) -> None:
        """Show that the handler is about to be called with the item."""
        WORK.pack_into(self._map_of(index), self._offset(index) + WORK_OFFSET, item_id, dispatch_id, number, started_at_us, item_id)

    def leave(self, index: int) -> None:
        """Show that no item runs. Called after the outcome is in the worker's memory, ready to be sent."""
        WORK.pack_into(self._map_of(index), self._offset(index) + WORK_OFFSET, 0, 0, 0, 0, 0)

    def at(self, index: int) -> Cell:
        """Return the cell at *index*; an empty one (pid 0) when there is no such cell."""
        if self._mapped is None or not 0 <= index < self.count:
            return Cell(index, 0, 0, None, 0, 0, 0)
        pid, start_ticks, item_id, dispatch_id, number, started_at_us, again, _ = CELL.unpack_from(self._mapped, self._offset(index))
        if item_id <= 0 or item_id != again:
            return Cell(index, pid, start_ticks, None, 0, 0, 0)
        return Cell(index, pid, start_ticks, item_id, dispatch_id, number, started_at_us)

    def read(self) -> list[Cell]:
        """Return all cells that a process was given, by index; with ``item_id`` None where nothing ran."""
        return [cell for cell in map(self.at, range(self.count)) if cell.pid > 0]

    def close(self) -> None:
        """Give the mapping back. The file stays; all cells read as empty from here on."""
        if self._mapped is not None:
            self._mapped.close()
        self._mapped = None
        self.count = 0

    def window(self, index: int) -> memoryview:
        """Return the part of the cell that :data:`WORK` fills, for a worker that writes it for every item."""
        start = self._offset(index) + WORK_OFFSET
        return memoryview(self._map_of(index))[start : start + WORK.size]

    def _map_of(self, index: int) -> mmap.mmap:
        if self._mapped is None or not 0 <= index < self.count:
            raise IndexError(f"no cell {index}")
        return self._mapped

    @staticmethod
    def _offset(index: int) -> int:
        return HEADER.size + index * CELL.size


def _boot_hash(boot_id: str) -> bytes:
    return hashlib.blake2b(boot_id.encode(), digest_size=16).digest()
