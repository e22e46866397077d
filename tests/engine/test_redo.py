from __future__ import annotations

import tracemalloc

import pytest

from durabatch.codec import payload_digest
from durabatch.engine import active as actives
from durabatch.engine.conclude import conclude
from durabatch.engine.redo import amend, redo, redo_finished, redo_from, reposition
from durabatch.engine.release import release
from durabatch.engine.results import results
from durabatch.engine.retry import Chosen, retry
from durabatch.engine.withdraw import withdraw
from durabatch.flow.retrying import RetryPolicy
from durabatch.ledger import attempt, batch, changing, item, result_history, run, suspect
from durabatch.states import RunState
from tests import factory
from tests.factory import NOW, answer, failures, finished, give_back, keys, take


def finished_run(ledger, count=12, **answered):
    """Return a finished run in batches of 5, all of it published and delivered, with an output file that has grown."""
    jobs = factory.run_of(ledger, count)
    factory.work_off(ledger, jobs, size=5, **answered)
    conclude(ledger, jobs, RunState.FINISHED, reason=None, exit_code=0, elapsed_us=1_000_000, now_us=NOW)
    batch.mark_published(ledger, [row.batch_id for row in batch.list_of_run(ledger, jobs.run_id)], NOW)
    run.set_output(ledger, jobs.run_id, {"offset": 99})
    return jobs


def states(ledger, run_id=1):
    """Return the state of every item by its key."""
    return {one.key: one.state for one in results(ledger, run_id)}


def run_on(ledger, run_id=1, **answered):
    """Work the run off and return what was run, in order."""
    jobs, ran = actives.load(ledger, run_id), []
    while made := take(ledger, jobs, 3, size=5):
        ran += keys(made)
        give_back(ledger, jobs, answer(made, **answered))
    return ran


def test_a_redone_item_runs_again_and_its_result_is_one_of_before(ledger):
    """The value stays readable by its attempt; the run goes on, the batch is open, and what was published of it is void."""
    jobs = finished_run(ledger, packed={"k7"})
    assert redo(ledger, jobs.run_id, [2, 7], cause="redone", now_us=NOW + 5) == {"succeeded": 2}
    row = run.get(ledger, 1)
    assert (row.state, row.exit_code, row.pending_count, row.succeeded_count, "offset" in row.output) == ("running", None, 2, 10, False)
    assert [found.finished_at_us is None for found in batch.list_of_run(ledger, 1)] == [True, True, False]
    assert result_history.get(ledger, 2, 1) == ('"k2!"', None, None, None)
    assert [(one.number, one.cause, one.moved_at_us, one.value_bytes) for one in result_history.list_of_item(ledger, 7)] == [(1, "redone", NOW + 5, 5)]
    assert run_on(ledger) == ["k2", "k7"]
    assert [row.outcome for row in attempt.list_of_item(ledger, 2)] == ["succeeded", "succeeded"]
    assert [number for _, number in batch.list_unpublished(ledger, 1, 9)] == [1, 2]
    assert [one.attempts for one in results(ledger, 1)] == [1] * 12


def test_a_second_redo_keeps_the_first_result_too(ledger):
    """Each attempt that returned something has its value."""
    finished_run(ledger, 2)
    for number in (1, 2):
        redo(ledger, 1, [1], cause="redone", now_us=NOW + number)
        assert run_on(ledger) == ["k1"]
    assert [(one.number, one.moved_at_us) for one in result_history.list_of_item(ledger, 1)] == [(1, NOW + 1), (2, NOW + 2)]


def test_unfinished_and_lost_items_are_not_redone(ledger):
    """They stay as they are, and a run without ended ones among the chosen is not reopened."""
    jobs = factory.run_of(ledger, 4)
    give_back(ledger, jobs, answer(take(ledger, jobs, 1)))
    taken = take(ledger, jobs, 1)
    withdraw(ledger, 1, [4], now_us=NOW)
    assert redo(ledger, 1, [2, 3, 4], cause="redone", now_us=NOW) == {}
    assert redo(ledger, 1, [], cause="redone", now_us=NOW) == {}
    assert retry(ledger, 1, Chosen(states=("cancelled",)), now_us=NOW) == 0
    assert states(ledger) == {"k1": "succeeded", "k2": "running", "k3": "pending", "k4": "cancelled"}
    jobs = actives.load(ledger, 1)
    with factory.tick(ledger, jobs):
        release(ledger, jobs, taken.dispatch_id, factory.ids(taken))


def test_everything_from_an_item_on_runs_again(ledger, monkeypatch):
    """Whatever became of it, in pages; what stands before stays."""
    monkeypatch.setattr("durabatch.engine.redo.PAGE", 2)
    finished_run(ledger, failing={"k3", "k9"})
    withdraw(ledger, 1, [11], now_us=NOW)
    assert redo_from(ledger, 1, 6, NOW) == 6
    assert run_on(ledger) == ["k6", "k7", "k8", "k9", "k10", "k12"]
    found = states(ledger)
    assert [key for key, state in found.items() if state != "succeeded"] == ["k3", "k11"]


def test_another_version_redoes_what_a_handler_made(ledger):
    """Failed, skipped and succeeded items run again, those a person cancelled do not."""
    jobs = factory.run_of(ledger, 4)
    give_back(ledger, jobs, answer(take(ledger, jobs, 2), failing={"k2"}))
    finished(ledger, jobs, failures(take(ledger, jobs, 1), "skipped", error_message="no use"))
    withdraw(ledger, 1, [4], now_us=NOW, lost=False)
    assert redo_finished(ledger, 1, NOW) == 3
    assert states(ledger) == {"k1": "pending", "k2": "pending", "k3": "pending", "k4": "cancelled"}
    assert result_history.list_of_item(ledger, 1)[0].cause == "changed"


def test_a_changed_payload_is_run(ledger):
    """Of an ended item again, of a waiting one when its turn comes, with everything counted anew; the digest is the new one's."""
    jobs = factory.run_of(ledger, 5)
    give_back(ledger, jobs, answer(take(ledger, jobs, 1)))
    finished(ledger, jobs, failures(take(ledger, jobs, 1), "failed"), policy=RetryPolicy(3, backoff_s=3600))
    changes = [(number, f'"new {number}"', 40 + number) for number in (1, 2, 4)]
    assert amend(ledger, 1, changes, cause="changed", now_us=NOW) == {"succeeded": 1, "scheduled": 1, "pending": 1}
    jobs = actives.load(ledger, 1)
    made = take(ledger, jobs, 9)
    assert [work[2:] for _, works in made.groups for work in works] == [("k1", '"new 1"'), ("k2", '"new 2"'), ("k3", '"k3"'), ("k4", '"new 4"'), ("k5", '"k5"')]
    stored = item.get(ledger, 2)
    assert (stored.digest, stored.source_position, stored.attempt_count, stored.earlier_count) == (payload_digest('"new 2"'), 42, 1, 1)
    assert ledger.raw.execute("SELECT digest FROM result_history").fetchall() == [(payload_digest('"k1"'),)]


def test_a_withdrawn_item_comes_back_with_its_row(ledger):
    """It counts as gone no more, and runs in its batch."""
    finished_run(ledger, 3)
    withdraw(ledger, 1, [2, 3], now_us=NOW)
    assert run.get(ledger, 1).gone_count == 2
    amend(ledger, 1, [(2, '"k2"', 7)], cause="changed", now_us=NOW)
    row = run.get(ledger, 1)
    assert (row.gone_count, row.cancelled_count, row.pending_count, row.state) == (1, 1, 1, "running")
    assert run_on(ledger) == ["k2"]


def test_what_a_worker_makes_of_an_old_payload_counts_for_nothing(ledger):
    """Its item runs again with the new one; the late message changes nothing."""
    jobs = factory.run_of(ledger, 2)
    late = take(ledger, jobs, 2)
    assert amend(ledger, 1, [(1, '"new"', 1)], cause="changed", now_us=NOW) == {"running": 1}
    actives.reload(ledger, jobs)
    assert give_back(ledger, jobs, answer(late)) == 1
    made = take(ledger, jobs, 2)
    assert [work[3] for _, works in made.groups for work in works] == ['"new"']
    give_back(ledger, jobs, answer(made))


def test_the_last_of_several_changes_counts(ledger):
    """An item that is changed twice at once has the later payload."""
    finished_run(ledger, 1)
    assert amend(ledger, 1, [(1, '"a"', 1), (1, '"b"', 2)], cause="changed", now_us=NOW) == {"succeeded": 1}
    assert item.get(ledger, 1).payload == '"b"'


def test_a_changed_payload_may_have_another_place(ledger):
    """Its priority follows it; an item in input order gets its rank, one outside of it keeps its own."""
    jobs = factory.run_of(ledger, 4)
    give_back(ledger, jobs, answer(take(ledger, jobs, 1)))
    amend(ledger, 1, [(4, '"urgent"', 4), (1, '"late"', 1)], cause="changed", now_us=NOW, place=lambda payload: (9, 0) if "urgent" in payload else (-1, None))
    assert run_on(ledger) == ["k4", "k2", "k3", "k1"]


def test_suspicion_and_old_limits_end_with_a_redo(ledger):
    """A suspect that runs again because somebody asks has a clean record."""
    finished_run(ledger, 2)
    suspect.add_death(ledger, 1, 1)
    redo(ledger, 1, [1], cause="redone", now_us=NOW)
    assert suspect.deaths(ledger, 1) == 0
    assert (item.get(ledger, 1).uncharged_count, item.get(ledger, 1).earlier_count) == (1, 1)


def test_rows_may_move_without_anything_running(ledger):
    """Positions follow, but for items that the input has lost."""
    finished_run(ledger, 3)
    withdraw(ledger, 1, [3], now_us=NOW)
    reposition(ledger, [(1, 8), (2, changing.KEPT), (3, 9)])
    assert [item.get(ledger, number).source_position for number in (1, 2, 3)] == [8, changing.KEPT, 0]
    assert states(ledger) == {"k1": "succeeded", "k2": "succeeded", "k3": "cancelled"}


@pytest.mark.parametrize("verb", [lambda ledger: redo_from(ledger, 1, 1, NOW), lambda ledger: redo_finished(ledger, 1, NOW)])
def test_memory_does_not_grow_with_the_items(ledger, monkeypatch, verb):
    """A page at a time, however many there are."""
    monkeypatch.setattr("durabatch.engine.redo.PAGE", 100)
    jobs, peaks = factory.new_run(ledger), []
    for count in (300, 3000):
        factory.add(ledger, jobs, [None] * count)
        factory.work_off(ledger, jobs, limit=500, size=500)
        tracemalloc.start()
        assert verb(ledger) == run.get(ledger, 1).total_count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        actives.reload(ledger, jobs)
    assert peaks[1] < peaks[0] + 100_000
