"""
Files as items: directories, patterns and plain paths. The key is the path as reached from the argument, the payload path, size and time.

The order is that of the names, component by component, so that the last path says what is done. Links to files count as files, links to
directories are not followed, and what is neither file nor directory is left out; so is everything under version control's own folders.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json

from durabatch.errors import InputError, UsageError
from durabatch.intake.keys import UnusableKeyError, key_text
from durabatch.intake.problems import cannot_read, printable
from durabatch.intake.source import Batch, Row

__all__ = ["FilesPart", "Root", "check_include", "root_of"]

#: Folders (and files, in submodules) of version control.
SKIPPED_NAMES = frozenset({".git", ".hg", ".svn"})
MAGIC = re.compile(r"[*?[]")


@dataclass(frozen=True, slots=True)
class Root:
    """
    One argument: a directory, a file, or the fixed beginning of a pattern.

    Attributes:
        path: Where it begins, as typed; empty for the current directory of a pattern.
        pattern: What the names below must look like, one component each (``**``: any number of directories); None takes all.
    """

    path: str
    pattern: tuple[str, ...] | None = None


def root_of(argument: str) -> Root:
    """Return what *argument* stands for. An existing file or directory is itself, whatever characters its name has."""
    if os.path.lexists(argument) or not MAGIC.search(argument):
        return Root(argument)
    components = [component for component in argument.split("/")[1:] if component] if argument.startswith("/") else argument.split("/")
    fixed = next(index for index, component in enumerate(components) if MAGIC.search(component))
    start = "/" if argument.startswith("/") else ""
    return Root(start + "/".join(components[:fixed]), tuple(component for component in components[fixed:] if component))


@dataclass
class FilesPart:
    """
    Files of one or several arguments that stand side by side.

    Args:
        roots: The arguments in their order.
        include: Patterns for the name of a file, one of which must match; empty takes all.
        exclude: Paths never taken, nor anything below them: the ledger, its side files, the output.
    """

    roots: list[Root]
    include: tuple[str, ...] = ()
    exclude: Collection[str] = ()
    path: None = field(default=None, init=False)

    def open(self, state: dict[str, Any] | None, base: int) -> FilesReader:
        """Return a reader behind *state*."""
        return FilesReader(self, state or {"root": 0, "after": None, "count": 0}, base)


class FilesReader:
    """Walks the roots of a part."""

    waits = False

    def __init__(self, part: FilesPart, state: dict[str, Any], base: int) -> None:
        self._part = part
        self._state = dict(state)
        self._base = base
        self._exclude = frozenset(os.path.realpath(path) for path in part.exclude)
        self._includes = re.compile("|".join(fnmatch.translate(pattern) for pattern in part.include)).match if part.include else None
        self._found = self._walk_roots()

    def read(self, max_items: int, max_bytes: int) -> Batch:
        """Return the next files that are there."""
        rows: list[Row] = []
        size = 0
        try:
            for root, path, after in self._found:
                row = self._row(path, self._base + self._state["count"] + 1)
                self._state |= {"root": root, "after": after}
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
            behind = after if number == begin else None
            for below in self._walk(self._part.roots[number], behind):
                yield number, os.path.join(self._part.roots[number].path, below) if below else self._part.roots[number].path, below

    def _walk(self, root: Root, after: str | None) -> Iterator[str]:
        top = root.path or "."
        real = os.path.realpath(top)
        if real in self._exclude:
            return
        if not os.path.isdir(top):
            if after is None:
                yield from self._single(root)
            return
        walk = Walk(top, real, root.pattern, self._exclude, self._includes)
        yield from walk.files(after.split("/") if after else [])

    def _single(self, root: Root) -> Iterator[str]:
        try:
            os.stat(root.path)
        except OSError as error:
            raise cannot_read(root.path, error) from error
        if root.pattern is None and (self._includes is None or self._includes(os.path.basename(root.path))):
            yield ""

    def _row(self, path: str, position: int) -> Row | None:
        """Return the item of *path*; None when it is no file (any more)."""
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise cannot_read(path, error) from error
        if not stat.S_ISREG(status.st_mode):
            return None
        try:
            path.encode()
            key = key_text(path)
        except UnicodeEncodeError:
            raise InputError(printable(path), "the name of the file is not UTF-8", "Rename it, or leave it out with --include.") from None
        except UnusableKeyError as error:
            raise InputError(printable(path), str(error)) from None
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


class Walk:
    """
    One walk below a directory. One listing per level is in memory, as names.

    Args:
        top: The directory as typed.
        real: Its path without links.
        pattern: See :class:`Root`.
        exclude: Paths without links to leave out.
        includes: Whether the name of a file is wanted; None wants all.
    """

    def __init__(self, top: str, real: str, pattern: tuple[str, ...] | None, exclude: frozenset[str], includes: Any) -> None:
        self._top = top
        self._real = real
        self._pattern = ("**",) if pattern is None else pattern
        self._hidden = pattern is None
        self._exclude = exclude
        self._includes = includes

    def files(self, after: list[str]) -> Iterator[str]:
        """Yield the paths below the top, behind the path with the components *after*."""
        stack = [self._entries([], self._reachable({0}), after)]
        while stack:
            found = next(stack[-1], None)
            if found is None:
                stack.pop()
                continue
            path, states = found
            if states is None:
                yield "/".join(path)
            else:
                stack.append(self._entries(path, states, after if path == after[: len(path)] else []))

    def _entries(self, folder: list[str], states: set[int], after: list[str]) -> Iterator[tuple[list[str], set[int] | None]]:
        """Yield the files (with None) and directories (with where they stand in the pattern) of *folder* by name."""
        depth = len(folder)
        behind = after[depth] if len(after) > depth else None
        for name, is_folder in self._listing(folder):
            if behind is not None and (name < behind or (name == behind and not is_folder)):
                continue
            reached = self._step(states, name)
            if is_folder and reached:
                yield [*folder, name], reached
            elif not is_folder and len(self._pattern) in reached and (self._includes is None or self._includes(name)):
                yield [*folder, name], None

    def _listing(self, folder: list[str]) -> list[tuple[str, bool]]:
        path = os.path.join(self._top, *folder)
        real = os.path.join(self._real, *folder)
        try:
            with os.scandir(path) as entries:
                found = [
                    (entry.name, entry.is_dir(follow_symlinks=False))
                    for entry in entries
                    if entry.name not in SKIPPED_NAMES and not (self._exclude and self._is_excluded(entry, real))
                ]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise cannot_read(path, error) from error
        return sorted(found)

    def _is_excluded(self, entry: os.DirEntry[str], real: str) -> bool:
        path = os.path.join(real, entry.name)
        return path in self._exclude or (entry.is_symlink() and os.path.realpath(path) in self._exclude)

    def _step(self, states: set[int], name: str) -> set[int]:
        """Return where the pattern stands after *name*, from where it stood before; its length means matched."""
        reached = set()
        for state in states:
            if state < len(self._pattern):
                pattern = self._pattern[state]
                if name.startswith(".") and not (self._hidden or pattern.startswith(".")):
                    continue
                if pattern == "**":
                    reached.add(state)
                elif fnmatch.fnmatchcase(name, pattern):
                    reached.add(state + 1)
        return self._reachable(reached)

    def _reachable(self, states: set[int]) -> set[int]:
        """Return *states* and those behind a ``**``, which may stand for no directory at all."""
        for state in sorted(states):
            following = state
            while following < len(self._pattern) and self._pattern[following] == "**":
                following += 1
                states = states | {following}
        return states


def check_include(include: tuple[str, ...]) -> None:
    """Raise UsageError for a pattern that no name of a file can match."""
    for pattern in include:
        if not pattern or "/" in pattern:
            raise UsageError(
                f"--include {pattern!r} matches no file: it is compared with the name alone", "Use '*.py', or a pattern as input."
            )
