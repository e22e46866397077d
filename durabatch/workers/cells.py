"""
What every worker is doing right now, in a memory-mapped file that outlives ``kill -9`` of everybody.

    header   magic, version, cell count, hash of the boot id, run id, cells per worker                64 bytes
    cell     pid, start ticks, item, dispatch, attempt number, started at (wall, monotonic), item     64 bytes, one writer each

A worker has a row of cells, one for each item that it may run at once. A cell is written without locks: fields are stored in order and the item stands in it twice, so a worker killed in the middle of a write
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
VERSION = 2
HEADER = struct.Struct("=8sII16sqI20x")
#: Native order and width: each field is stored by one machine instruction.
CELL = struct.Struct("qqqqqqqq")
#: Where the cell count stands in the header.
COUNT = struct.Struct("=I")
COUNT_OFFSET = 12
OWNER = struct.Struct("qq")
WORK = struct.Struct("qqqqqq")
#: Places of the item among the fields of a cell.
ITEM, ITEM_AGAIN = 2, 7
#: Where :data:`WORK` begins inside a cell.
WORK_OFFSET = OWNER.size


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """
    One thing that a worker does. ``pid`` and ``start_ticks`` name the process; ``item_id`` is None between items.

    That of an undo step is the number of its entry below zero.

    ``started_at_us`` is the wall-clock instant at which the handler was called, in UTC microseconds; ``monotonic_us`` the same instant on
    the monotonic clock, which all processes of one boot share.
    """

    index: int
    pid: int
    start_ticks: int
    item_id: int | None
    dispatch_id: int
    number: int
    started_at_us: int
    monotonic_us: int = 0


class Cells:
    """
    A mapped cells file. Made by the coordinator, written by workers (each its own cells), read by whoever wants to know.

    Attributes:
        count: Number of cells.
        run_id: The run whose workers write them.
        per_worker: Cells of one worker; worker *n* has those from ``(n - 1) * per_worker`` on.
    """

    def __init__(self, path: str, mapped: mmap.mmap | None, count: int, run_id: int, per_worker: int) -> None:
        self.count = count
        self.run_id = run_id
        self.per_worker = per_worker
        self._path = path
        self._mapped = mapped

    @classmethod
    def create(cls, path: str | os.PathLike[str], count: int, boot_id: str, run_id: int, per_worker: int = 1) -> Cells:
        """
        Replace whatever is at *path* by a file of *count* empty cells, readable and writable by this user only.

        Processes that have the old file mapped keep the old one; they cannot write into the new one.
        """
        content = HEADER.pack(MAGIC, VERSION, count, _boot_hash(boot_id), run_id, per_worker) + bytes(count * CELL.size)
        fresh = f"{os.fspath(path)}.new"
        Path(fresh).unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content)
        os.replace(fresh, path)
        return cls.open(path, boot_id)

    @classmethod
    def open(cls, path: str | os.PathLike[str], boot_id: str) -> Cells:
        """Return the cells at *path*; none at all when it is missing, damaged, not ours or of another boot."""
        place = os.fspath(path)
        try:
            # Appending, so that a handler that writes to every descriptor it finds cannot overwrite the cells of others.
            descriptor = os.open(place, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return cls(place, None, 0, 0, 1)
        try:
            return cls._mapped_from(place, descriptor, boot_id)
        except (OSError, ValueError):
            return cls(place, None, 0, 0, 1)
        finally:
            os.close(descriptor)

    @classmethod
    def _mapped_from(cls, path: str, descriptor: int, boot_id: str) -> Cells:
        header = os.pread(descriptor, HEADER.size, 0).ljust(HEADER.size, b"\0")
        magic, version, count, boot_hash, run_id, per_worker = HEADER.unpack(header)
        size = HEADER.size + count * CELL.size
        if (magic, version, boot_hash) != (MAGIC, VERSION, _boot_hash(boot_id)) or per_worker < 1 or os.fstat(descriptor).st_size < size:
            return cls(path, None, 0, 0, 1)
        return cls(path, mmap.mmap(descriptor, size), count, run_id, per_worker)

    def grow(self, count: int) -> None:
        """
        Have *count* cells, the new ones empty; fewer than there are changes nothing. For the coordinator alone.

        Workers started before keep the cells they know. What was mapped before stays valid as long as somebody looks through it.

        Raises:
            OSError: No room on the disk, or the file is gone. The cells are as they were.
        """
        if self._mapped is None or count <= self.count:
            return
        end = HEADER.size + self.count * CELL.size
        size = HEADER.size + count * CELL.size
        with open(os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), "r+b") as file:
            file.seek(end)
            file.write(bytes(size - end))
            file.flush()
            mapped = mmap.mmap(file.fileno(), size)
        # The room is there and empty before anybody is told of it.
        COUNT.pack_into(mapped, COUNT_OFFSET, count)
        self._mapped, self.count = mapped, count

    def occupy(self, index: int, pid: int, start_ticks: int) -> None:
        """Give the cell to a process; it shows no item. IndexError when there is no such cell."""
        CELL.pack_into(self._map_of(index), self._offset(index), pid, start_ticks, 0, 0, 0, 0, 0, 0)

    def enter(self, index: int, item_id: int, dispatch_id: int, number: int, started_at_us: int, monotonic_us: int = 0) -> None:
        """Show that the handler is about to be called with the item."""
        place = self._offset(index) + WORK_OFFSET
        WORK.pack_into(self._map_of(index), place, item_id, dispatch_id, number, started_at_us, monotonic_us, item_id)

    def leave(self, index: int) -> None:
        """Show that no item runs. Called after the outcome is in the worker's memory, ready to be sent."""
        WORK.pack_into(self._map_of(index), self._offset(index) + WORK_OFFSET, 0, 0, 0, 0, 0, 0)

    def at(self, index: int) -> Cell:
        """Return the cell at *index*; an empty one (pid 0) when there is no such cell."""
        if self._mapped is None or not 0 <= index < self.count:
            return Cell(index, 0, 0, None, 0, 0, 0)
        pid, start_ticks, item_id, dispatch_id, number, started_at_us, monotonic_us, again = CELL.unpack_from(
            self._mapped, self._offset(index)
        )
        if item_id == 0 or item_id != again:
            return Cell(index, pid, start_ticks, None, 0, 0, 0)
        return Cell(index, pid, start_ticks, item_id, dispatch_id, number, started_at_us, monotonic_us)

    def of_worker(self, number: int) -> list[Cell]:
        """Return those cells of worker *number*, counted from 1, that show an item."""
        first = (number - 1) * self.per_worker
        last = min(first + self.per_worker, self.count)
        if self._mapped is None or not 0 <= first < last:
            return []
        # All of them at once: a worker may have thousands, and is looked at several times a second.
        raw = self._mapped[self._offset(first) : self._offset(last)]
        return [
            Cell(index, *fields[:7])
            for index, fields in enumerate(CELL.iter_unpack(raw), first)
            if fields[ITEM] != 0 and fields[ITEM] == fields[ITEM_AGAIN]
        ]

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
