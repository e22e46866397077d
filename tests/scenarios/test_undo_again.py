from __future__ import annotations

from pathlib import Path

import pytest

from durabatch import Ledger, UsageError, csv
from durabatch.engine.rollback import Scope
from durabatch.runner.request import RunRequest
from durabatch.runner.session import execute

JOBS = """
from pathlib import Path

import durabatch


@durabatch.undo_action("drop")
def drop(what):
    note(f"drop {what}")
    if what == Path("stuck").read_text():
        raise OSError("stuck")


def make(item, ctx):
    what = f"{item['host']}={item['size']}"
    ctx.undo("drop", what=what)
    note(f"make {what}")
    if what == Path("broken").read_text():
        raise ValueError(what)
    return what


def note(line):
    with open("log", "a") as log:
        print(line, file=log)
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """Give the directory that a run of three hosts was made in, without a failure."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs.py").write_text(JOBS)
    (tmp_path / "in.csv").write_text("host,size\na,1\nb,2\nc,3\n")
    for name in ("broken", "stuck", "log"):
        (tmp_path / name).write_text("")
    return tmp_path


@pytest.fixture
def run(here, command):
    """Give a function that runs the command inline and returns how it ended, and what was made and dropped by it."""

    def told(*words, code=0):
        (here / "log").write_text("")
        done = command(*words, "--workers", "0", "--progress", "none")
        assert done.code == code, done.err
        return done, (here / "log").read_text().splitlines()

    told("run", "jobs.py:make", "in.csv", "--key", "host", "--batch-size", "1")
    return told


def test_what_runs_again_is_undone_first_when_that_is_wished(run):
    """All of it, newest first, before anything is made again; without the wish nothing is, and with nothing to run again the wish is refused."""
    assert run("resume", "--from-item", "b", "--undo")[1] == ["drop c=3", "drop b=2", "make b=2", "make c=3"]
    assert run("resume", "--from-batch", "3")[1] == ["make c=3"]
    assert run("resume", "--from-item", "c", "--undo")[1] == ["drop c=3", "drop c=3", "make c=3"]
    done, made = run("resume", "--undo", code=2)
    assert (made, "--undo: nothing is said that would have items run again" in done.err) == ([], True)
    assert Ledger().verify() == []


def test_a_program_wishes_it_the_same_way(run, here):
    """With ``undo`` what items did is undone before they run again; ``retry`` runs those that are undone on request."""
    ledger = Ledger()
    (here / "log").write_text("")
    ledger.run("jobs.py:make", csv("in.csv", key="host"), name="make:in.csv", workers=0, from_item="b", undo=True)
    assert (here / "log").read_text().splitlines() == ["drop c=3", "drop b=2", "make b=2", "make c=3"]
    ledger["make:in.csv"].rollback(items=["c"], workers=0)
    assert ledger["make:in.csv"].retry(workers=0).counts.undone == 1
    assert ledger["make:in.csv"].retry(undone=True, workers=0).counts.succeeded == 3
    with pytest.raises(UsageError, match="--undo"):
        ledger.run("jobs.py:make", csv("in.csv", key="host"), name="make:in.csv", workers=0, undo=True)


def test_what_the_input_changes_is_undone_first_when_that_is_wished(run, here):
    """A changed row is dropped with what it was made of, one that is gone is dropped and stays out."""
    (here / "in.csv").write_text("host,size\na,1\nb,5\nd,4\n")
    _, made = run("run", "jobs.py:make", "in.csv", "--key", "host", "--batch-size", "1", "--on-change", "source", "--undo")
    assert (sorted(made[:2]), sorted(made[2:])) == (["drop b=2", "drop c=3"], ["make b=5", "make d=4"])
    counts = Ledger()["make:in.csv"].status().counts
    assert (counts.succeeded, counts.cancelled) == (3, 1)
    assert Ledger().verify() == []


def test_retry_undoes_what_failed_attempts_have_left_and_runs_what_was_undone(run, here):
    """An effect that could not be undone is tried again before its item is; undone items run again on request alone."""
    (here / "broken").write_text("b=2")
    (here / "stuck").write_text("b=2")
    _, made = run("resume", "--from-item", "b", "--backoff", "0", code=1)
    assert (made[0], sorted(made)) == ("make b=2", ["drop b=2", "drop b=2", "drop b=2", "make b=2", "make c=3"])
    explained = Ledger()["make:in.csv"].explain("b")
    assert explained.happened[-1] == "drop, of try 2: not undone, tried 3 times: OSError: stuck"
    assert Ledger()["make:in.csv"].status().unresolved == 1
    for name in ("broken", "stuck"):
        (here / name).write_text("")
    assert run("retry")[1] == ["drop b=2", "make b=2"]
    assert run("retry")[1] == []
    summary = execute(RunRequest(verb="rollback", ledger="durabatch.db", scope=Scope(keys=("a",)), overrides={"workers": 0}))
    assert (summary.exit_code, summary.counts.undone) == (0, 1)
    assert run("retry", code=1)[1] == []
    assert run("retry", "--undone")[1] == ["make a=1"]
    assert Ledger().verify() == []
