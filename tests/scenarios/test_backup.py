"""
A copy of a ledger that is at work: it is as of one moment, sound, and goes on by itself, beside the original that never noticed.
"""

from __future__ import annotations

import threading

from durabatch.api import Ledger
from durabatch.engine.verify import verify
from durabatch.ledger import backup
from durabatch.ledger.opening import open_ledger
from durabatch.ledger.reader import Reader
from tests import factory
from tests.crash.processes import eventually
from tests.scenarios.stage import ended

JOBS = """
def work(item):
    note("began", item)
    wait_at("gate")
    return f"{item}!"
"""
KEYS = [f"k{number}" for number in range(1, 13)]


def ran(stage, before):
    """Return the items that began after so many had."""
    return stage.noted("began")[before:]


def test_a_copy_of_a_live_ledger_resumes_by_itself(stage):
    """What had ended stays, what was at work runs again, and nobody says that anything is missing; the original finishes, too."""
    stage.jobs(JOBS)
    stage.items(KEYS)
    gate = stage.gate()
    child = stage.run("work", "--batch-size", "2", "--name", "work")
    gate.let(5)
    stage.wait_for("began", 7)
    eventually(lambda: "succeeded" in stage.states().values(), "a result in the ledger")
    copy = stage.folder / "copy.db"
    assert Ledger(stage.ledger_path).backup(copy) == copy.stat().st_size
    gate.open()
    ended(child, 0)
    before = len(stage.noted("began"))
    with Reader(copy) as reader:
        done = {row[0] for row in reader.raw.execute("SELECT key FROM item WHERE state = 'succeeded'")}
        assert reader.raw.execute("SELECT count(*) FROM item WHERE state = 'running'").fetchall() != [(0,)]
        assert verify(reader) == []
    assert 0 < len(done) < 6
    said = ended(stage.start("resume", "--ledger", "copy.db", "--progress", "none", "-j", "2"), 0)
    assert "missing" not in said
    assert sorted(ran(stage, before)) == sorted(set(KEYS) - done)
    assert [one.value for one in Ledger(copy)["work"].results()] == [f"{key}!" for key in KEYS] == [one.value for one in Ledger(stage.ledger_path)["work"].results()]
    assert Ledger(copy).verify() == []
    stage.check_nobody_left()


def test_a_copy_is_as_of_one_moment_whatever_is_written_meanwhile(tmp_path, monkeypatch):
    """Copied a page at a time beside a writer that never rests, it comes to its end, and every rule holds in it."""
    monkeypatch.setattr(backup, "STEP_PAGES", 1)
    path, stop, commits = tmp_path / "l.db", threading.Event(), []

    def write():
        ledger = open_ledger(path, create=True, durability="process")
        jobs = factory.new_run(ledger)
        while not stop.is_set():
            factory.add(ledger, jobs, [f"k{len(commits)}-{number}" for number in range(20)])
            commits.append(jobs.total_count)
            if len(commits) == 20:
                begun.set()
        ledger.close()

    begun = threading.Event()
    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert begun.wait(30)
        count = len(commits)
        Ledger(path).backup(tmp_path / "copy.db")
        written = len(commits)
    finally:
        stop.set()
        writer.join()
    with Reader(tmp_path / "copy.db") as reader:
        total = reader.raw.execute("SELECT total_count FROM run").fetchall()[0][0]
        assert verify(reader) == []
        assert reader.raw.execute("SELECT kind FROM event ORDER BY event_id DESC LIMIT 1").fetchall() == [("copied",)]
    assert count * 20 <= total <= (written + 1) * 20
    assert written > count
