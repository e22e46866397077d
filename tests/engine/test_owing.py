"""
Attempts that did not succeed leave nothing behind: what they promised is undone before anything becomes of their items.
"""

from __future__ import annotations

import pytest

from durabatch.engine import active as actives
from durabatch.engine.accuse import accuse, claim_suspects
from durabatch.engine.cancel import cancel_page
from durabatch.engine.hold import hold, let_go
from durabatch.engine.recover import recover
from durabatch.engine.redo import amend, redo
from durabatch.engine.release import release
from durabatch.engine.retry import Chosen, retry
from durabatch.engine.withdraw import withdraw
from durabatch.flow.retrying import RetryPolicy
from durabatch.ledger import attempt, batch, item, run
from durabatch.ledger.undo import UNDO_AT_US
from tests import factory
from tests.factory import NOW, answer, failures, finished, give_back, ids, keys, promise, stepped, steps, take, undo_all

FAR = NOW + 10**15


def standing(ledger, item_id):
    """Return what is decided about an item: state, due time, attempts, uncharged ones."""
    found = item.get(ledger, item_id)
    return found.state, found.due_at_us, found.attempt_count, found.uncharged_count


def counters(ledger, run_id):
    """Return everything that is counted of a run and its batches, entries apart."""
    row = run.get(ledger, run_id)
    counts = actives.counts_of(row)
    return counts, row.attempt_count, [(one.item_count, one.ended_count, one.failed_count) for one in batch.list_of_run(ledger, run_id)]


@pytest.mark.parametrize(
    ("outcome", "policy"),
    [
        ("failed", RetryPolicy()),
        ("failed", RetryPolicy(3, backoff_s=60)),
        ("timed_out", RetryPolicy(2, backoff_s=0)),
        ("interrupted", RetryPolicy()),
        ("snoozed", RetryPolicy()),
        ("skipped", RetryPolicy()),
        ("cancelled", RetryPolicy()),
    ],
)
def test_the_item_waits_until_its_effects_are_undone_and_becomes_what_was_decided(ledger, outcome, policy):
    """Whatever but success: it is pending, and nobody's turn; then it stands as an item without effects does, counters and batch included."""
    plain, jobs = factory.run_of(ledger, 2, series="plain"), factory.run_of(ledger, 2)
    for one in (plain, jobs):
        made = take(ledger, one, 2, size=2)
        promise(ledger, jobs, made, "k1", entries=2)
        finished(ledger, one, failures(made, outcome, only={"k1"}, after_s=30 if outcome == "snoozed" else None), policy=policy)
        give_back(ledger, one, answer(made, only={"k2"}))
    assert standing(ledger, 3)[:2] == ("pending", UNDO_AT_US)
    assert (jobs.wanted_count, jobs.undoing_count, jobs.next_due_at_us, take(ledger, jobs, 9, now_us=FAR)) == (2, 1, None, None)
    assert undo_all(ledger, jobs) == ["k1.2", "k1.1"]
    assert (jobs.wanted_count, jobs.undoing_count, jobs.next_step_at_us) == (0, 0, None)
    assert standing(ledger, 3) == standing(ledger, 1)
    assert counters(ledger, jobs.run_id) == counters(ledger, plain.run_id)
    assert jobs.next_due_at_us == plain.next_due_at_us


def test_a_success_owes_nothing(ledger):
    """Its entries stay recorded, for a rollback."""
    jobs = factory.run_of(ledger, 1)
    made = take(ledger, jobs, 1)
    promise(ledger, jobs, made)
    give_back(ledger, jobs, answer(made))
    assert (standing(ledger, 1)[0], jobs.wanted_count, steps(ledger, jobs)) == ("succeeded", 0, [])


def test_what_remains_fails_its_item_for_good(ledger):
    """A step that fails for good leaves the older effects alone; the item has failed, with an attempt of its own that says why, and is not tried again."""
    jobs = factory.run_of(ledger, 2)
    made = take(ledger, jobs, 2, size=2)
    promise(ledger, jobs, made, "k1", entries=3)
    done = finished(ledger, jobs, failures(made, "failed", only={"k1"}), policy=RetryPolicy(9, backoff_s=0))
    assert (done.ended, done.ended_failed, done.failures[0].state) == ([], 0, "pending")
    stepped(ledger, jobs, steps(ledger, jobs))
    done = stepped(ledger, jobs, steps(ledger, jobs), "failed", retryable=False, error_type="GoneError", error_message="no server")
    assert [(one.key, one.action, one.error) for one in done.failed] == [("k1", "drop", "GoneError: no server")]
    assert (done.recorded, done.undone, done.ended, done.finished.ended_failed) == (1, 0, [1], 1)
    assert ledger.raw.execute("SELECT state, error FROM undo ORDER BY undo_id").fetchall() == [
        ("recorded", None), ("failed", "GoneError: no server"), ("undone", None),
    ]  # fmt: skip
    assert standing(ledger, 1) == ("failed", None, 2, 1)
    last = attempt.list_of_item(ledger, 1)[-1]
    assert (last.outcome, last.error_type, last.error_message) == ("failed", "UndoError", "effects remain: drop: GoneError: no server")
    assert (jobs.wanted_count, jobs.undoing_count, steps(ledger, jobs), take(ledger, jobs, 9, now_us=FAR)) == (0, 0, [], None)
    give_back(ledger, jobs, answer(made, only={"k2"}))
    assert batch.list_of_run(ledger, 1)[0].finished_at_us


@pytest.mark.parametrize("entries", [1, 2])
def test_what_cannot_be_undone_fails_its_item_once_the_rest_is(ledger, entries):
    """With nothing else to undo at once; a further try would have the effect twice."""
    jobs = factory.run_of(ledger, 1)
    made = take(ledger, jobs, 1)
    promise(ledger, jobs, made, action="send_mail", is_irreversible=True)
    if entries == 2:
        promise(ledger, jobs, made, sequence=2)
    done = finished(ledger, jobs, failures(made, "interrupted"), policy=RetryPolicy(9))
    if entries == 2:
        assert (done.ended, done.ended_failed, standing(ledger, 1)[1]) == ([], 0, UNDO_AT_US)
        done = stepped(ledger, jobs, steps(ledger, jobs)).finished
    assert (done.ended, done.ended_failed) == ([1], 1)
    assert standing(ledger, 1) == ("failed", None, 2, 2)
    assert attempt.list_of_item(ledger, 1)[-1].error_message == "effects remain: 'send_mail' cannot be undone"
    # Who runs it again knows that.
    retry(ledger, 1, Chosen(), now_us=NOW)
    actives.reload(ledger, jobs)
    made = take(ledger, jobs, 1)
    promise(ledger, jobs, made)
    give_back(ledger, jobs, failures(made, "failed"), max_attempts=2)
    undo_all(ledger, jobs)
    assert standing(ledger, 1)[:2] == ("pending", 0)


def test_a_suspect_runs_on_in_its_group_once_its_effects_are_undone(ledger):
    """While it is owed nobody waits for its group; one that is quarantined leaves the group at once."""
    jobs = factory.run_of(ledger, 3)
    made = take(ledger, jobs, 2)
    promise(ledger, jobs, made, "k1")

    def die(claimed, group, policy):
        with factory.tick(ledger, jobs):
            accuse(ledger, jobs, failures(claimed, "crashed"), group=group, policy=policy, now_us=NOW)

    def isolated():
        with factory.tick(ledger, jobs):
            return claim_suspects(ledger, jobs, max_bytes=1 << 20, now_us=NOW)

    die(made, (), RetryPolicy())
    assert (jobs.grouped_count, jobs.suspect_count) == (2, 1)
    assert isolated().suspects == (2,)
    undo_all(ledger, jobs)
    assert (jobs.grouped_count, jobs.suspect_count) == (2, 1)
    made = isolated()
    assert made.suspects == (1,)
    promise(ledger, jobs, made)
    die(made, (1,), RetryPolicy(max_deaths=2))
    assert (standing(ledger, 1)[:2], jobs.grouped_count) == (("pending", UNDO_AT_US), 1)
    undo_all(ledger, jobs)
    assert (standing(ledger, 1)[0], actives.load(ledger, 1).grouped_count) == ("quarantined", 1)


def test_after_a_crash_what_has_promised_had_begun(ledger):
    """In a cell or not: an interrupted attempt, and its effects are undone before the item runs again; others go without a trace. A second recovery finds nothing."""
    jobs = factory.run_of(ledger, 5)
    made = take(ledger, jobs, 5)
    promise(ledger, jobs, made, "k1", "k2")
    promise(ledger, jobs, made, "k4", action="send_mail", is_irreversible=True)
    give_back(ledger, jobs, answer(made, only={"k5"}))
    assert recover(ledger, 1, [(1, made.dispatch_id, 2, NOW - 50), (3, made.dispatch_id, 3, NOW - 70)], now_us=NOW) == (4, 4)
    assert recover(ledger, 1, [(1, made.dispatch_id, 2, NOW - 50)], now_us=NOW) == (0, 0)
    rows = [attempt.list_of_item(ledger, item_id)[0] for item_id in (1, 2, 3)]
    assert [(row.outcome, row.worker, row.started_at_us) for row in rows] == [("interrupted", 2, NOW - 50), ("interrupted", 0, NOW), ("interrupted", 3, NOW - 70)]
    assert [standing(ledger, item_id) for item_id in (1, 2, 3, 4)] == [
        ("pending", UNDO_AT_US, 1, 1), ("pending", UNDO_AT_US, 1, 1), ("pending", 0, 1, 1), ("failed", None, 2, 2),
    ]  # fmt: skip
    jobs = actives.load(ledger, 1)
    assert (jobs.wanted_count, jobs.undoing_count, jobs.attempt_count) == (2, 2, 6)
    assert keys(take(ledger, jobs, 9, now_us=FAR)) == ["k3"]
    undo_all(ledger, jobs)
    assert keys(take(ledger, jobs, 9)) == ["k1", "k2"]


def test_what_comes_back_as_not_begun_and_has_promised_had_begun(ledger):
    """A worker died behind an item whose end it had not sent: it is undone, and runs again; what comes late is not believed."""
    jobs = factory.run_of(ledger, 3)
    made = take(ledger, jobs, 3)
    promise(ledger, jobs, made, "k2")
    with factory.tick(ledger, jobs):
        assert release(ledger, jobs, made.dispatch_id, ids(made)) == 2
    assert [standing(ledger, item_id)[1:] for item_id in (1, 2, 3)] == [(0, 0, 0), (UNDO_AT_US, 1, 1), (0, 0, 0)]
    assert (give_back(ledger, jobs, answer(made)), promise(ledger, jobs, made, "k2", sequence=2)) == (0, [None])
    undo_all(ledger, jobs)
    assert keys(take(ledger, jobs, 9)) == ["k1", "k2", "k3"]


def owed(ledger, count=3, key="k2", *, max_attempts=2):
    """Return a run one of whose items failed and waits until its effects are undone."""
    jobs = factory.run_of(ledger, count)
    made = take(ledger, jobs, 2)
    promise(ledger, jobs, made, key)
    give_back(ledger, jobs, answer(made, failing={key}), max_attempts=max_attempts)
    return jobs


@pytest.mark.parametrize(("max_attempts", "end"), [(2, "cancelled"), (1, "failed")])
def test_a_cancelled_run_undoes_first(ledger, max_attempts, end):
    """Items that are owed are no part of the pages; what would run again is cancelled once it is undone, what had failed has."""
    jobs = owed(ledger, max_attempts=max_attempts)
    with factory.tick(ledger, jobs):
        assert [cancel_page(ledger, jobs, 9, NOW) for _ in range(2)] == [1, 0]
    assert (jobs.open_count, standing(ledger, 2)[:2]) == (1, ("pending", UNDO_AT_US))
    undo_all(ledger, jobs)
    assert (jobs.open_count, standing(ledger, 2)[0], standing(ledger, 3)[0]) == (0, end, "cancelled")


def test_an_owed_item_is_held_back_from_when_it_is_undone(ledger):
    """Before that it is neither held nor let go."""
    jobs = owed(ledger)
    assert hold(ledger, 1, 3).count == 0
    jobs = actives.load(ledger, 1)
    undo_all(ledger, jobs)
    assert (jobs.held_count, actives.load(ledger, 1).held_count, keys(take(ledger, jobs, 9))) == (1, 1, ["k3"])
    assert (let_go(ledger, 1), standing(ledger, 2)[:2]) == (1, ("pending", 0))


def test_a_hold_that_ends_before_the_undoing_leaves_no_trace(ledger):
    """The item runs when it is undone."""
    jobs = owed(ledger)
    hold(ledger, 1, 3)
    let_go(ledger, 1)
    undo_all(ledger, jobs)
    assert (jobs.held_count, standing(ledger, 2)[:2]) == (0, ("pending", 0))


def test_an_owed_item_that_the_input_changes_or_loses(ledger):
    """With another payload it runs once it is undone, whatever was decided; without any it is cancelled then."""
    jobs = owed(ledger, max_attempts=1)
    amend(ledger, 1, [(2, '"new"', 2)], cause="changed", now_us=NOW)
    assert standing(ledger, 2)[:2] == ("pending", UNDO_AT_US)
    actives.reload(ledger, jobs)
    undo_all(ledger, jobs)
    assert (standing(ledger, 2)[:2], item.get(ledger, 2).payload) == (("pending", 0), '"new"')
    other = owed(ledger)
    assert withdraw(ledger, other.run_id, [5, 6], now_us=NOW) == {"pending": 1}
    actives.reload(ledger, other)
    undo_all(ledger, other)
    assert [standing(ledger, item_id)[0] for item_id in (5, 6)] == ["cancelled", "cancelled"]
    assert withdraw(ledger, other.run_id, [5], now_us=NOW) == {"cancelled": 1}


def test_what_gone_items_did_is_undone_on_request(ledger):
    """They are cancelled at once, and stay so when their effects are taken back."""
    jobs = factory.run_of(ledger, 2)
    made = take(ledger, jobs, 2)
    promise(ledger, jobs, made)
    give_back(ledger, jobs, answer(made))
    assert withdraw(ledger, 1, [1], now_us=NOW, undo=True) == {"succeeded": 1}
    assert withdraw(ledger, 1, [2], now_us=NOW, lost=False, undo=True) == {"succeeded": 1}
    actives.reload(ledger, jobs)
    assert undo_all(ledger, jobs) == ["k2.1", "k1.1"]
    assert (jobs.wanted_count, jobs.undoing_count, run.get(ledger, 1).cancelled_count) == (0, 0, 2)


def test_items_that_run_again_are_undone_first_on_request(ledger):
    """A changed payload with undo waits for what the old one did; a redo during that leaves it owed."""
    jobs = factory.run_of(ledger, 1)
    made = take(ledger, jobs, 1)
    promise(ledger, jobs, made)
    give_back(ledger, jobs, answer(made))
    amend(ledger, 1, [(1, '"new"', 1)], cause="changed", now_us=NOW, undo=True)
    assert redo(ledger, 1, [1], cause="redone", now_us=NOW).total() == 0
    actives.reload(ledger, jobs)
    assert (standing(ledger, 1)[:2], take(ledger, jobs, 1)) == (("pending", UNDO_AT_US), None)
    undo_all(ledger, jobs)
    assert keys(take(ledger, jobs, 1)) == ["k1"]
