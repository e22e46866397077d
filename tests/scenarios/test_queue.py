"""
A run as a queue: many producers, one coordinator, each with the real command in processes of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from durabatch.api import Ledger
from durabatch.errors import ForkedConnectionError, LedgerInUseError, UsageError
from durabatch.ledger import locks
from durabatch.ledger.locks import Ownership
from durabatch.ledger.opening import open_ledger
from durabatch.ledger.paths import ledger_files
from durabatch.runner.vigil import refuse_unfit
from durabatch.settings import RunSettings
from tests import factory
from tests.crash.processes import eventually
from tests.scenarios.stage import ended

DATA = Path(__file__).resolve().parents[1] / "data"
#: Adds keys one by one, and prints each once it is on disk.
PRODUCER = """
import os, sys
import durabatch

name, count = sys.argv[1], int(sys.argv[2])
with durabatch.Ledger("l.db") as ledger:
    for number in range(count):
        key = f"{name}-{number}"
        added = ledger.submit("q", [key])
        assert added.added + added.duplicates == 1
        os.write(1, f"{key}\\n".encode())
"""
JOBS = """
def work(item):
    note("did", item)
    return f"{item}!"


def slow(item):
    note("did", item)
    wait_at(os.path.join(os.environ["STAGE"], "gate"))
    return item
"""


@pytest.fixture
def queue(stage, monkeypatch):
    """Give a stage with handlers and a producer, and stand in it."""
    stage.jobs(JOBS)
    (stage.folder / "producer.py").write_text(PRODUCER)
    monkeypatch.chdir(stage.folder)
    monkeypatch.setenv("DURABATCH_LEDGER", "l.db")
    return stage


def work(stage, *options, name="q", function="work"):
    """Start a coordinator for the open run."""
    return stage.start("work", name, "--handler", f"jobs.py:{function}", *stage.common, *options)


def has_printed(child):
    """Tell whether a child has printed anything so far, also one that has ended."""
    child.read(0.01)
    return bool(child.printed)


def ledger_of(stage):
    return Ledger(stage.ledger_path)


def done_once(stage, keys):
    """Check that each of *keys* was done exactly once, and nothing else, in a sound ledger."""
    assert sorted(stage.noted("did")) == sorted(keys)
    assert stage.states() == dict.fromkeys(keys, "succeeded")
    assert stage.query("SELECT count(*), max(number) FROM attempt") == [(len(keys), 1)]
    assert ledger_of(stage).verify() == []


def test_items_are_added_before_during_and_after_and_close_ends_the_run(queue, command):
    """The whole life: submitted without a coordinator, worked on, submitted while it works and after it has left, closed, finished."""
    (queue.folder / "items.txt").write_text("a\nb\n")
    assert command("submit", "q", "items.txt").out == "q (1)  2 items added\n"
    nobody = command("work", "q", "--trust-ledger")
    assert (nobody.code, "nobody has said yet what is to be done" in nobody.err) == (2, True)
    child = work(queue)
    queue.wait_for("did", 2)
    assert json.loads(command("submit", "q", "items.txt", "--json").out)["duplicates"] == 2
    ledger = ledger_of(queue)
    assert ledger.submit("q", ["c", "b"]).added == 1
    queue.wait_for("did", 3)
    child.signal(signal.SIGTERM)
    ended(child, 143)
    assert ledger.submit("q", ["d"]).added == 1
    again = work(queue)
    queue.wait_for("did", 4)
    assert "; closed; " in command("close", "q").out
    ended(again, 0)
    assert queue.row()["state"] == "finished"
    done_once(queue, ["a", "b", "c", "d"])
    late = command("submit", "q", "items.txt")
    assert (late.code, "run q is not open (finished)" in late.err) == (2, True)
    assert "it was closed already" in command("close", "q").out


def test_priority_and_due_time_of_added_items(queue):
    """Higher ones go first; an item that is not due yet keeps the run from finishing, and is done when its time has come."""
    ledger = ledger_of(queue)
    ledger.submit("q", ["one", "two"])
    ledger.submit("q", ["urgent"], priority=5)
    ledger.submit("q", ["late"], due="500ms")
    due_s = queue.standing()["late"].due_s
    ledger["q"].close()
    ended(queue.start("resume", "q", "--handler", "jobs.py:work", *queue.common, "-j", "1"), 0)
    assert [key for key in queue.noted("did") if key != "late"] == ["urgent", "one", "two"]
    assert queue.tries()["late"][0].started_s >= due_s
    done_once(queue, ["late", "one", "two", "urgent"])


def test_an_idle_open_run_lets_its_results_leave_and_goes_in_time(queue):
    """The open batch is written out although it is not full; --idle-exit ends the coordinator with 0, and the run stays open."""
    ledger_of(queue).submit("q", ["a", "b"])
    child = work(queue, "--output", "out", "--idle-exit", "1500ms")
    first = queue.folder / "out" / "batch_0001.json"
    eventually(first.exists, "the first batch")
    assert child.process.poll() is None
    assert [item["value"] for item in json.loads(first.read_text())["items"]] == ["a!", "b!"]
    told = ended(child, 0)
    assert "waiting for `durabatch submit q`" in told
    assert "idle for 1.5s; the run is open" in told
    left = ledger_of(queue)["q"].status()
    assert (left.state, left.reason, left.exit_code, left.is_open) == ("halted", "idle for 1.5s; the run is open", 0, True)


def test_a_coordinator_wakes_for_a_new_item(queue):
    """Also while all that it has is at work: the item begins at once on a worker that is free. Medians, since the machine may be busy."""
    gate = queue.gate()
    ledger = ledger_of(queue)
    ledger.submit("q", ["first"])
    child = work(queue, function="slow")
    queue.wait_for("did", 1)
    waits = []
    for number in range(1, 6):
        asked_s = time.monotonic()
        ledger.submit("q", [f"k{number}"])
        queue.wait_for("did", number + 1)
        waits.append(time.monotonic() - asked_s)
        gate.let(1)
        eventually(lambda number=number: ledger["q"].status().counts.ended >= number, "end of an item")
    assert sorted(waits)[len(waits) // 2] < 0.3, waits
    gate.open()
    ledger["q"].close()
    ended(child, 0)


def test_cancelling_closes_the_run(queue):
    """Whether somebody works on it or not; whatever was added until then is cancelled, and nothing can be added after."""
    ledger = ledger_of(queue)
    for name in ("held", "unheld"):
        ledger.submit(name, ["a", "b"])
    child = work(queue, name="held")
    queue.wait_for("did", 2)
    ledger.submit("held", ["late"], due="1h")
    assert ledger["held"].cancel().state == "cancelled"
    ended(child, 1)
    assert ledger["unheld"].cancel().counts.cancelled == 2
    assert ledger["held"].status().counts.cancelled == 1
    for name in ("held", "unheld"):
        assert not ledger[name].status().is_open
        with pytest.raises(UsageError, match=r"is not open .cancelled."):
            ledger.submit(name, ["c"])
    assert ledger.verify() == []


def test_producers_that_are_killed_lose_nothing_and_add_nothing_twice(queue, seed, long):
    """Four at once, killed at random moments and started again from their beginning, beside a coordinator that is at work."""
    luck = random.Random(seed)
    rounds, count = 10 if long else 3, 40
    names = [f"p{number}" for number in range(4)]

    def start(name):
        return queue.start_program([sys.executable, "producer.py", name, count])

    # The run is there before the coordinator, and a producer that ends moves no log away.
    ledger_of(queue).submit("q", [])
    coordinator = work(queue, "--durability", "process")
    promised = set()
    for _ in range(rounds):
        children = [start(name) for name in names]
        eventually(lambda children=children: min(map(has_printed, children)), "producers at work")
        for child in children:
            child.read_for(luck.uniform(0, 0.05))
            child.signal(signal.SIGKILL)
        for child in children:
            child.end()
            promised.update(child.lines())
    assert promised <= set(queue.query("SELECT group_concat(key) FROM item")[0][0].split(","))
    for child in [start(name) for name in names]:
        ended(child, 0)
    ledger_of(queue)["q"].close()
    ended(coordinator, 0)
    done_once(queue, [f"{name}-{number}" for name in names for number in range(count)])


def test_producers_outlive_coordinators(queue):
    """A connection that stays open goes on adding while coordinators come, cut the log to nothing, and go."""
    with ledger_of(queue) as ledger:
        for number in range(2):
            ledger.submit("q", [f"k{number}"])
            ended(work(queue, "--idle-exit", "1ms", "-j", "0"), 0)
            assert ledger.submit("q", [f"k{number}", f"l{number}"]).added == 1
        ledger["q"].close()
    ended(queue.start("resume", "q", *queue.common, "-j", "0"), 0)
    done_once(queue, [f"{letter}{number}" for letter in "kl" for number in range(2)])


def test_threads_and_forked_children_add_with_connections_of_their_own(tmp_path):
    """None uses another's connection, and a child holds no turn of its parent."""
    from concurrent.futures import ThreadPoolExecutor

    ledger = Ledger(tmp_path / "l.db")
    ledger.submit("q", ["parent"])
    with ThreadPoolExecutor(3) as threads:
        assert sum(one.added for one in threads.map(lambda number: ledger.submit("q", [f"t{number}", "parent"]), range(9))) == 9
    connection = ledger.submitter.connection()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            held = {lock.descriptor for lock in locks.HELD}
            with pytest.raises(ForkedConnectionError):
                connection.check_owner()
            code = 0 if held == {-1} and ledger.submit("q", ["child", "parent"]).added == 1 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert ledger.submit("q", ["after", "child"]).duplicates == 1
    assert {one.key for one in ledger["q"].results()} == {"parent", "child", "after", *(f"t{number}" for number in range(9))}
    ledger.__exit__()
    assert ledger.verify() == []


def test_a_ledger_of_an_older_version_is_left_alone_while_somebody_works_with_it(tmp_path):
    """Else it is brought up to date first."""
    path = shutil.copyfile(DATA / "ledger_v2.db", tmp_path / "old.db")
    before = path.read_bytes()
    held = Ownership(ledger_files(path), {"pid": 1})
    with pytest.raises(LedgerInUseError):
        Ledger(path).submit("q", ["a"])
    assert path.read_bytes() == before
    held.release()
    with Ledger(path) as ledger:
        assert ledger.submit("q", ["a"]).added == 1
    assert ledger.verify() == []


def test_what_others_do_wrong_is_told(queue, command):
    """Items before a bad line are added; a run that was never open says how to open it; a ledger that is not there is not made by closing."""
    assert command("close", "q").code == 4
    (queue.folder / "items.jsonl").write_text('{"id": "a"}\n{"id": "b"}\nno JSON\n')
    bad = command("submit", "q", "items.jsonl")
    assert (bad.code, bad.out, "items.jsonl:3" in bad.err) == (2, "q (1)  2 items added\n", True)
    assert command("submit", "q", "items.jsonl", "--on-bad-input", "skip").out == "q (1)  0 items added, 2 duplicates, 1 line left out\n"
    assert "--due: 'soon' is neither" in command("submit", "q", "items.jsonl", "--due", "soon").err
    assert "--priority: 'high' is not" in command("submit", "q", "items.jsonl", "--priority", "high").err
    assert "no run 'nightly'" in command("close", "nightly").err
    with open_ledger_here(queue) as ledger:
        factory.run_of(ledger, 1, series="plain")
    refused = command("submit", "plain", "items.jsonl")
    assert (refused.code, "run plain is not open" in refused.err, "--name plain --open" in refused.err) == (2, True, True)


def open_ledger_here(stage):
    """Return a writing connection to the ledger, closed at the end of the context."""
    return contextlib.closing(open_ledger(stage.ledger_path))


@pytest.mark.parametrize(
    ("settings", "is_open", "message"),
    [
        ({"order": "smallest"}, True, "--order smallest needs the whole input"),
        ({"shuf": 1}, True, "--shuf needs the whole input"),
        ({"dedupe": "last"}, True, "--dedupe last needs the whole input"),
        ({"preflight": {"kind": "python", "target": "jobs.py:work"}}, True, "--preflight needs the whole input"),
        ({"idle_exit_s": 60.0}, False, "--idle-exit is about a run that waits"),
    ],
)
def test_what_an_open_run_cannot_do_is_refused(settings, is_open, message):
    """What needs the last item needs a run that has one, and waiting needs somebody who may come; all else is fine."""
    with pytest.raises(UsageError, match=message):
        refuse_unfit(RunSettings(**settings), is_open=is_open)
    refuse_unfit(RunSettings(**settings), is_open=not is_open)
