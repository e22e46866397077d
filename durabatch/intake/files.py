"""
Files as items: directories, patterns and plain paths. The key is the path as reached from the argument, the payload path, size and time.

What is neither file nor directory is left out; how directories are walked, and which files are wanted, stand in ``walking`` and ``filtering``.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic_core import to_json

from durabatch.errors import InputError
from durabatch.intake.filtering import FileFilter
from durabatch.intake.keys import UnusableKeyError, key_text
from durabatch.intake.problems import cannot_read, printable
from durabatch.intake.source import Batch, Row
from durabatch.intake.walking import Root, Walk

__all__ = ["FilesPart", "FilesReader"]

#: What the system says of a link that leads nowhere, or round in a circle.
LEADS_NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


@dataclass
class FilesPart:
    """
    Files of one or several arguments that stand side by side.

    Args:
        roots: The arguments in their order.
        filter: Which of the files are wanted.
        never: Paths never taken, nor anything below them: the ledger, its side files, the output.
        skip_bad: Tells whether a file or directory that cannot be an item is passed over; None: it never is.
    """

    roots: list[Root]
    filter: FileFilter = field(default_factory=FileFilter)
    never: Collection[str] = ()
    skip_bad: Callable[[InputError], bool] | None = None
    path: ClassVar[None] = None
    repeatable: ClassVar[bool] = True

    def open(self, state: dict[str, Any] | None, base: int) -> FilesReader:
        """Return a reader behind *state*."""
        return FilesReader(self, state or {"root": 0, "after": None, "count": 0}, base)

    def step_over(self, error: InputError) -> None:
        """Raise *error* unless what is wrong is to be left out."""
        if self.skip_bad is None or not self.skip_bad(error):
            raise error


class FilesReader:
    """Walks the roots of a part."""

    waits = False

    def __init__(self, part: FilesPart, state: dict[str, Any], base: int) -> None:
        self._part = part
        self._state = dict(state)
        self._base = base
        self._never = frozenset(os.path.realpath(path) for path in part.never)
        self._found = self._walk_roots()

    def read(self, max_items: int, max_bytes: int) -> Batch:
        """Return the next files that are there."""
        rows: list[Row] = []
        size = 0
        try:
            for root, path, after in self._found:
                row = self._row(path, self._base + self._state["count"] + 1)
                self._state["root"], self._state["after"] = root, after
                if row is not None:
                    self._state["count"] += 1
                    rows.append(row)
                    size += len(row[1])
                if len(rows) >= max_items or size >= max_bytes:
                    return Batch(rows, size)
        except InputError as error:
            return Batch(rows, size, error)
        return Batch(rows, size, ended=True)

    def _walk_roots(self) -> Iterator[tuple[int, str, str]]:
        """Yield (root, path, path below the root) of every file from the state on."""
        begin, after = self._state["root"], self._state["after"]
        for number in range(begin, len(self._part.roots)):
            root = self._part.roots[number]
            prefix = os.path.join(root.path, "") if root.path else ""
            for below in self._walk(root, after if number == begin else None):
                yield number, prefix + below if below else root.path, below

    def _walk(self, root: Root, after: str | None) -> Iterator[str]:
        top = root.path or "."
        if os.path.realpath(top) in self._never:
            return
        if os.path.isdir(top):
            yield from Walk(root, self._part.filter, self._never, self._part.step_over).files(after.split("/") if after else [])
        elif after is None:
            yield from self._single(root)

    def _single(self, root: Root) -> Iterator[str]:
        try:
            os.stat(root.path)
        except OSError as error:
            raise cannot_read(root.path, error) from error
        name = os.path.basename(root.path)
        is_named, is_excluded = self._part.filter.name_test(), self._part.filter.exclusion()
        if root.pattern is None and (is_named is None or is_named(name)) and not (is_excluded and is_excluded(name, name)):
            yield ""

    def _row(self, path: str, position: int) -> Row | None:
        """Return the item of *path*; None when it is no file (any more) or none that is wanted."""
        try:
            status = os.stat(path)
        except OSError as error:
            if error.errno not in LEADS_NOWHERE:
                self._part.step_over(cannot_read(path, error))
            return None
        if not stat.S_ISREG(status.st_mode) or not self._part.filter.fits(status.st_size):
            return None
        try:
            path.encode()
            key = key_text(path)
        except UnicodeEncodeError:
            hint = "Rename it, or leave it out with --include or --exclude."
            self._part.step_over(InputError(printable(path), "the name of the file is not UTF-8", hint))
            return None
        except UnusableKeyError as error:
            self._part.step_over(InputError(printable(path), str(error)))
            return None
        return key, to_json({"path": path, "bytes": status.st_size, "mtime": status.st_mtime}).decode(), position

    def state(self) -> dict[str, Any]:
        """Return the root, the last path below it, and the files so far."""
        return dict(self._state)

    def position(self) -> int:
        """Return the position of the last file."""
        return int(self._base + self._state["count"])

    def ready(self) -> bool:
        """Files are always ready."""
        return True

    def close(self) -> None:
        """Nothing is open between two reads."""
