"""
What tests of the command line share: the command in this process and as a process of its own, and a ledger with a finished run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.done import Done

ROOT = Path(__file__).resolve().parents[2]

HANDLERS = '''
import os
import signal
import time


def double(item):
    return float(item["amount"]) * 2


def echo(item, *, mark="", secret=None):
    if item == "bad":
        raise ValueError("no \\x1b[31m good\\nat all")
    return f"{item}{mark}"


def fail(item):
    raise RuntimeError(item)


def stop_us(item):
    """The third item sends the first signal to the coordinator, as Ctrl-C does."""
    if item == "3":
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(0.3)
    return item
'''


def run_process(directory: Path, *words: str, stdin: str | None = None, **environ: str) -> Done:
    """Run ``durabatch WORDS`` in *directory* as a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name not in {"DURABATCH_LEDGER", "NO_COLOR"}}
    done = subprocess.run(
        [sys.executable, "-m", "durabatch", *words],
        cwd=directory, env={**environment, "PYTHONPATH": str(ROOT), **environ}, capture_output=True, text=True, encoding="utf-8",
        input=stdin, stdin=subprocess.DEVNULL if stdin is None else None, timeout=60, check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def write_inputs(directory: Path) -> None:
    (directory / "jobs.py").write_text(HANDLERS)
    rows = (f'{{"id": "r{number:02}", "amount": "{"N/A" if number % 10 == 7 else number}"}}' for number in range(40))
    (directory / "items.jsonl").write_text("\n".join(rows) + "\n")
    (directory / "words.txt").write_text("one\ntwo\nthree\n")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Give a directory with handlers and inputs, and stand in it."""
    write_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DURABATCH_LEDGER", raising=False)
    return tmp_path


@pytest.fixture
def process(here):
    """Give a function that runs the command as a process of its own."""
    return lambda *words, **rest: run_process(here, *words, **rest)


@pytest.fixture(scope="session")
def finished_directory(tmp_path_factory):
    """Give a directory whose ledger holds one finished run: 36 items succeeded, 4 failed."""
    directory = tmp_path_factory.mktemp("finished")
    write_inputs(directory)
    done = run_process(directory, "run", "jobs.py:double", "items.jsonl", "-j", "2", "--batch-size", "10", "--output", "out")
    assert done.code == 1, done.err
    return directory


@pytest.fixture
def finished(finished_directory, monkeypatch):
    """Stand in the directory of the finished run."""
    monkeypatch.chdir(finished_directory)
    monkeypatch.delenv("DURABATCH_LEDGER", raising=False)
    return finished_directory
