"""
A copy of a ledger that is in use, as of one moment: copied in steps beside its place, synced, checked, then renamed into it.

The snapshot that is copied keeps the log of the original from being cut for that time; nobody who works on the ledger waits for the copy.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

import apsw
from pydantic_core import to_json

from durabatch import errors
from durabatch.ledger import statements
from durabatch.ledger.creating import MODE, NO_ROOM, sync_directory
from durabatch.ledger.executor import BORDER_ERRORS, Executor, harden, translate
from durabatch.ledger.paths import LedgerFiles, ledger_files, shown

__all__ = ["back_up", "copy_to"]

#: Pages copied at once.
STEP_PAGES = 5000


def back_up(source: Executor, path: str | os.PathLike[str], *, force: bool, now_us: int) -> tuple[str, int]:
    """
    Put a copy of the ledger at *path* and return that, absolute, and its bytes; on return it is on disk, checked, and complete by itself.

    Args:
        force: Replace a file that is there.

    Raises:
        UsageError: There is a file already, or no copy can be there. Nothing was changed.
        LedgerError: The copy could not be made. What stood at *path* is there still, and nothing is left beside it.
    """
    target = ledger_files(path, option="FILE")
    refuse_place(source.files, target, force=force)
    copy_to(source, target.ledger, note=lambda copy: note_origin(copy, source.files, now_us))
    return target.ledger, os.path.getsize(target.ledger)


def refuse_place(source: LedgerFiles, target: LedgerFiles, *, force: bool) -> None:
    """Refuse a place where a copy would destroy something."""
    name = shown(target.ledger)
    if {target.ledger, f"{target.ledger}.part"} & {*source.all(), f"{source.ledger}-journal"}:
        raise errors.UsageError(f"{name} is the ledger itself, or stands beside it for its use", "Give another file for the copy.")
    if os.path.isdir(target.ledger):
        raise errors.UsageError(f"{name} is a directory", f"Give a file, e.g. {name}/backup.db.")
    if os.path.exists(target.ledger) and not force:
        raise errors.UsageError(f"{name} is there already", "Give another file, or --force to replace it.")
    for left in (target.wal, f"{target.ledger}-journal"):
        # Who looks at a ledger leaves an empty log.
        if os.path.exists(left) and os.path.getsize(left):
            raise errors.UsageError(
                f"{shown(left)} is there: it belongs to another database of that name", "Give another file, or end its use first."
            )


def note_origin(copy: apsw.Connection, source: LedgerFiles, now_us: int) -> None:
    """Have a copy say that it is one: whoever takes it up knows why nobody is at work on it, and nothing beside it is missing."""
    detail = to_json({"ledger": source.ledger}).decode()
    copy.execute(statements.named()["event_insert"], {"run_id": None, "kind": "copied", "happened_at_us": now_us, "detail": detail})


def copy_to(source: Executor, target: str, *, note: Callable[[apsw.Connection], None] | None = None) -> None:
    """
    Copy a ledger to *target*, in place of what is there, as :func:`back_up` does.

    Args:
        note: Writes into the copy before it gets its name.
    """
    part = f"{target}.part"
    try:
        remove(part)
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE))
        fill(source, part, note)
        sync_file(part)
        remove_sides(target)
        os.replace(part, target)
        sync_directory(os.path.dirname(target))
    except BORDER_ERRORS as error:
        raise translate(error, target) from error
    except OSError as error:
        what = "the disk is full" if error.errno in NO_ROOM else error.strerror or str(error)
        kind = errors.LedgerFullError if error.errno in NO_ROOM else errors.LedgerPathError
        raise kind(shown(target), f"cannot be written ({what})", "Make room, or give another file.") from error
    finally:
        remove(part)


def remove(part: str) -> None:
    """Remove an unfinished copy, and what SQLite has put beside it."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part)
    remove_sides(part)


def remove_sides(path: str) -> None:
    """Remove what SQLite has put beside a database: it would be played into the next one of that name."""
    for suffix in ("-wal", "-shm", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)


def fill(source: Executor, part: str, note: Callable[[apsw.Connection], None] | None) -> None:
    """Copy all pages, as of one moment, and have SQLite look at them."""
    with contextlib.closing(apsw.Connection(part)) as copy:
        with source.snapshot():
            # A transaction that has read nothing yet is as of no moment. Ledgers of every version answer this.
            source.value("item_last_id")
            with copy.backup("main", source.raw, "main") as backup:
                while not backup.done:
                    backup.step(STEP_PAGES)
        harden(copy)
        if note is not None:
            note(copy)
            copy.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        damage = copy.pragma("quick_check")
        if damage != "ok":
            raise errors.LedgerDamagedError(
                shown(source.files.ledger), f"is damaged: its copy was not kept ({damage})", "See `durabatch verify`."
            )


def sync_file(path: str) -> None:
    """Have what stands in a file on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
