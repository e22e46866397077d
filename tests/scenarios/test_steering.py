"""
Steering a live run from a second process: each order takes effect within a second, loses nothing, and leaves a record.
"""

from __future__ import annotations

import collections
import json
import signal

import pytest

from durabatch import process
from durabatch.engine.steer import orders_of_run
from durabatch.ledger.reader import Reader
from durabatch.runner import steering
from tests.crash.processes import eventually, is_alive

QUICK = [f"k{number}" for number in range(200)]


@pytest.fixture
def steer(command):
    """Give a function that runs a verb that steers, in this process, which is not the run's, and returns what it printed."""

    def run(place, *words, code=0):
        done = command(*words, "--ledger", str(place.ledger_path))
        assert done.code == code, done.err
        return done.out if code == 0 else done.err

    return run


def status(place):
    return place.ledger["kill"].status()


def orders(place):
    with Reader(place.ledger_path) as reader:
        return orders_of_run(reader, 1)


def at_work(place, rows, *options, begun=4):
    """Return a run that has begun some of the items in *rows*."""
    place.items(rows)
    child = place.run("items.txt", *options)
    eventually(lambda: len(place.executions()) >= begun, "items at work")
    return child


def finishes(place, child, keys, *, code=0):
    """Check that the run ends with every item done once."""
    assert child.end() == code, child.stderr()
    assert place.results() == dict.fromkeys(keys, "succeeded")
    assert collections.Counter(one.key for one in place.executions()) == dict.fromkeys(keys, 1)


def took_effect_quickly(place):
    """Check that each order was carried out within a second."""
    waits = [(one.applied_at_us - one.asked_at_us) / 1e6 for one in orders(place)]
    assert max(waits) < 1.0, waits


def running_pids(place):
    return {one.pid for one in place.executions() if one.ended_s is None}


def test_pause_hands_out_nothing_until_unpause(place, steer):
    """Items at work end, no other begins, the coordinator stays; then the run goes on as if nothing had been. A record says who asked."""
    child = at_work(place, [f"{key} 0.01" for key in QUICK])
    assert steer(place, "pause").startswith("kill (1)  paused; ")
    eventually(lambda: status(place).counts.running == 0, "end of the items at work")
    begun = len(place.executions())
    shown = steer(place, "status")
    assert "kill (1)  paused" in shown
    assert "paused by " in shown
    assert "pause by " in shown
    assert (len(place.executions()), child.process.poll()) == (begun, None)
    assert begun < len(QUICK)
    assert steer(place, "unpause").startswith("kill (1)  running; ")
    finishes(place, child, QUICK)
    took_effect_quickly(place)
    assert status(place).reason is None
    _, rows = place.ledger.sql("SELECT verb, argument, asked_by, asked_at <= applied_at FROM v_control ORDER BY control_id")
    asked = [(verb, argument, json.loads(by)["host"], in_turn) for verb, argument, by, in_turn in rows]
    assert asked == [(verb, "{}", process.host_name(), 1) for verb in ("pause", "unpause")]


def test_a_paused_run_can_be_watched_and_killed_and_goes_on(place, steer):
    """What was paused when its coordinator died is interrupted; the same command is not paused any more."""
    child = at_work(place, [f"{key} 0.01" for key in QUICK])
    steer(place, "pause")
    watching = place.durabatch("status", "--watch", "--ledger", "l.db")
    eventually(lambda: watching.read(0.1) and "kill: paused" in watching.printed.decode(), "word of the pause")
    child.signal(signal.SIGKILL)
    child.process.wait()
    assert watching.end() == 0
    assert "kill (1)  interrupted" in watching.printed.decode()
    assert "nobody works on run kill (interrupted)" in steer(place, "unpause", code=4)
    again = place.run()
    assert again.end() == 0, again.stderr()
    assert place.results() == dict.fromkeys(QUICK, "succeeded")
    assert place.overlaps() == []


def test_scale_starts_and_ends_workers(place, steer):
    """More workers come and work, those that are too many go after what they are at, and every item is done once."""
    keys = [f"g{number}" for number in range(40)]
    child = at_work(place, [f"{key} 0 gated" for key in keys], "--workers", "1", begun=1)
    assert len(running_pids(place)) == 1
    assert "4 workers" in steer(place, "scale", "4")
    workers = eventually(lambda: len(found := running_pids(place)) == 4 and {pid: process.start_ticks(pid) for pid in found}, "four workers at work")
    assert "1 worker" in steer(place, "scale", "1")
    assert len(running_pids(place)) == 4
    place.open_gate()
    eventually(lambda: sum(is_alive(*worker) for worker in workers.items()) <= 1, "end of three workers")
    finishes(place, child, keys)
    took_effect_quickly(place)


def test_set_rate_holds_a_run_back_and_lets_it_go(place, steer):
    """The limit that binds is shown; off is as before."""
    child = at_work(place, [f"{key} 0.01" for key in QUICK])
    assert "rate=1/1h" in steer(place, "set", "rate=1/1h")
    eventually(lambda: status(place).counts.running == 0, "nothing at work")
    assert eventually(lambda: status(place).binding_limit, "a limit that binds") == "rate"
    assert "limit    rate" in steer(place, "status")
    assert child.process.poll() is None
    steer(place, "set", "rate=off")
    finishes(place, child, QUICK)
    took_effect_quickly(place)


def test_set_timeout_ends_what_runs_already(place, steer):
    """A limit that comes while an item hangs ends that item, too."""
    child = at_work(place, ["stuck 0 gated", *(f"{key} 0" for key in QUICK)], begun=2)
    steer(place, "set", "timeout=300ms")
    eventually(lambda: place.ledger["kill"].attempts("stuck 0 gated"), "end of the stuck item")
    assert child.end() == 1, child.stderr()
    (one,) = place.ledger["kill"].attempts("stuck 0 gated")
    assert one.outcome == "timed_out"
    assert place.results() == {**dict.fromkeys(QUICK, "succeeded"), "stuck": "failed"}


def test_set_batch_size_holds_for_later_batches(place, steer):
    """What is in a batch stays there; the next ones have the new size."""
    child = at_work(place, [f"{key} 0.01" for key in QUICK], "--batch-size", "10")
    steer(place, "set", "batch-size=50")
    finishes(place, child, QUICK)
    columns, rows = place.ledger.sql("SELECT items FROM v_batch ORDER BY batch")
    sizes = [size for (size,) in rows]
    assert columns == ["items"]
    assert (sizes[0], max(sizes), sum(sizes)) == (10, 50, len(QUICK))


def test_what_cannot_be_set_is_refused_with_the_reason(place, steer):
    """More at once than the workers have room for: the run goes on as it was."""
    child = at_work(place, ["k0 0 gated", "k1 0 gated"], begun=2)
    assert "set: concurrency can be 1 to 64 while the run works" in steer(place, "set", "concurrency=65", code=2)
    assert "set: 'retries' cannot be changed while a run works" in steer(place, "set", "retries=5", code=2)
    place.open_gate()
    finishes(place, child, ["k0", "k1"])
    assert [one.outcome[:9] for one in orders(place)] == ["refused: "]


def test_drain_stops_after_the_items_at_work(place):
    """As a first signal does: the run is halted and says by whom, the exit status is 3, and the same command finishes it."""
    keys = [f"g{number}" for number in range(8)]
    child = at_work(place, [f"{key} 0 gated" for key in keys], begun=2)
    draining = place.durabatch("drain", "--ledger", "l.db")
    eventually(lambda: (given := orders(place)) and given[0].outcome, "an answer")
    assert child.process.poll() is None
    place.open_gate()
    assert draining.end() == 0, draining.stderr()
    assert draining.printed.decode().startswith("kill (1)  halted; ")
    assert child.end() == 3, child.stderr()
    standing = status(place)
    assert (standing.state, standing.counts.failed, standing.counts.running) == ("halted", 0, 0)
    assert standing.reason.startswith("drained by ")
    assert standing.counts.pending > 0
    took_effect_quickly(place)
    finishes(place, place.run(), keys)


def test_cancel_ends_a_live_run_for_good(place):
    """Everything that has not ended is cancelled; the exit status is 1, the ledger is sound."""
    keys = [f"g{number}" for number in range(8)]
    child = at_work(place, [f"{key} 0 gated" for key in keys], begun=2)
    cancelling = place.durabatch("cancel", "--ledger", "l.db")
    eventually(lambda: (given := orders(place)) and given[0].outcome, "an answer")
    place.open_gate()
    assert cancelling.end() == 0, cancelling.stderr()
    assert cancelling.printed.decode().startswith("kill (1)  cancelled; 8 of 8")
    assert child.end() == 1, child.stderr()
    standing = status(place)
    assert (standing.state, standing.exit_code, standing.counts.left) == ("cancelled", 1, 0)
    assert standing.reason.startswith("cancelled by ")
    assert set(place.results().values()) <= {"succeeded", "cancelled"}
    assert standing.counts.cancelled >= 4
    took_effect_quickly(place)


def test_cancel_needs_no_coordinator(place, steer):
    """After kill -9 the command ends the old workers, cancels the rest, and is done."""
    child = at_work(place, [f"g{number} 0 gated" for number in range(8)], begun=2)
    workers = child.workers()
    child.signal(signal.SIGKILL)
    child.process.wait()
    assert "nobody works on run kill (interrupted). `durabatch resume` goes on with it." in steer(place, "drain", code=4)
    assert steer(place, "cancel").startswith("kill (1)  cancelled; 8 of 8")
    assert not any(is_alive(*worker) for worker in workers.items())
    assert set(place.results().values()) == {"cancelled"}
    assert [one.outcome for one in place.ledger["kill"].attempts("g0 0 gated")] in ([], ["interrupted"])


def test_a_stopped_coordinator_carries_the_order_out_when_it_wakes(place, steer, monkeypatch):
    """SIGSTOP: the command says that nobody answers, and the order stays; SIGCONT: it is obeyed."""
    child = at_work(place, [f"{key} 0.01" for key in QUICK])
    child.stop(place.ledger_path)
    monkeypatch.setattr(steering, "PATIENCE_S", 0.5)
    said = steer(place, "pause", code=4)
    assert f"the coordinator of run kill (pid {child.pid}) has not answered within 0.5 s" in said
    assert "not answered yet" in steer(place, "status")
    monkeypatch.undo()
    child.signal(signal.SIGCONT)
    eventually(lambda: status(place).state == "paused", "the pause")
    steer(place, "unpause")
    finishes(place, child, QUICK)


def test_orders_in_quick_succession_are_all_obeyed_in_turn(place):
    """Many terminals at once: every order has its answer, and the run is done in the end."""
    keys = [f"g{number}" for number in range(40)]
    child = at_work(place, [f"{key} 0 gated" for key in keys], begun=2)
    given = [place.durabatch(*words, "--ledger", "l.db") for words in [("scale", "3"), ("set", "rate=off"), ("set", "batch-size=20"), ("scale", "2")] * 2]
    assert [one.end() for one in given] == [0] * len(given)
    place.open_gate()
    finishes(place, child, keys)
    assert all(one.outcome for one in orders(place))
