"""
What a failure for good undoes: its item, its batch, or the whole run. A halt and a cancel undo a run that is all or nothing; a stop does not.
"""

from __future__ import annotations

import signal

import pytest

from tests.crash.processes import eventually
from tests.scenarios.stage import ended

KEYS = [f"i{number:02}" for number in range(20)]

#: Each item makes a file. ``i07`` fails then until there is a file ``mended``; those from the one on that a file ``waiting`` names wait at the gate.
JOBS = """
WORLD = pathlib.Path("world")


@durabatch.undo_action("unmake", verify=lambda name: not (WORLD / name).exists())
def unmake(name):
    (WORLD / name).unlink()


def work(item, ctx):
    ctx.undo("unmake", name=item)
    (WORLD / item).touch()
    if os.path.exists("waiting") and item >= pathlib.Path("waiting").read_text():
        note("waits", item)
        wait_at("gate")
    if item == "i07" and not os.path.exists("mended"):
        raise ValueError("bad")
    return item
"""


@pytest.fixture
def world(stage):
    """Give a function that tells which items have an effect now."""
    (stage.folder / "world").mkdir()
    stage.jobs(JOBS)
    stage.items(KEYS)
    return lambda: sorted(path.name for path in (stage.folder / "world").iterdir())


def standing(stage, state: str) -> list[str]:
    """Return the items in a state."""
    return sorted(key for key, one in stage.standing().items() if one.state == state)


def test_a_failed_item_leaves_nothing_behind(stage, world):
    """Every item but the failed one has its effect."""
    ended(stage.run("work", "--retries", "1", "--backoff", "10ms"), 1)
    assert world() == [key for key in KEYS if key != "i07"]
    assert [one.outcome for one in stage.tries()["i07"]] == ["failed", "failed"]


def test_a_failed_item_undoes_its_batch(stage, world):
    """The batch of a failed item has no effect, the others have theirs; mended, ``retry`` does the whole batch."""
    ended(stage.run("work", "--batch-size", "5", "--atomic", "batch"), 1)
    broken = KEYS[5:10]
    assert world() == [key for key in KEYS if key not in broken]
    assert standing(stage, "undone") == [key for key in broken if key != "i07"]
    (stage.folder / "mended").touch()
    ended(stage.start("retry", "--ledger", "l.db"), 0)
    assert world() == standing(stage, "succeeded") == KEYS


def test_a_failed_item_undoes_its_run(stage, world):
    """The first failure ends the run, and nothing of it is left; the same command leaves it so, ``retry`` does all of it."""
    stage.gate()
    (stage.folder / "waiting").write_text(KEYS[-1])
    ended(stage.run("work", "--atomic", "run", "--term-grace", "300ms"), 3)
    (stage.folder / "waiting").unlink()
    assert world() == []
    assert stage.row()["state"] == "rolled_back"
    assert standing(stage, "succeeded") == []
    said = ended(stage.run("work", "--atomic", "run"), 1)
    assert "was rolled back" in said
    assert world() == []
    (stage.folder / "mended").touch()
    ended(stage.start("retry", "--ledger", "l.db"), 0)
    assert world() == standing(stage, "succeeded") == KEYS


def test_more_failures_than_are_tolerated_undo_a_run_at_its_end(stage, world):
    """With ``--tolerate`` a failure ends nothing: within it the effects stay, beyond it they go once everything was tried."""
    ended(stage.run("work", "--atomic", "run", "--tolerate", "1"), 0)
    assert world() == [key for key in KEYS if key != "i07"]
    ended(stage.run("work", "--atomic", "run", "--tolerate", "0", "--fresh", "--name", "strict"), 1)
    assert world() == []
    assert standing_of_last_run(stage) == {"failed": 1, "undone": 19}


def standing_of_last_run(stage) -> dict[str, int]:
    """Return how many items of the last run are in which state."""
    return dict(stage.query("SELECT state, count(*) FROM v_item WHERE run_id = (SELECT max(run_id) FROM v_run) GROUP BY state"))


@pytest.mark.parametrize("atomic", ["item", "run"])
def test_a_cancel_undoes_what_it_interrupts_or_all(stage, world, atomic):
    """Interrupted attempts leave nothing behind; of a run that is all or nothing, nothing else does either."""
    gate = stage.gate()
    (stage.folder / "waiting").write_text("i10")
    (stage.folder / "mended").touch()
    child = stage.run("work", "--atomic", atomic, "--term-grace", "300ms")
    stage.wait_for("waits", 2)
    ended(stage.start("cancel", "--ledger", "l.db"), 0)
    ended(child, 1)
    gate.close()
    done = KEYS[:10] if atomic == "item" else []
    assert world() == standing(stage, "succeeded") == done
    assert stage.row()["state"] == ("cancelled" if atomic == "item" else "rolled_back")


def test_a_cancelled_run_of_which_nothing_had_succeeded_is_cancelled(stage, world):
    """What was at work is undone, and that makes no rollback of it: nobody asked for one."""
    gate = stage.gate()
    (stage.folder / "waiting").write_text("i10")
    child = stage.run("work", "--range", "11:12", "--term-grace", "300ms")
    stage.wait_for("waits", 2)
    ended(stage.start("cancel", "--ledger", "l.db"), 0)
    ended(child, 1)
    gate.close()
    assert (world(), standing(stage, "cancelled"), stage.row()["state"]) == ([], KEYS[10:12], "cancelled")


def test_a_stop_leaves_what_is_done_for_the_resume(stage, world):
    """A signal undoes nothing that has succeeded; what it interrupted is undone before it runs again."""
    gate = stage.gate()
    (stage.folder / "waiting").write_text("i10")
    (stage.folder / "mended").touch()
    child = stage.run("work", "--atomic", "run", "--term-grace", "300ms")
    stage.wait_for("waits", 2)
    child.signal(signal.SIGINT)
    eventually(lambda: "stopping" in child.stderr(), "the first signal was heard")
    child.signal(signal.SIGINT)
    ended(child, 130)
    assert set(KEYS[:10]) <= set(world())
    (stage.folder / "waiting").unlink()
    ended(stage.start("resume", "--ledger", "l.db"), 0)
    assert world() == standing(stage, "succeeded") == KEYS
    assert {one[0].outcome for key, one in stage.tries().items() if len(one) > 1} == {"interrupted"}
    gate.close()


def test_a_run_that_died_and_is_cancelled_leaves_nothing_behind_either(stage, world):
    """Nobody is at work who could undo what a killed run had begun: ``cancel`` and ``status`` say so, ``resume`` undoes it, and it stays cancelled."""
    gate = stage.gate()
    (stage.folder / "waiting").write_text("i10")
    (stage.folder / "mended").touch()
    child = stage.run("work")
    begun = set(stage.wait_for("waits", 2))
    child.signal(signal.SIGKILL)
    child.end()
    gate.close()
    stage.check_nobody_left()
    cancelled = stage.start("cancel", "--ledger", "l.db")
    ended(cancelled, 0)
    assert "effects to be undone: `durabatch resume` does that" in "".join(cancelled.lines())
    assert begun <= set(world())
    ended(stage.start("resume", "--ledger", "l.db"), 0)
    assert world() == standing(stage, "succeeded")
    assert stage.row()["state"] == "cancelled"
    assert begun <= set(standing(stage, "cancelled"))
