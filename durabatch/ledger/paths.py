"""
Where a ledger may live, and the names of its side files. Nothing here opens the ledger: ``stat`` drops no lock, ``open`` would.

A descriptor of the ledger opened beside SQLite's own and closed again takes SQLite's POSIX locks away
(https://www.sqlite.org/howtocorrupt.html, section 2.2), so all checks are made by name, before the connection exists.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from durabatch.errors import LedgerMissingError, LedgerPathError, UsageError

__all__ = ["LedgerFiles", "check_kind", "check_place", "facts_of", "ledger_files", "missing_hint", "shown"]

#: File systems on which SQLite's write-ahead log does not work, since its index is shared memory of one host.
NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs", "fuse.glusterfs"})
#: A ledger's pages and its log need some room before the first item is done.
MIN_FREE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class LedgerFiles:
    """The ledger and everything that stands beside it."""

    ledger: str
    wal: str
    shm: str
    #: Held by the one coordinator; its text says who.
    owner: str
    #: Held for the time of one write transaction, so that writers take turns.
    turn: str
    #: Held by every worker, shared: free only when all are gone.
    workers: str
    #: What each worker runs right now, memory-mapped.
    cells: str
    #: What handlers print.
    log: str

    def all(self) -> tuple[str, ...]:
        """Return every path of the ledger, for sources that must not read it as input."""
        return (self.ledger, self.wal, self.shm, self.owner, self.turn, self.workers, self.cells, self.log)


def ledger_files(path: str | os.PathLike[str], *, option: str = "--ledger") -> LedgerFiles:
    """
    Return the files of the ledger at *path*, links resolved; errors name the *option* that gave it.

    Raises:
        UsageError: The text cannot be a path (empty, in memory, NUL, not UTF-8, a loop of links).
    """
    text = os.fspath(path)
    if not text:
        raise UsageError(f"{option}: empty path", "Give a file, e.g. durabatch.db.")
    if text == ":memory:" or text.startswith("file:"):
        raise UsageError(f"{option}: {text!r} cannot be resumed", "Give a file path.")
    try:
        text.encode()
        real = os.path.realpath(text, strict=False)
        if os.path.islink(real) or (os.path.islink(text) and not os.path.exists(text)):
            raise UsageError(f"{option}: {shown(text)} is a symbolic link that leads nowhere", "Give the file itself.")
        os.stat(os.path.dirname(real))
    except (ValueError, UnicodeEncodeError) as error:
        raise UsageError(f"{option}: {shown(text)} is not a usable path ({error})", "Give another file.") from error
    except FileNotFoundError:
        folder = os.path.dirname(real)
        raise UsageError(f"{option}: directory {shown(folder)} does not exist", "Create it or choose another.") from None
    except NotADirectoryError:
        raise UsageError(f"{option}: {shown(os.path.dirname(real))} is not a directory", "Choose another place.") from None
    except OSError as error:
        raise UsageError(f"{option}: {shown(text)}: {error.strerror}", "Choose another place.") from error
    names = (real + suffix for suffix in ("", "-wal", "-shm", ".lock", ".turn", ".workers", ".cells", ".log"))
    return LedgerFiles(*names)


def check_place(files: LedgerFiles, *, create: bool, allow_network_fs: bool) -> None:
    """
    Make sure that the ledger is, or can become, an ordinary file of this user in a safe place.

    Raises:
        UsageError: The path is a directory, a device, or too long.
        LedgerMissingError: There is no file and *create* is False.
        LedgerPathError: Unsafe directory, other owner, several names, network file system, no permission, no room.
    """
    check_directory(files, allow_network_fs=allow_network_fs)
    facts = facts_of(files)
    if facts is not None:
        check_file(files, facts)
    elif create:
        check_new(files)
    else:
        raise LedgerMissingError(shown(files.ledger), "there is no such ledger", missing_hint(files.ledger))


def facts_of(files: LedgerFiles) -> os.stat_result | None:
    """Return what is known of the ledger's file, None when there is none; UsageError when there can be none under that name."""
    try:
        return os.stat(files.ledger)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"--ledger: {shown(files.ledger)}: {error.strerror}", "Choose another file.") from error


def check_file(files: LedgerFiles, facts: os.stat_result) -> None:
    """Refuse what is not a plain file with one name that belongs to this user."""
    check_kind(files, facts)
    if facts.st_uid != os.geteuid() and os.geteuid() != 0:
        raise LedgerPathError(shown(files.ledger), "belongs to another user", "Copy it, or run as its owner.")


def check_kind(files: LedgerFiles, facts: os.stat_result) -> None:
    """Refuse what is not a plain file with one name: under a second name its log would not be found."""
    name = shown(files.ledger)
    if stat.S_ISDIR(facts.st_mode):
        raise UsageError(f"--ledger: {name} is a directory", f"Give a file, e.g. {name}/ledger.db.")
    if not stat.S_ISREG(facts.st_mode):
        raise UsageError(f"--ledger: {name} is {kind_of(facts.st_mode)}, not a file", "Give a file path.")
    if facts.st_nlink != 1:
        raise LedgerPathError(name, f"has {facts.st_nlink} names (hard links)", "Two names mean two logs for one file; use one and remove the others.")


def check_directory(files: LedgerFiles, *, allow_network_fs: bool) -> None:
    """Refuse a directory in which other users may swap the ledger, and file systems without shared memory."""
    folder = os.path.dirname(files.ledger)
    mode = os.stat(folder).st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise LedgerPathError(
            shown(files.ledger), f"everybody may replace files in {shown(folder)}", f"Run `chmod o-w {shown(folder)}` or use another directory."
        )
    kind = file_system(folder)
    if kind in NETWORK_FILE_SYSTEMS and not allow_network_fs:
        raise LedgerPathError(
            shown(files.ledger), f"lies on a network file system ({kind})", "Use a local disk, or --allow-network-fs if only this host ever opens it."
        )


def check_new(files: LedgerFiles) -> None:
    """Refuse a place where the first page could not be written."""
    folder = os.path.dirname(files.ledger)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise LedgerPathError(shown(files.ledger), f"no permission to write in {shown(folder)}", "Choose another directory.")
    room = os.statvfs(folder)
    free = room.f_bavail * room.f_frsize
    if free < MIN_FREE_BYTES:
        raise LedgerPathError(
            shown(files.ledger), f"needs about {MIN_FREE_BYTES >> 20} MiB to start, {free >> 20} MiB are free", "Make room or choose another disk."
        )


def kind_of(mode: int) -> str:
    """Return the kind of a file that is neither plain nor a directory, with its article."""
    kinds = ((stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((name for is_kind, name in kinds if is_kind(mode)), "a special file")


def shown(path: str) -> str:
    """Return *path* as it may be printed: relative when it lies below here, control characters escaped."""
    here = os.getcwd() + os.sep
    short = path.removeprefix(here)
    return short.encode("unicode_escape").decode() if not short.isprintable() else short


def missing_hint(path: str) -> str:
    """Name the ledgers that are there instead."""
    others = sorted(str(other.name) for other in Path(path).parent.glob("*.db"))[:3]
    return f"There is {', '.join(others)}; use --ledger." if others else "`durabatch run` makes one."


def file_system(folder: str) -> str:
    """Return the type of the file system that holds *folder*, as /proc/self/mountinfo names it; '' where that is not known."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    for line in lines:
        left, _, right = line.partition(" - ")
        mount = left.split()[4].encode().decode("unicode_escape")
        inside = folder == mount or folder.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, right.split()[0]
    return kind
