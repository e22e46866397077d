"""
Walking below a directory: the files in the order of their names, component by component, so that the last path says what is done.

Links to files count as files, links to directories are not followed, and everything under version control's own folders is left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from durabatch.errors import InputError
from durabatch.intake.filtering import FileFilter, component_regex
from durabatch.intake.ignoring import IGNORE_FILE, Ignores, ignores_above
from durabatch.intake.problems import cannot_read

__all__ = ["Root", "Walk", "root_of"]

#: Folders (and files, in submodules) of version control.
SKIPPED_NAMES = frozenset({".git", ".hg", ".svn"})
MAGIC = re.compile(r"[*?[]")
#: The component of a pattern that stands for any number of directories.
ANY_DEPTH = "**"


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


@dataclass(frozen=True, slots=True)
class Folder:
    """
    A directory that is walked.

    Attributes:
        below: Its path below the top, ending with a slash; empty for the top.
        states: Where it stands in the pattern.
        ignores: The .gitignore files above it; None when they do not count.
        after: Components below it behind which the walk goes on; empty from its start.
    """

    below: str
    states: frozenset[int]
    ignores: Ignores | None
    after: list[str]


class Walk:
    """
    One walk below a directory. One listing per level is in memory, as names.

    Args:
        root: The directory, and the pattern below it.
        wanted: Which files are wanted; sizes are not looked at here.
        never: Paths without links to leave out, whatever is wanted.
        bad: Hears of a directory that cannot be read; it is passed over when this returns.
    """

    def __init__(self, root: Root, wanted: FileFilter, never: frozenset[str], bad: Callable[[InputError], None]) -> None:
        self._top = root.path or "."
        self._real = os.path.realpath(self._top)
        self._pattern = None if root.pattern is None else [_component(one) for one in root.pattern]
        self._hidden = root.pattern is None and wanted.hidden
        self._length = len(self._pattern or ())
        self._never = never
        self._bad = bad
        self._is_named = wanted.name_test()
        self._is_excluded = wanted.exclusion()
        self._ignores = ignores_above(self._real) if wanted.gitignore else None

    def files(self, after: list[str]) -> Iterator[str]:
        """Yield the paths below the top, behind the path with the components *after*."""
        stack = [self._entries(Folder("", self._reachable({0}), self._ignores, after))]
        while stack:
            found = next(stack[-1], None)
            if found is None:
                stack.pop()
            elif isinstance(found, str):
                yield found
            else:
                stack.append(self._entries(found))

    def _entries(self, folder: Folder) -> Iterator[str | Folder]:
        """Yield the wanted files and the directories in which some may be, by name."""
        names, ignores = self._listing(folder)
        behind = folder.after[0] if folder.after else None
        for name, is_folder in names:
            if behind is not None and (name < behind or (name == behind and not is_folder)):
                continue
            reached = self._step(folder.states, name)
            path = folder.below + name
            if is_folder and reached:
                yield Folder(f"{path}/", reached, ignores, folder.after[1:] if name == behind else [])
            elif not is_folder and self._length in reached and (self._is_named is None or self._is_named(name)):
                yield path

    def _listing(self, folder: Folder) -> tuple[list[tuple[str, bool]], Ignores | None]:
        """Return names, each with whether it is a directory, without what is left out of every walk or of this one, and what is ignored in it."""
        path = os.path.join(self._top, folder.below[:-1]) if folder.below else self._top
        try:
            with os.scandir(path) as entries:
                found = [entry for entry in entries if entry.name not in SKIPPED_NAMES]
            ignores = self._ignores_in(folder, found)
        except (FileNotFoundError, NotADirectoryError):
            return [], folder.ignores
        except OSError as error:
            self._bad(cannot_read(path, error))
            return [], folder.ignores
        if self._never:
            real = os.path.join(self._real, folder.below)
            found = [entry for entry in found if not self._is_barred(entry, real)]
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
        if self._is_excluded is not None or ignores is not None:
            names = [(name, is_folder) for name, is_folder in names if not self._is_left_out(folder, name, is_folder, ignores)]
        return sorted(names), ignores

    def _ignores_in(self, folder: Folder, found: list[os.DirEntry[str]]) -> Ignores | None:
        if folder.ignores is None or not any(entry.name == IGNORE_FILE and entry.is_file() for entry in found):
            return folder.ignores
        return folder.ignores.inside(os.path.join(self._real, folder.below))

    def _is_barred(self, entry: os.DirEntry[str], real: str) -> bool:
        path = os.path.join(real, entry.name)
        return path in self._never or (entry.is_symlink() and os.path.realpath(path) in self._never)

    def _is_left_out(self, folder: Folder, name: str, is_folder: bool, ignores: Ignores | None) -> bool:
        marked = f"{name}/" if is_folder else name
        if self._is_excluded is not None and self._is_excluded(marked, folder.below + marked):
            return True
        return ignores is not None and ignores.name(os.path.join(self._real, folder.below + marked))

    def _step(self, states: frozenset[int], name: str) -> frozenset[int]:
        """Return where the pattern stands after *name*, from where it stood before; its length means matched."""
        is_hidden = name.startswith(".")
        if self._pattern is None:
            return frozenset() if is_hidden and not self._hidden else states
        reached = set()
        for state in states:
            matches = self._pattern[state] if state < self._length else None
            if state == self._length or (is_hidden and not (matches and matches.pattern.startswith("\\."))):
                continue
            if matches is None:
                reached.add(state)
            elif matches.fullmatch(name):
                reached.add(state + 1)
        return self._reachable(reached)

    def _reachable(self, states: set[int]) -> frozenset[int]:
        """Return *states* and those behind a ``**``, which may stand for no directory at all."""
        for state in sorted(states):
            following = state
            while following < self._length and self._pattern is not None and self._pattern[following] is None:
                following += 1
                states = states | {following}
        return frozenset(states)


def _component(text: str) -> re.Pattern[str] | None:
    """Return what names of one component of a pattern look like; None for ``**``."""
    return None if text == ANY_DEPTH else re.compile(component_regex(text), re.S)
