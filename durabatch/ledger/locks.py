"""
Kernel locks on side files: who coordinates, whose turn it is to write, and whether old workers live.

``flock`` belongs to the open file description: the kernel frees it when the last process that holds it is gone, at once and without
any clock. The ledger itself is never locked this way and never opened here.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import weakref
from collections.abc import Iterator

from pydantic_core import from_json, to_json

from durabatch.errors import LedgerInUseError, LedgerPathError
from durabatch.ledger.paths import LedgerFiles, shown

__all__ = ["Ownership", "TurnLock", "WorkersLock", "holder_of"]

MODE = 0o600
#: Whoever asks who holds a ledger holds its lock for microseconds: a coordinator looks so often, so many seconds apart, before it gives up.
LOOKS, LOOK_S = 10, 0.02


def open_side_file(path: str) -> int:
    """Return a descriptor of the side file at *path*, made for this user alone; a link in its place is refused."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
    except OSError as error:
        raise LedgerPathError(shown(path), error.strerror or str(error), "The ledger needs its side files; check the directory's permissions.") from error


def is_current(descriptor: int, path: str) -> bool:
    """Tell whether *descriptor* is still what *path* names."""
    try:
        named, held = os.stat(path), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)


def holder_of(files: LedgerFiles) -> dict[str, object] | None:
    """Return what the present coordinator wrote about itself, or None when nobody owns the ledger. Takes no lock for longer than the look."""
    try:
        descriptor = os.open(files.owner, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return read_holder(descriptor)
    finally:
        os.close(descriptor)
    return None


def read_holder(descriptor: int) -> dict[str, object]:
    """Return the holder's own words; an empty mapping while it has not written them yet."""
    try:
        value = from_json(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


class Ownership:
    """
    The right to coordinate a ledger, held until ``release`` or the end of the process.

    Raises:
        LedgerInUseError: Another coordinator has it. Nothing was changed.
    """

    def __init__(self, files: LedgerFiles, about: dict[str, object]) -> None:
        self.files = files
        self.descriptor = self.acquire()
        HELD.add(self)
        self.describe(about)

    def acquire(self) -> int:
        """Return a locked descriptor of the file that has the name now; a file swapped between open and lock is let go again."""
        tries = 0
        while True:
            descriptor = open_side_file(self.files.owner)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tries += 1
                holder = read_holder(descriptor)
                os.close(descriptor)
                if tries == LOOKS:
                    raise in_use(self.files, holder) from None
                time.sleep(LOOK_S)
                continue
            if is_current(descriptor, self.files.owner):
                return descriptor
            os.close(descriptor)

    def describe(self, about: dict[str, object]) -> None:
        """Write who holds the ledger, for those who are refused."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, to_json(about), 0)

    def release(self) -> None:
        """Let others coordinate. The file stays; only its lock goes."""
        if self.descriptor >= 0:
            os.ftruncate(self.descriptor, 0)
        self.let_go()

    def let_go(self) -> None:
        """Close this process's copy of the lock, as a forked child does: the lock is its parent's."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def in_use(files: LedgerFiles, holder: dict[str, object]) -> LedgerInUseError:
    """Return the error that names the holder."""
    run = f", run {holder['run']}" if holder.get("run") else ""
    who = f"in use by pid {holder.get('pid', '?')} ({holder.get('host', 'this host')}{run}, since {holder.get('since', '?')})"
    return LedgerInUseError(
        shown(files.ledger), who, "`durabatch status`, `items`, `results`, `errors` and `sql` work meanwhile; wait, stop it, or use another --ledger."
    )


class TurnLock:
    """
    The turn to write. SQLite's own waiting is unfair to a busy writer; a queue of ``flock`` waiters is not.

    Taken before BEGIN IMMEDIATE, given back after COMMIT, by every durabatch process that writes.

    Attributes:
        longest_wait_s: The longest that this process has waited for its turn.
    """

    def __init__(self, files: LedgerFiles) -> None:
        self.descriptor = open_side_file(files.turn)
        self.longest_wait_s = 0.0
        HELD.add(self)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the turn for the body."""
        asked_s = time.monotonic()
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        self.longest_wait_s = max(self.longest_wait_s, time.monotonic() - asked_s)
        try:
            yield
        finally:
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the descriptor back."""
        self.let_go()

    def let_go(self) -> None:
        """Close this process's copy of the lock: in a forked child it would outlive a parent that is killed in its turn."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class WorkersLock:
    """The lock that all workers of a ledger share; a coordinator may start new ones only when it can have it alone."""

    def __init__(self, files: LedgerFiles) -> None:
        self.path = files.workers
        self.descriptor = open_side_file(files.workers)
        HELD.add(self)

    def is_free(self) -> bool:
        """Tell whether no worker of another coordinator lives. On True the lock is held alone until ``share``."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def share(self) -> int:
        """Return a descriptor that holds the lock shared, to be inherited by workers."""
        fcntl.flock(self.descriptor, fcntl.LOCK_SH)
        return self.descriptor

    def close(self) -> None:
        """Give our own share back; workers keep theirs."""
        self.let_go()

    def let_go(self) -> None:
        """Close this process's copy of the lock."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


#: Locks of this process. A forked child closes its copies at once: else the ledger would stay taken for as long as the child lives.
HELD: weakref.WeakSet[Ownership | TurnLock | WorkersLock] = weakref.WeakSet()


def let_go_in_child() -> None:
    """Close the copies that a forked child was given."""
    for lock in list(HELD):
        lock.let_go()


os.register_at_fork(after_in_child=let_go_in_child)
