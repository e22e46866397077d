"""
A plan as a CSV file that a person may edit: one action a row, written by ``plan --output``, read by ``--on-change PLANFILE``.

    action,key,status,position,digest
    redo,r0010,changed,10,9f86d081884c7d659a2feaa0c55ad015

Rows stand for themselves: they may be left out, sorted, or given another action. What they are about is known by the key; a new row of the
input that has none by its position and digest. The digest says which payload was decided about.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from durabatch.errors import InputError, OutputError
from durabatch.intake.problems import cannot_read, did_you_mean, printable
from durabatch.ledger.scratch import Scratch

__all__ = ["ACTIONS", "COLUMNS", "PlanFile", "PlanRow", "PlanWriter", "read_plan"]

COLUMNS = ("action", "key", "status", "position", "digest")
#: What may be done about an item or a row, and for which statuses each of them makes sense.
ACTIONS = {
    "add": ("new", "back"),
    "redo": ("changed", "same", "gone"),
    "keep": ("new", "back", "changed", "same", "gone"),
    "cancel": ("changed", "same", "gone"),
}
#: Why an action makes no sense for what has become of an item.
MISFITS = {
    "new": "the ledger has no such item",
    "back": "the item is out already",
    "changed": "the item is there already, with another payload",
    "same": "the item is there already",
    "gone": "the input no longer has it",
}
#: Separators that programs write which call the result CSV.
SEPARATORS = ",;\t"
DIGEST_BYTES = 16
#: Rows that nothing applies to are looked for in pages.
PAGE = 1000


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One row of a plan; *digest* is empty where it says nothing about a payload."""

    line: int
    action: str
    key: str
    status: str
    position: int
    digest: bytes


class PlanWriter:
    """
    A plan on its way into a file, a row at a time. A context manager: the file is at *path* when the body has ended well, else what was there before.

    Raises:
        OutputError: It cannot be written. Nothing is left beside it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part = path.with_name(f".{path.name}.part")
        self.file: IO[str] | None = None
        self.rows: Any = None

    def __enter__(self) -> Self:
        """Open the file beside its place."""
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            self.file = open(os.open(self.part, flags, 0o666), "w", encoding="utf-8", newline="")
        except OSError as error:
            raise self.failure(error) from error
        self.rows = csv.writer(self.file, lineterminator="\n")
        self.rows.writerow(COLUMNS)
        return self

    def write(self, action: str, key: str, status: str, position: int, digest: bytes) -> None:
        """Write a row."""
        try:
            self.rows.writerow((action, key, status, position or "", digest.hex()))
        except OSError as error:
            raise self.failure(error) from error

    def __exit__(self, kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None) -> None:
        """Put the file in its place, on disk; after an exception, remove it."""
        assert self.file is not None
        try:
            with self.file as file:
                file.flush()
                os.fsync(file.fileno())
            if kind is None:
                os.replace(self.part, self.path)
        except OSError as error:
            raise self.failure(error) from error
        finally:
            self.part.unlink(missing_ok=True)

    def failure(self, error: OSError) -> OutputError:
        """Return our error for one of the file system's."""
        return OutputError(self.path, f"cannot be written ({error.strerror or error})", "Give another place with --output.")


class PlanFile:
    """
    The rows of a plan, each valid by itself. They are on disk, so that there may be as many as items.

    Attributes:
        path: Where it was read from, as typed.
    """

    def __init__(self, path: str, rows: Iterator[PlanRow]) -> None:
        self.path = path
        self.scratch = Scratch()
        self.scratch.make_plan()
        self.scratch.add_planned((identity(one.key, one.position, one.digest), *fields_of(one)) for one in rows)
        repeated = self.scratch.repeated_planned()
        if repeated is not None:
            line, key, first = repeated
            raise InputError(f"{path}:{line}", f"there is a row for {key!r} on line {first} already", "Leave one of them.")

    def close(self) -> None:
        """Let go of the rows."""
        self.scratch.close()

    def find(self, key: str, position: int, digest: bytes) -> PlanRow | None:
        """Return the row about an item, or a row of the input, or None when there is none."""
        found = self.scratch.planned(identity(key, position, digest))
        return None if found is None else PlanRow(*found)

    def check(self, key: str, status: str, position: int, digest: bytes, misfits: list[str]) -> None:
        """
        Note that there is something that the row about it applies to, and add to *misfits* why that row no longer fits, if it does not.

        Args:
            status: What has become of it: ``new``, ``back``, ``changed``, ``same`` or ``gone``; a repeated row is nothing of its own.
        """
        one = self.find(key, position, digest) if status in MISFITS else None
        if one is None:
            return
        self.scratch.use_planned(identity(key, position, digest))
        why = misfit(one, status, digest)
        if why is not None:
            misfits.append(f"line {one.line}: {one.action} {printable(one.key or f'row {one.position}')}: {why}")

    def unused(self) -> Iterator[PlanRow]:
        """Yield the rows about which :meth:`check` was not asked: there is nothing that they apply to."""
        line = 0
        while page := self.scratch.unused_planned(line, PAGE):
            yield from (PlanRow(*row) for row in page)
            line = page[-1][0]


def misfit(one: PlanRow, status: str, digest: bytes) -> str | None:
    """Return why the row of a plan makes no sense for an item or a row that is *status* now; None when it does."""
    if status not in ACTIONS[one.action]:
        return MISFITS[status]
    if one.action in {"add", "redo"} and one.digest and one.digest != digest and status != "gone":
        return "the input has another payload for it than when the plan was made"
    if one.action == "redo" and one.digest and status == "gone":
        return MISFITS["gone"]
    return None


def identity(key: str, position: int, digest: bytes) -> str:
    """Return what tells the rows of a plan apart."""
    return f"key {key}" if key else f"row {position} {digest.hex()}"


def fields_of(one: PlanRow) -> tuple[Any, ...]:
    """Return the fields of a row in their order."""
    return one.line, one.action, one.key, one.status, one.position, one.digest


def read_plan(path: str) -> PlanFile:
    """
    Return the plan at *path*.

    Raises:
        InputError: It cannot be read, or a line of it is wrong, which is named.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return PlanFile(path, rows_of(path, file))
    except OSError as error:
        raise cannot_read(path, error) from error


def rows_of(path: str, file: IO[str]) -> Iterator[PlanRow]:
    """Yield the rows of an opened plan; InputError at the first line that is wrong."""
    line = 1
    try:
        head = file.readline()
        lines = csv.reader(chain([head], file), delimiter=next((one for one in SEPARATORS if one in head), ","), strict=True)
        names = checked_head(path, next(lines, []))
        for values in lines:
            line = lines.line_num
            if values:
                yield row_of(f"{path}:{line}", line, names, values)
    except csv.Error as error:
        raise InputError(f"{path}:{line + 1}", f"is no CSV ({error})", "Save it as CSV in UTF-8.") from error
    except UnicodeDecodeError as error:
        raise InputError(path, "is not UTF-8", "Save it as CSV in UTF-8.") from error


def checked_head(path: str, names: list[str]) -> list[str]:
    """Return the names of the columns; InputError unless they are those of a plan, in any order."""
    names = [name.strip().lower() for name in names]
    unknown = next((name for name in names if name not in COLUMNS or names.count(name) > 1), None)
    missing = next((name for name in COLUMNS if name not in names), None)
    if unknown is not None:
        raise InputError(f"{path}:1", f"{printable(unknown)!r} is no column of a plan, or stands twice", did_you_mean(unknown, COLUMNS))
    if missing is not None:
        raise InputError(f"{path}:1", f"there is no column {missing!r}", "`durabatch plan --output plan.csv` writes a plan.")
    return names


def row_of(where: str, line: int, names: list[str], values: list[str]) -> PlanRow:
    """Return one row; InputError when it makes no sense by itself."""
    if len(values) != len(names):
        raise InputError(where, f"{len(values)} fields, the head has {len(names)}", "Keep every column.")
    row = dict(zip(names, values, strict=True))
    action = row["action"].strip().lower()
    if action not in ACTIONS:
        raise InputError(where, f"action {printable(row['action'])!r} is not one of {', '.join(ACTIONS)}", did_you_mean(action, ACTIONS))
    position = row["position"].strip() or "0"
    if not (position.isdecimal() and position.isascii() and len(position) < DIGEST_BYTES):
        raise InputError(where, f"position {printable(position)!r} is no number", "Leave positions as the plan has them.")
    digest = checked_digest(where, row["digest"].strip())
    if not row["key"] and not digest:
        raise InputError(where, "neither a key nor a digest: the row is about nothing", "Leave keys and digests as the plan has them.")
    return PlanRow(line, action, row["key"], row["status"].strip(), int(position), digest)


def checked_digest(where: str, text: str) -> bytes:
    """Return the bytes of a digest, none for none; InputError when it is none."""
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b"?"
    if len(digest) not in {0, DIGEST_BYTES}:
        raise InputError(where, f"digest {printable(text[:40])!r} is none", "Leave digests as the plan has them.")
    return digest
