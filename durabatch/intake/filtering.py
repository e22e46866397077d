"""
Which files of a directory or a pattern are items: names, paths, sizes, hidden and ignored ones.

Patterns are those of a shell. One without a slash is compared with the name alone, wherever the file stands; one with a slash with the path
below the argument, where ``**`` stands for any number of directories. A slash at the end means directories only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from durabatch.errors import UsageError
from durabatch.intake.ignoring import check_ignoring
from durabatch.intake.spec import InputSpec
from durabatch.options import shown_size

__all__ = ["FileFilter", "component_regex"]

#: The pieces of a pattern: stars, a question mark, a set of characters, or one character.
PIECE = re.compile(r"\*+|\?|\[!?\]?[^\]]*\]|.", re.S)
#: Matches nothing.
NEVER = "(?!)"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFilter:
    """
    What is wanted of the files below an argument. A file that is an argument itself is measured by its name and size alone.

    Attributes:
        include: Patterns for the name of a file, one of which must match; empty takes all.
        exclude: Patterns for names or paths of files and directories; a directory is left out with all below.
        hidden: Names that begin with a dot are taken, too.
        gitignore: What .gitignore files name is left out, those of the directories above within the same repository included.
        min_size: Fewest bytes of a file; None for no such bound.
        max_size: Most bytes of a file; None for no such bound.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    hidden: bool = True
    gitignore: bool = False
    min_size: int | None = None
    max_size: int | None = None

    @classmethod
    def of(cls, spec: InputSpec) -> FileFilter:
        """Return the filter that *spec* asks for."""
        return cls(
            include=spec.include, exclude=spec.exclude, hidden=spec.hidden, gitignore=spec.gitignore,
            min_size=spec.min_size, max_size=spec.max_size,
        )  # fmt: skip

    def check(self) -> None:
        """Raise UsageError for a pattern that can match nothing, for bounds that leave no size, and when .gitignore files cannot be read."""
        for pattern in self.include:
            if not pattern or "/" in pattern:
                raise UsageError(
                    f"--include {pattern!r} matches no file: it is compared with the name alone", "Use '*.py', or a pattern as input."
                )
        for pattern in self.exclude:
            if not pattern.strip("/") or ".." in pattern.split("/"):
                raise UsageError(f"--exclude {pattern!r} matches nothing: paths are those below the argument", "Use '*.bak' or 'build/*'.")
        if self.min_size is not None and self.max_size is not None and self.min_size > self.max_size:
            raise UsageError(f"--min-size {shown_size(self.min_size)} is more than --max-size {shown_size(self.max_size)}: no file is both")
        if self.gitignore:
            check_ignoring()

    def fits(self, size_bytes: int) -> bool:
        """Tell whether a file of so many bytes is wanted."""
        return (self.min_size is None or size_bytes >= self.min_size) and (self.max_size is None or size_bytes <= self.max_size)

    def name_test(self) -> Callable[[str], object] | None:
        """Return what is true of the names of wanted files; None when of all."""
        return re.compile("|".join(map(component_regex, self.include))).fullmatch if self.include else None

    def exclusion(self) -> Callable[[str, str], bool] | None:
        """
        Return the function that tells from the name and from the path below the argument whether something is left out.

        Both texts end with a slash when a directory is meant. None when nothing is left out.
        """
        in_names = _any_of(_one(pattern) for pattern in self.exclude if not _is_path(pattern))
        in_paths = _any_of(_path(pattern) for pattern in self.exclude if _is_path(pattern))
        if in_names is None and in_paths is None:
            return None
        return lambda name, path: bool((in_names and in_names(name)) or (in_paths and in_paths(path)))


def component_regex(pattern: str) -> str:
    """Return the regular expression for one component of a path: ``*``, ``?`` and ``[...]`` stand for anything but a slash."""
    return PIECE.sub(_piece, pattern)


def _piece(match: re.Match[str]) -> str:
    text = match[0]
    if text.startswith("*"):
        return "[^/]*"
    if text == "?":
        return "[^/]"
    return _set(text) if text.startswith("[") and len(text) > 1 else re.escape(text)


def _set(text: str) -> str:
    """Return the expression for a set such as ``[a-z]`` or ``[!0-9]``; a range from back to front matches nothing."""
    negated = text.startswith("[!")
    body = re.sub(r"([\\\[\]^&~|])", r"\\\1", text[2 if negated else 1 : -1])
    source = f"[^/{body}]" if negated else f"(?!/)[{body}]"
    try:
        re.compile(source)
    except re.error:
        return NEVER
    return source


def _is_path(pattern: str) -> bool:
    return "/" in pattern.rstrip("/")


def _one(pattern: str) -> str:
    return component_regex(pattern.rstrip("/")) + _end(pattern)


def _end(pattern: str) -> str:
    return "/" if pattern.endswith("/") else "/?"


def _path(pattern: str) -> str:
    components = [component for component in pattern.split("/") if component not in {"", "."}]
    parts = ["(?:[^/]+/)*" if component == "**" else component_regex(component) + "/" for component in components[:-1]]
    last = "[^/].*" if components[-1] == "**" else component_regex(components[-1]) + _end(pattern)
    return "".join([*parts, last])


def _any_of(sources: Iterable[str]) -> Callable[[str], object] | None:
    alternatives = list(sources)
    return re.compile("|".join(alternatives), re.S).fullmatch if alternatives else None
