"""
Input files, made once for all measurements that read them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["KEYS", "Inputs"]

CHILD = Path(__file__).with_name("child.py")
#: Source files up to this size are taken: with all of them, one core of an ordinary machine parses and measures about 25,000 a minute.
SOURCE_BYTES = 32 * 1024


def ordered_key(number: int) -> str:
    """Return a key that follows the one before it."""
    return f"{number:08d}"


def random_key(number: int) -> str:
    """Return 47 characters without any order."""
    return hashlib.sha256(b"%d" % number).hexdigest()[:47]


#: How the keys of a no-op input look.
KEYS: dict[str, Callable[[int], str]] = {"ordered": ordered_key, "random": random_key}


class Inputs:
    """Files below one directory, made when they are first asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def records(self, count: int, keys: str) -> str:
        """Return a JSON lines file of *count* small records with a key field ``k``."""
        key = KEYS[keys]
        return self.written(f"{keys}-{count}.jsonl", (f'{{"n":{number},"k":"{key(number)}"}}\n' for number in range(count)))

    def lines(self, count: int) -> str:
        """Return a text file of *count* numbered lines."""
        return self.written(f"lines-{count}.txt", (f"{number}\n" for number in range(count)))

    def written(self, name: str, lines: Iterator[str]) -> str:
        """Return the path of a file with these lines."""
        path = self.directory / name
        if not path.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            with path.open("w", encoding="ascii") as file:
                file.writelines(lines)
        return str(path)

    def sources(self, count: int) -> str:
        """Return a directory of *count* Python files: those of the standard library up to SOURCE_BYTES, again and again until it is full."""
        directory = self.directory / f"sources-{count}"
        if not directory.exists():
            directory.mkdir(parents=True)
            for number, path in zip(range(count), itertools.cycle(small_sources()), strict=False):
                shutil.copyfile(path, directory / f"{number:05d}_{path.name}")
        return str(directory)

    def half_done(self, count: int, workers: int) -> str:
        """Return a directory with a ledger whose run was killed (SIGKILL) when half of its items had ended."""
        return self.made_by(
            "ours.half_run",
            f"half-{count}",
            {"source": self.records(count, "ordered"), "workers": workers, "count": count},
            -signal.SIGKILL,
        )

    def finished(self, count: int, workers: int) -> str:
        """Return a ledger with a finished run."""
        directory = self.made_by("ours.noop", f"finished-{count}", {"source": self.records(count, "ordered"), "workers": workers}, 0)
        return os.path.join(directory, "bench.db")

    def made_by(self, function: str, name: str, arguments: dict[str, object], status: int) -> str:
        """Return a directory that a measuring function has worked in; it ended with *status*."""
        directory = self.directory / name
        if not directory.exists():
            directory.mkdir(parents=True)
            argv = [sys.executable, str(CHILD), function, json.dumps({"directory": str(directory), **arguments})]
            done = subprocess.run(argv, stdout=subprocess.DEVNULL, check=False)
            if done.returncode != status:
                raise RuntimeError(f"{function} ended with status {done.returncode}")
        return str(directory)


def small_sources() -> list[Path]:
    """Return the smaller files of the standard library, without what others installed into it and without empty ones."""
    found = []
    for folder, below, names in os.walk(sysconfig.get_path("stdlib")):
        below[:] = sorted(
            name for name in below if name not in {"site-packages", "dist-packages", "__pycache__", "lib2to3", "test", "tests"}
        )
        found += [Path(folder, name) for name in sorted(names) if name.endswith(".py")]
    return [path for path in found if 512 <= path.stat().st_size <= SOURCE_BYTES]
