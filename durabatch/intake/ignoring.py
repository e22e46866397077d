"""
What .gitignore files name, as git reads them.

Those of every directory count, from the top of the repository down: the nearest one first, and in each the last line that matches.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from durabatch.errors import UsageError
from durabatch.intake.problems import cannot_read

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

__all__ = ["IGNORE_FILE", "Ignores", "check_ignoring", "ignores_above"]

IGNORE_FILE = ".gitignore"


class Ignores:
    """
    The .gitignore files that count in one directory.

    Args:
        rules: Path of the directory without links, ending with a slash, and the rules that stand in it; the nearest last.
    """

    def __init__(self, rules: tuple[tuple[str, GitIgnoreSpec], ...] = ()) -> None:
        self._rules = rules

    def inside(self, folder: str) -> Ignores:
        """Return those that count in *folder*, a path without links that holds a file of its own; InputError when that cannot be read."""
        base = folder if folder.endswith("/") else f"{folder}/"
        return Ignores((*self._rules, (base, _spec(base + IGNORE_FILE))))

    def without(self, path: str) -> Ignores:
        """Return those that do not name the directory *path* itself: an argument is wanted, whatever stands above it."""
        return Ignores(tuple((base, spec) for base, spec in self._rules if not spec.check_file(f"{path[len(base) :]}/").include))

    def name(self, path: str) -> bool:
        """Tell whether *path*, without links and ending with a slash for a directory, is ignored."""
        for base, spec in reversed(self._rules):
            verdict = spec.check_file(path[len(base) :]).include
            if verdict is not None:
                return verdict
        return False


def ignores_above(folder: str) -> Ignores:
    """Return the rules of the directories above *folder* (a path without links), up to the one that holds the repository."""
    found: list[str] = []
    here = folder
    while not os.path.lexists(os.path.join(here, ".git")):
        above = os.path.dirname(here)
        if above == here:
            return Ignores()
        here = above
        found.append(here)
    ignores = Ignores()
    for above in reversed(found):
        if os.path.isfile(os.path.join(above, IGNORE_FILE)):
            ignores = ignores.inside(above)
    return ignores.without(folder)


def check_ignoring() -> None:
    """Raise UsageError unless the package that understands these files is installed."""
    try:
        import pathspec  # noqa: F401
    except ImportError as error:
        raise UsageError("--gitignore needs the package pathspec", "pip install 'durabatch[gitignore]'") from error


def _spec(path: str) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    try:
        with open(path, "rb") as file:
            text = os.fsdecode(file.read().removeprefix(b"\xef\xbb\xbf"))
    except OSError as error:
        raise cannot_read(path, error) from error
    return GitIgnoreSpec.from_lines(_sound(text.replace("\r\n", "\n").split("\n")))


def _sound(lines: Iterable[str]) -> list[str]:
    """Return the lines that are patterns; git passes over the others, too."""
    from pathspec import GitIgnoreSpec

    sound = []
    for line in lines:
        try:
            GitIgnoreSpec.from_lines([line])
        except ValueError:
            continue
        sound.append(line)
    return sound
