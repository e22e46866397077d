"""
Power loss and failing disks without a machine: a SQLite VFS that records what goes to storage, and may refuse to do it.

    Recorder, CrashVFS    every call that changes storage becomes an event, between the marks of the test
    disk_after            what a disk may hold when power went just before one of the events, by five models of damage
    Fault                 the n-th call of one kind fails, once or from then on, with or without half of its bytes written

Only what goes through SQLite is seen. The shared-memory file is never synced and is in no image. One recorder sees one process.
"""

from __future__ import annotations

import collections
import itertools
import os
import shutil
from dataclasses import dataclass, field

import apsw

SECTOR = 512
#: What may have become of writes that were not synced:
#: none: all lost · all: all there, the same as kill -9 · prefix: the first ones there, the next one torn at a sector
#: random: each sector there or not · garbage: as random, and new space that was lost holds anything
MODELS = ("none", "all", "prefix", "random", "garbage")
numbers = itertools.count()


@dataclass
class Recorder:
    """What changed storage, in order: ("found", path, content), ("write", path, offset, data), ("sync", path), …, ("mark", value)."""

    events: list[tuple] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.known = {event[1] for event in self.events if len(event) > 2}

    def add(self, *event) -> None:
        self.events.append(event)

    def find(self, path: str) -> None:
        """Note what stands in a file that was not made through SQLite. Its first descriptor: a later one would drop SQLite's locks."""
        if path not in self.known and os.path.exists(path):
            with open(path, "rb") as file:
                self.add("found", path, file.read())
        self.known.add(path)

    def mark(self, value) -> None:
        """Note something that the test wants to find again among the events."""
        self.add("mark", value)


@dataclass
class Fault:
    """Call number *n* (from 1) of *op* fails with SQLite's result *code*; also all later ones when *persist*; half of it is written when *torn*."""

    op: str
    n: int
    code: int
    persist: bool = False
    torn: bool = False
    only: str = ""
    seen: int = 0
    fired: int = 0

    def hits(self, op: str, path: str) -> bool:
        if op != self.op or not path.endswith(self.only):
            return False
        self.seen += 1
        if self.seen == self.n or (self.persist and self.seen > self.n):
            self.fired += 1
            return True
        return False

    def error(self) -> Exception:
        return apsw.exception_for(self.code)


class CrashFile(apsw.VFSFile):
    """One open file."""

    def __init__(self, vfs, name, flags) -> None:
        self.vfs = vfs
        # A name is None for temporary files.
        self.path = name.filename() if isinstance(name, apsw.URIFilename) else (name or "")
        is_new = bool(flags[0] & apsw.SQLITE_OPEN_CREATE) and not os.path.exists(self.path)
        is_log = bool(flags[0] & (apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL))
        # The unix VFS syncs the directory with the first sync of a new log.
        self.syncs_directory = is_new and is_log
        if self.path and not self.path.endswith("-shm"):
            vfs.recorder.find(self.path)
        super().__init__(vfs.base, name, flags)
        if is_new and self.path:
            vfs.recorder.add("create", self.path)

    def fails(self, op: str) -> bool:
        return self.vfs.fault is not None and self.vfs.fault.hits(op, self.path)

    def xWrite(self, data, offset) -> None:
        data = bytes(data)
        if self.fails("xWrite"):
            half = data[: len(data) // 2]
            if self.vfs.fault.torn and half:
                self.vfs.recorder.add("write", self.path, offset, half)
                super().xWrite(half, offset)
            raise self.vfs.fault.error()
        self.vfs.recorder.add("write", self.path, offset, data)
        super().xWrite(data, offset)

    def xTruncate(self, newsize) -> None:
        if self.fails("xTruncate"):
            raise self.vfs.fault.error()
        self.vfs.recorder.add("truncate", self.path, newsize)
        super().xTruncate(newsize)

    def xSync(self, flags) -> None:
        if self.fails("xSync"):
            raise self.vfs.fault.error()
        super().xSync(flags)
        self.vfs.recorder.add("sync", self.path)
        if self.syncs_directory:
            self.syncs_directory = False
            self.vfs.recorder.add("dirsync")

    def xLock(self, level) -> None:
        try:
            super().xLock(level)
        except apsw.IOError as error:
            # A read-only file cannot be locked for writing. C code gives up on that silently; only this exception is silent here.
            raise apsw.BusyError("not lockable") from error

    def xRead(self, amount, offset) -> bytes:
        if self.fails("xRead"):
            raise self.vfs.fault.error()
        return super().xRead(amount, offset)


class CrashVFS(apsw.VFS):
    """The usual VFS with a recorder, and perhaps a fault. A context manager; ``name`` is what connections ask for."""

    def __init__(self, recorder: Recorder, fault: Fault | None = None) -> None:
        self.recorder, self.fault, self.base = recorder, fault, ""
        self.name = f"crash{next(numbers)}"
        super().__init__(self.name, self.base)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.unregister()

    def xOpen(self, name, flags) -> CrashFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else (name or "")
        if self.fault is not None and self.fault.hits("xOpen", path):
            raise self.fault.error()
        return CrashFile(self, name, flags)

    def xDelete(self, filename, syncdir) -> None:
        if self.fault is not None and self.fault.hits("xDelete", filename):
            raise self.fault.error()
        super().xDelete(filename, syncdir)
        self.recorder.add("delete", filename)
        if syncdir:
            self.recorder.add("dirsync")


def apply(content: bytearray, event) -> None:
    """Do a write or a truncation to the bytes of a file."""
    if event[0] == "truncate":
        size = event[2]
        del content[size:]
        content.extend(bytes(size - len(content)))
        return
    _, _, offset, data = event
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


class Disk:
    """A disk to which events happen: what is durable, and what may still be lost."""

    def __init__(self, start: dict[str, bytes] | None = None) -> None:
        self.durable = {path: bytearray(content) for path, content in (start or {}).items()}
        self.pending: list[tuple] = []
        #: Files that were deleted, with what was in them, while the directory is not synced.
        self.gone: dict[str, bytearray] = {}

    def happen(self, event) -> None:
        """Let one event happen; marks change nothing."""
        op, path = event[0], event[1] if len(event) > 1 else ""
        if op in ("write", "truncate"):
            self.pending.append(event)
        elif op == "sync":
            for one in self.take_pending(path):
                apply(self.durable.setdefault(path, bytearray()), one)
        elif op == "found":
            self.durable[path] = bytearray(event[2])
        elif op == "create":
            self.durable.setdefault(path, bytearray())
        elif op == "delete":
            self.gone[path] = self.durable.pop(path, bytearray())
            self.take_pending(path)
        elif op == "dirsync":
            self.gone.clear()

    def take_pending(self, path: str) -> list[tuple]:
        """Remove and return what is pending for one file."""
        taken = [event for event in self.pending if event[1] == path]
        self.pending = [event for event in self.pending if event[1] != path]
        return taken

    def after_power_loss(self, model: str, rng) -> dict[str, bytes]:
        """Return the files that are found when the machine starts again."""
        files = collections.defaultdict(bytearray, {path: bytearray(content) for path, content in self.durable.items()})
        for path, content in self.gone.items():
            if path not in files and (model == "none" or (model != "all" and rng.random() < 0.5)):
                files[path] = bytearray(content)
        if model == "prefix":
            self.keep_prefix(files, rng)
        elif model != "none":
            for event in self.pending:
                self.keep_some(files[event[1]], event, model, rng)
        return {path: bytes(content) for path, content in files.items() if not path.endswith("-shm")}

    def keep_prefix(self, files, rng) -> None:
        """Let a random number of the pending operations be done, and the next one in part."""
        count = rng.randint(0, len(self.pending))
        for event in self.pending[:count]:
            apply(files[event[1]], event)
        if count < len(self.pending) and self.pending[count][0] == "write":
            _, path, offset, data = self.pending[count]
            part = data[: SECTOR * rng.randint(0, max(0, (len(data) - 1) // SECTOR))]
            if part:
                apply(files[path], ("write", path, offset, part))

    def keep_some(self, content: bytearray, event, model: str, rng) -> None:
        """Let one pending operation be done wholly, or sector by sector."""
        if model == "all" or event[0] == "truncate":
            if model == "all" or rng.random() < 0.5:
                apply(content, event)
            return
        _, path, offset, data = event
        position, end_of_data = offset, offset + len(data)
        while position < end_of_data:
            end = min(end_of_data, (position // SECTOR + 1) * SECTOR)
            if rng.random() < 0.5:
                apply(content, ("write", path, position, data[position - offset : end - offset]))
            elif model == "garbage" and position >= len(content):
                apply(content, ("write", path, position, rng.randbytes(end - position)))
            position = end


def disk_after(events, *, start: dict[str, bytes] | None = None) -> Disk:
    """Return a disk to which *events* have happened."""
    disk = Disk(start)
    for event in events:
        disk.happen(event)
    return disk


def put(files: dict[str, bytes], source: str, target: str) -> None:
    """Write the files of an image, recorded below *source*, into the fresh directory *target*."""
    shutil.rmtree(target, ignore_errors=True)
    os.makedirs(target)
    for path, content in files.items():
        with open(os.path.join(target, os.path.relpath(path, source)), "wb") as file:
            file.write(content)


def moved(event, source: str, target: str) -> tuple:
    """Return the event as it would have been recorded below another directory."""
    if event[0] in ("mark", "dirsync"):
        return event
    return (event[0], os.path.join(target, os.path.relpath(event[1], source)), *event[2:])
