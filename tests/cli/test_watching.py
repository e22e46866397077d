from __future__ import annotations

import contextlib
import itertools
import json
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from durabatch.cli import watching
from durabatch.engine.conclude import conclude
from durabatch.ledger.locks import Ownership
from durabatch.ledger.opening import open_ledger
from durabatch.ledger.paths import ledger_files
from durabatch.states import RunState
from tests import factory

PATH = "durabatch.db"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def at_work(here):
    """Give a ledger and its run of 8 items, that somebody works on."""
    with contextlib.closing(open_ledger(PATH, create=True)) as ledger:
        run = factory.run_of(ledger, 8)
        ownership = Ownership(ledger_files(PATH), {"pid": 1, "run": "jobs"})
        yield ledger, run
        ownership.release()


def step(ledger, run):
    """Do two items, or stop the run."""
    made = factory.take(ledger, run, 2)
    if made is None:
        conclude(ledger, run, RunState.FINISHED, reason=None, exit_code=0, elapsed_us=2_000_000, now_us=factory.NOW)
    else:
        factory.give_back(ledger, run, factory.answer(made))


@pytest.fixture
def seconds(at_work, monkeypatch):
    """Let every second look find two items more, and count the seconds."""
    passed = itertools.count(1)
    waits = []

    def sleep(wait_s):
        waits.append(wait_s)
        if next(passed) % 2 == 0:
            step(*at_work)

    monkeypatch.setattr(watching.time, "sleep", sleep)
    return waits


def test_watching_prints_a_line_for_each_change_and_the_block_at_the_end(seconds, command):
    """In a log nothing is said twice; when the run has stopped the status stands there as always."""
    done = command("status", "--watch")
    lines = done.out.splitlines()
    assert (done.code, done.err) == (0, "")
    assert lines[:5] == [
        "jobs: running, 0 of 8 done (0.0%)",
        "jobs: running, 2 of 8 done (25.0%)",
        "jobs: running, 4 of 8 done (50.0%)",
        "jobs: running, 6 of 8 done (75.0%)",
        "jobs: running, 8 of 8 done (100.0%)",
    ]
    assert lines[5:7] == ["jobs (1)  finished", "  done     8 of 8 (100.0%)"]
    assert (len(seconds), set(seconds)) == (10, {1.0})


def test_watching_for_programs_is_a_document_a_line(seconds, command):
    """Each has the form of ``status --json``, the last one tells the end."""
    documents = [json.loads(line) for line in command("status", "--watch", "--json").out.splitlines()]
    assert [one["runs"][0]["counts"]["succeeded"] for one in documents] == [0, 2, 4, 6, 8, 8]
    assert [one["runs"][0]["state"] for one in documents] == ["running"] * 5 + ["finished"]
    assert {one["schema_version"] for one in documents} == {1}


def test_a_run_that_nobody_works_on_is_shown_once(here, command):
    """There is nothing to wait for."""
    with contextlib.closing(open_ledger(PATH, create=True)) as ledger:
        factory.run_of(ledger, 2)
    assert command("status", "--watch").out == command("status").out


def test_a_coordinator_that_is_starting_is_waited_for(here, command, monkeypatch):
    """It has the ledger, and has not said yet for which run; if it ends like that, so does the watching."""
    with contextlib.closing(open_ledger(PATH, create=True)) as ledger:
        factory.run_of(ledger, 2)
    ownership = Ownership(ledger_files(PATH), {"pid": 1, "run": None})
    monkeypatch.setattr(watching.time, "sleep", lambda _: ownership.release())
    lines = command("status", "--watch").out.splitlines()
    assert lines[:2] == ["jobs: interrupted, 0 of 2 done (0.0%)", "jobs (1)  interrupted"]


def test_a_paused_run_is_watched_on(at_work, command, monkeypatch):
    """A pause is no end; its reason stands in the line."""
    ledger, run = at_work
    ledger.raw.execute("UPDATE run SET state = 'paused', reason = 'paused by ana', binding_limit = 'paused'")
    monkeypatch.setattr(watching.time, "sleep", lambda _: conclude(ledger, run, RunState.HALTED, reason="r", exit_code=3, elapsed_us=1, now_us=1))
    lines = command("status", "--watch").out.splitlines()
    assert lines[:2] == ["jobs: paused, 0 of 8 done (0.0%), limit: paused, paused by ana", "jobs (1)  halted"]


def environ():
    return {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100", "LINES": "30", "NO_COLOR": "1"}


def started(**streams):
    return subprocess.Popen([sys.executable, "-m", "durabatch", "status", "--watch"], env=environ(), **streams)


def test_ctrl_c_ends_the_watching_quietly(at_work):
    """Exit status 130, and not a word on stderr."""
    child = started(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "jobs: running, 0 of 8 done (0.0%)\n"
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=30) == ("", "")
    assert child.returncode == 130


class Terminal:
    """What a child writes on a terminal, read as it comes."""

    def __init__(self):
        self.leader, follower = pty.openpty()
        self.child = started(stdin=follower, stdout=follower, stderr=follower, start_new_session=True)
        os.close(follower)
        self.text = ""

    def read(self):
        """Take what is there; False at the end."""
        if not select.select([self.leader], [], [], 30)[0]:
            pytest.fail(f"nothing came: {self.text!r}")
        try:
            data = os.read(self.leader, 65536)
        except OSError:
            return False
        self.text += data.decode()
        return bool(data)

    def until(self, words):
        """Read until *words* stand there."""
        while words not in self.text and self.read():
            continue
        assert words in self.text

    def close(self):
        """End it, and return its status and all that it wrote."""
        while self.read():
            continue
        os.close(self.leader)
        return self.child.wait(30), self.text


def test_on_a_terminal_the_block_stays_in_its_place(at_work):
    """It is drawn again each second, cut to the terminal, and taken away for the last one, which stays."""
    ledger, run = at_work
    ledger.raw.execute("UPDATE run SET handler = ?", ('{"kind": "command", "argv": ["' + "x" * 300 + '"]}',))
    terminal = Terminal()
    terminal.until("0 of 8")
    step(ledger, run)
    terminal.until("2 of 8 (25.0%)")
    for _ in range(4):
        step(ledger, run)
    status, text = terminal.close()
    drawn, _, last = text.rpartition("\x1b[2K")
    assert status == 0
    assert text.count("jobs (1)  running") >= 2
    assert all(len(line.rpartition("\x1b[2K")[2]) <= 100 for line in drawn.replace("\r", "").split("\n"))
    assert last.replace("\r", "").startswith("jobs (1)  finished\n  done     8 of 8 (100.0%)\n")
    assert "\x1b[?25h" in text


def test_ctrl_c_gives_the_terminal_back(at_work):
    """The cursor is there again, and the block is gone."""
    terminal = Terminal()
    terminal.until("0 of 8")
    terminal.child.send_signal(signal.SIGINT)
    status, text = terminal.close()
    assert status == 130
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert "Traceback" not in text
