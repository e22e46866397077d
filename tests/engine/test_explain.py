from __future__ import annotations

from dataclasses import replace

import pytest

from durabatch.engine import active as actives
from durabatch.engine.accuse import accuse
from durabatch.engine.conclude import conclude
from durabatch.engine.explain import explain, gathered, next_steps
from durabatch.engine.hold import hold, let_go
from durabatch.engine.recover import recover
from durabatch.engine.redo import amend, redo, reposition
from durabatch.engine.withdraw import withdraw
from durabatch.errors import NotFoundError
from durabatch.flow.retrying import RetryPolicy
from durabatch.ledger.changing import KEPT
from durabatch.states import RunState
from tests import factory
from tests.factory import NOW, answer, failure, failures, finished, give_back, take

STARTED = "2027-01-15T08:00:00.000Z"


def told(ledger, key, now_us=NOW):
    """Return what is said of an item: its state, and the three lists as one."""
    found = explain(ledger, 1, key, now_us=now_us)
    return found.state, [*found.happened, *found.recorded, *found.next]


def expect(ledger, key, state, *parts, now_us=NOW):
    """Compare: each of *parts* stands in a sentence, in this order."""
    found, sentences = told(ledger, key, now_us)
    assert found == state
    left = iter(sentences)
    assert all(any(part in sentence for sentence in left) for part in parts), sentences


def test_ended_items_say_how_they_ended_and_what_would_run_them_again(ledger):
    """Tries, results, results of before, and the command."""
    jobs = factory.run_of(ledger, 5)
    give_back(ledger, jobs, answer(take(ledger, jobs, 1), packed={"k1"}))
    finished(ledger, jobs, failures(take(ledger, jobs, 1), "timed_out", error_type="TimeoutError", error_message="after 1 s"))
    finished(ledger, jobs, failures(take(ledger, jobs, 1), "skipped", error_message="nothing in it"))
    withdraw(ledger, 1, [5], now_us=NOW, lost=False)
    finished(ledger, actives.load(ledger, 1), failures(take(ledger, actives.load(ledger, 1), 1), "failed"), policy=RetryPolicy(1))
    expect(
        ledger, "k1", "succeeded", "row 1 of the input", f"try 1, at {STARTED} by worker 1, succeeded after less than a millisecond", "a payload of 4 bytes",
        "batch 1, which is finished", "a result of 5 bytes, from try 1", "it has succeeded. --from-item k1",
    )  # fmt: skip
    expect(ledger, "k2", "failed", "ran out of time after less than a millisecond: TimeoutError: after 1 s", "all its tries are used (1 of 1). `durabatch retry jobs --key k2`")
    expect(ledger, "k3", "skipped", "found that there is nothing to do after less than a millisecond: nothing in it", "`durabatch retry jobs --key k3 --state skipped`")
    expect(ledger, "k5", "cancelled", "no try has ended yet", "it was cancelled", "retry jobs --key k5 --state cancelled")
    redo(ledger, 1, [1], cause="redone", now_us=NOW)
    expect(ledger, "k1", "pending", f"an earlier result of 5 bytes, from try 1, replaced at {STARTED} because somebody asked", "runs when its turn comes")


def test_waiting_items_say_what_they_wait_for(ledger):
    """Their turn, a time, a hold, or that a suspect is cleared; and what keeps the run from going on."""
    jobs = factory.run_of(ledger, 4)
    finished(ledger, jobs, failures(take(ledger, jobs, 1), "failed"), policy=RetryPolicy(3, backoff_s=90))
    facts = replace(gathered(ledger, 1, "k1", NOW), max_attempts=3)
    assert "it waits until 2027-01-15T08:01:30.001Z, for 90s from now, for try 2 (1 of 3 tries used)" in next(next_steps(facts))
    assert "its time has come" in next(next_steps(replace(facts, now_us=NOW + 10**9)))
    expect(ledger, "k2", "pending", "it is next in the order of the input", "nobody works on the run, which is interrupted: `durabatch resume jobs`")
    expect(ledger, "k4", "pending", "behind at most 2 items")
    for now, part in (
        (replace(facts.run, state="paused", reason="lunch"), "paused (lunch): `durabatch unpause`"),
        (replace(facts.run, state="halted", reason="enough"), "halted (enough): `durabatch resume jobs`"),
        (replace(facts.run, state="running"), "the run is at work"),
        (replace(facts.run, state="running", binding_limit="rate"), "held back by its limit on rate"),
    ):
        assert part in list(next_steps(replace(facts, run=now)))[1]
    hold(ledger, 1, 4)
    expect(ledger, "k3", "pending", "it is held back")
    let_go(ledger, 1)
    made = take(ledger, actives.load(ledger, 1), 1)
    back = answer(made, only=())
    back.failed.append(failure(made.groups[0][1][0][0], 1, "crashed"))
    back.batch_of[2] = made.groups[0][0]
    jobs = actives.load(ledger, 1)
    with factory.tick(ledger, jobs):
        accuse(ledger, jobs, back, group=(), policy=RetryPolicy(), now_us=NOW)
    expect(ledger, "k2", "pending", "ended its worker", "1 worker died while it ran", "it is suspected to end its worker")


def test_an_item_that_a_worker_has_says_so(ledger):
    """Also when nobody is there any more; what a crash cut off is told as such."""
    jobs = factory.run_of(ledger, 1)
    made = take(ledger, jobs, 1)
    facts = gathered(ledger, 1, "k1", NOW)
    assert list(next_steps(facts)) == ["a worker had it when the coordinator ended; the next start of the run takes it back and runs it"]
    assert list(next_steps(replace(facts, run=replace(facts.run, state="running")))) == ["a worker has it: this is try 1"]
    recover(ledger, 1, [(1, made.dispatch_id, 1, NOW)], now_us=NOW)
    expect(ledger, "k1", "pending", "was interrupted: the run was stopped, or its coordinator died; it counts for nothing")


def test_an_item_says_what_the_input_did_to_it(ledger):
    """Taken out, kept, submitted, or changed."""
    jobs = factory.run_of(ledger, 4)
    factory.work_off(ledger, jobs)
    conclude(ledger, jobs, RunState.FINISHED, reason=None, exit_code=0, elapsed_us=1, now_us=NOW)
    withdraw(ledger, 1, [1], now_us=NOW)
    reposition(ledger, [(2, KEPT), (3, -7)])
    amend(ledger, 1, [(4, '"new"', 4)], cause="changed", now_us=NOW)
    expect(ledger, "k1", "cancelled", "it came from the input", "the input no longer had it", "because the item was taken out", "until its row is in the input again")
    expect(ledger, "k2", "succeeded", "it came from the input, which no longer has it; it was kept")
    expect(ledger, "k3", "succeeded", "it was submitted by a program")
    expect(ledger, "k4", "pending", "because the item's payload or the handler's version changed")


def test_a_key_that_is_not_there_is_named(ledger):
    """With the hint that it may still come, while the input is being read."""
    jobs = factory.run_of(ledger, 1, complete=False)
    with pytest.raises(NotFoundError, match=r"no item 'x' in run jobs, as far as its input has been read"):
        explain(ledger, jobs.run_id, "x", now_us=NOW)


def test_the_command_explains(worked, command):
    """In words, or as one document."""
    shown = command("explain", "k20", "--run", "jobs", "--ledger", str(worked))
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.splitlines()[:2] == ["k20: succeeded, item 20 of run jobs", "what happened:"]
    assert "an earlier result of 6 bytes, from try 1" in shown.out
    document = command("explain", "k4", "--run", "jobs", "--json", "--ledger", str(worked))
    assert '"state": "failed"' in document.out or '"state":"failed"' in document.out
    missing = command("explain", "k99", "--run", "jobs", "--ledger", str(worked))
    assert (missing.code, missing.out) == (2, "")
    assert "no item 'k99' in run jobs" in missing.err
