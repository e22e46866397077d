"""
Input files, made once for all measurements that read them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
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

    def large_records(self, megabytes: int) -> str:
        """Return a JSON lines file of so many megabytes: records of about a kilobyte, as programs exchange them."""
        body = (
            '"name":"Item number %d","tags":["alpha","beta","gamma"],"size":{"width":12.5,"height":%d,"depth":null},"active":true,'
            '"notes":"' + "The quick brown fox jumps over the lazy dog, again and again. " * 13 + '"'
        )
        line = '{"id":"%08d",' + body + "}\n"
        count = megabytes * 1_000_000 // len(line % (0, 0, 0))
        return self.written(f"large-{megabytes}.jsonl", (line % (number, number, number % 1000) for number in range(count)))

    def table(self, megabytes: int) -> str:
        """Return a CSV file of so many megabytes: ten columns, some of them quoted."""
        head = "id,name,town,note,amount,rate,when,flag,code,rest\n"
        line = '%08d,Person %d,Springfield,"said: ""yes, of course""",%d,0.25,2026-11-22T07:31:05Z,true,X-%d,some words that stand at the end\n'
        count = megabytes * 1_000_000 // len(line % (0, 0, 0, 0))
        return self.written(
            f"table-{megabytes}.csv", itertools.chain((head,), (line % (number, number, number % 977, number) for number in range(count)))
        )

    def prose(self, megabytes: int) -> str:
        """Return a text of so many megabytes: words in sentences in paragraphs, always the same ones."""
        return self.written(f"prose-{megabytes}.txt", paragraphs(megabytes * 1_000_000))

    def tree(self, count: int) -> str:
        """Return a directory of *count* small files, a thousand in each directory below it."""
        directory = self.directory / f"tree-{count}"
        if not directory.exists():
            for first in range(0, count, 1000):
                folder = directory / f"part-{first // 1000:04d}"
                folder.mkdir(parents=True)
                for number in range(first, min(first + 1000, count)):
                    (folder / f"page_{number:06d}.txt").write_text(f"{number}\n", encoding="ascii")
        return str(directory)

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

    def finished_tree(self, count: int, workers: int) -> str:
        """Return a ledger with a finished run over the files of a tree."""
        directory = self.made_by("ours.noop_files", f"finished-tree-{count}", {"source": self.tree(count), "workers": workers}, 0)
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


def paragraphs(size: int) -> Iterator[str]:
    """Yield paragraphs of *size* bytes in all, a line of one to twelve sentences each."""
    words = (
        "the",
        "of",
        "and",
        "to",
        "in",
        "that",
        "it",
        "was",
        "his",
        "with",
        "as",
        "had",
        "for",
        "which",
        "not",
        "at",
        "another",
        "morning",
    )
    pick = random.Random(7)
    while size > 0:
        sentences = (" ".join(pick.choices(words, k=pick.randint(4, 24))).capitalize() + "." for _ in range(pick.randint(1, 12)))
        made = " ".join(sentences)[: max(0, size - 2)] + "\n\n"
        size -= len(made)
        yield made


def small_sources() -> list[Path]:
    """Return the smaller files of the standard library, without what others installed into it and without empty ones."""
    found = []
    for folder, below, names in os.walk(sysconfig.get_path("stdlib")):
        below[:] = sorted(
            name for name in below if name not in {"site-packages", "dist-packages", "__pycache__", "lib2to3", "test", "tests"}
        )
        found += [Path(folder, name) for name in sorted(names) if name.endswith(".py")]
    return [path for path in found if 512 <= path.stat().st_size <= SOURCE_BYTES]
