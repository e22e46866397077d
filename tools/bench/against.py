"""
This checkout beside another one: the same inputs, handlers and clocks, so that the ratio is what lies between the two.
"""

from __future__ import annotations

import compileall
import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from case import Case
from checkout import ROOT

__all__ = ["Checkout", "NoCheckoutError", "checked_out", "compiled", "here", "versus"]


class NoCheckoutError(Exception):
    """What was named is neither a directory with a durabatch in it nor a commit."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """
    A durabatch to measure.

    Attributes:
        label: What it is called in the table.
        root: The directory that holds the package, absolute.
    """

    label: str
    root: str


def git(*words: str) -> str:
    """Return what git says about this checkout; NoCheckoutError with its complaint."""
    try:
        done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=True)
    except OSError as error:
        raise NoCheckoutError(f"git cannot be started: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        raise NoCheckoutError((error.stderr.strip().splitlines() or [f"git ended with status {error.returncode}"])[-1]) from error
    return done.stdout.strip()


def here() -> Checkout:
    """Return this checkout, changes that are not committed included; git knows which commit they rest on."""
    try:
        commit = ", " + git("describe", "--always", "--dirty", "--exclude=*")
    except NoCheckoutError:
        commit = ""
    return Checkout("this checkout" + commit, ROOT)


def commit_of(named: str) -> str:
    """Return the short name of a commit; NoCheckoutError when there is none."""
    try:
        return git("rev-parse", "--verify", "--short", "--end-of-options", named + "^{commit}")
    except NoCheckoutError as error:
        raise NoCheckoutError(f"no directory, and no commit either ({error})") from error


@contextlib.contextmanager
def checked_out(named: str, parent: Path) -> Iterator[Checkout]:
    """
    Yield the checkout that is meant: a directory as it stands, or else a commit in a worktree below *parent*, which is removed afterwards.

    Raises:
        NoCheckoutError: It is neither.
    """
    if os.path.isdir(named):
        if not os.path.exists(os.path.join(named, "durabatch", "__init__.py")):
            raise NoCheckoutError(f"there is no durabatch in {named}")
        yield Checkout(named, os.path.abspath(named))
        return
    commit = commit_of(named)
    root = str(parent / "checkout")
    git("worktree", "add", "--detach", root, commit)
    try:
        yield Checkout(commit, root)
    finally:
        git("worktree", "remove", "--force", root)


def versus(case: Case, checkouts: tuple[Checkout, Checkout]) -> Case:
    """Return a case whose sides are durabatch's own, once for each checkout."""
    sides = tuple(replace(case.sides[0], label=one.label, root=one.root) for one in checkouts)
    return replace(case, sides=sides, goal="")


def compiled(checkouts: tuple[Checkout, Checkout]) -> None:
    """Compile both to bytecode, or the first measurement of each would do it, within its time."""
    for one in checkouts:
        compileall.compile_dir(os.path.join(one.root, "durabatch"), quiet=2)
