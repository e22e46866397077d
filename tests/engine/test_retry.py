from __future__ import annotations

import tracemalloc

import pytest

from durabatch import errors
from durabatch.engine import active as actives
from durabatch.engine.cancel import cancel_page
from durabatch.engine.conclude import conclude
from durabatch.engine.results import results
from durabatch.engine.retry import Chosen, retry
from durabatch.engine.skip import skip
from durabatch.flow.retrying import RetryPolicy
from durabatch.ledger import attempt, batch, item, run
from durabatch.states import RunState
from tests import factory
from tests.factory import NOW, answer, failures, finished, give_back, keys, take


def finished_run(ledger, failing, **error):
    """Return a finished run of 12 items in batches of 5, of which *failing* keys failed."""
    jobs = factory.run_of(ledger, 12)
    factory.work_off(ledger, jobs, size=5, failing=failing, **error)
    conclude(ledger, jobs, RunState.FINISHED, reason=None, exit_code=1, elapsed_us=1_000_000, now_us=NOW)
    return jobs


def test_failed_items_are_pending_again_and_the_run_is_open(ledger):
    """The failed ones run again, in their batches, which are open until then; the others stay as they are."""
    jobs = finished_run(ledger, {"k2", "k7"})
    assert retry(ledger, jobs.run_id, Chosen(), now_us=NOW) == 2
    row = run.get(ledger, jobs.run_id)
    assert (row.state, row.finished_at_us, row.exit_code, row.pending_count, row.failed_count) == ("running", None, None, 2, 0)
    assert [found.finished_at_us is None for found in batch.list_of_run(ledger, 1)] == [True, True, False]
    jobs = actives.load(ledger, jobs.run_id)
    assert keys(take(ledger, jobs, 9, size=5)) == ["k2", "k7"]


def test_a_retried_item_succeeds_with_its_history(ledger):
    """Earlier attempts stay; the result counts the new one alone, and the batches are finished again."""
    jobs = finished_run(ledger, {"k2"})
    retry(ledger, jobs.run_id, Chosen(), now_us=NOW)
    jobs = actives.load(ledger, jobs.run_id)
    factory.work_off(ledger, jobs, size=5)
    assert [row.outcome for row in attempt.list_of_item(ledger, 2)] == ["failed", "succeeded"]
    assert [(one.ok, one.attempts) for one in results(ledger, 1)] == [(True, 1)] * 12
    assert [(number, failed) for number, failed, _ in batch.list_finished(ledger, 1)] == [(1, 0), (2, 0), (3, 0)]


def test_a_retried_item_has_its_whole_allowance(ledger):
    """Tries of before do not count against the limit."""
    jobs = finished_run(ledger, {"k2"})
    retry(ledger, jobs.run_id, Chosen(), now_us=NOW)
    jobs = actives.load(ledger, jobs.run_id)
    for _ in range(3):
        give_back(ledger, jobs, answer(take(ledger, jobs, 1, size=5), failing={"k2"}), max_attempts=3)
    assert take(ledger, jobs, 1, size=5) is None
    assert run.get(ledger, 1).failed_count == 1
    assert len(attempt.list_of_item(ledger, 2)) == 4


def test_retry_by_error_type_takes_those_alone(ledger):
    """Items whose last error is another one stay failed."""
    jobs = factory.run_of(ledger, 4)
    made = take(ledger, jobs, 4)
    give_back(ledger, jobs, answer(made, failing={"k1", "k3"}, only={"k1", "k3"}, error_type="TimeoutError"))
    give_back(ledger, jobs, answer(made, failing={"k2"}, only={"k2", "k4"}))
    assert retry(ledger, jobs.run_id, Chosen(error_type="TimeoutError"), now_us=NOW) == 2
    assert [one.state for one in results(ledger, 1)] == ["pending", "failed", "pending", "succeeded"]


def test_retry_without_failed_items_changes_nothing(ledger):
    """A finished run stays finished."""
    jobs = finished_run(ledger, ())
    assert retry(ledger, jobs.run_id, Chosen(), now_us=NOW) == 0
    assert run.get(ledger, jobs.run_id).state == "finished"


def test_published_batches_of_retried_items_are_published_again(ledger):
    """Their files are out of date from the retry on; those of the other batches are not."""
    jobs = finished_run(ledger, {"k2"})
    batch.mark_published(ledger, [1, 2, 3], NOW)
    retry(ledger, jobs.run_id, Chosen(), now_us=NOW)
    factory.work_off(ledger, actives.load(ledger, 1), size=5)
    assert batch.list_unpublished(ledger, 1, 10) == [(1, 1)]
    batch.mark_all_unpublished(ledger, 1)
    assert batch.list_unpublished(ledger, 1, 2) == [(1, 1), (2, 2)]


def ended_every_way(ledger):
    """Return a run of 8 items: two succeeded, and two each failed (one by another error), were skipped and were cancelled."""
    jobs = factory.run_of(ledger, 8)
    give_back(ledger, jobs, answer(take(ledger, jobs, 2, size=3)))
    finished(ledger, jobs, failures(take(ledger, jobs, 1, size=3), "failed", error_group="ValueError: <n>"))
    finished(ledger, jobs, failures(take(ledger, jobs, 1, size=3), "failed", error_type="OSError", error_group="OSError: full"))
    finished(ledger, jobs, failures(take(ledger, jobs, 1, size=3), "skipped", error_message="no use"))
    with factory.tick(ledger, jobs):
        skip(ledger, jobs, [failures_row(6)], now_us=NOW)
        while cancel_page(ledger, jobs, 1, NOW):
            continue
    conclude(ledger, jobs, RunState.CANCELLED, reason="enough", exit_code=1, elapsed_us=1, now_us=NOW)
    return jobs


def failures_row(item_id):
    """Return the attempt row of a failed check."""
    return {**factory.failure(item_id, 1, "skipped").row, "error_message": "closed", "remedy": "open it"}


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (Chosen(), ["k3", "k4"]),
        (Chosen(states=("failed", "skipped")), ["k3", "k4", "k5", "k6"]),
        (Chosen(states=("cancelled",)), ["k7", "k8"]),
        (Chosen(states=("skipped", "cancelled", "failed", "quarantined")), ["k3", "k4", "k5", "k6", "k7", "k8"]),
        (Chosen(error_type="OSError"), ["k4"]),
        (Chosen(group="ValueError: <n>"), ["k3"]),
        (Chosen(group="ValueError: <n>", error_type="OSError"), []),
        (Chosen(keys=("k4", "k1", "k6")), ["k4"]),
        (Chosen(keys=("k6", "k4"), states=("skipped", "failed")), ["k4", "k6"]),
        (Chosen(where="key >= 'k4'"), ["k4"]),
        (Chosen(where="batch IS NULL", states=("skipped", "cancelled")), ["k6", "k7", "k8"]),
        (Chosen(keys=("k3", "k4"), where="error_type = 'OSError'"), ["k4"]),
        (Chosen(where="0"), []),
    ],
)
def test_items_are_chosen_by_all_that_is_said(ledger, monkeypatch, chosen, expected):
    """State, error, group, key and expression together; what is not meant stays as it is, in pages of any size, and the batches are right."""
    monkeypatch.setattr("durabatch.engine.retry.PAGE", 1)
    jobs = ended_every_way(ledger)
    assert retry(ledger, jobs.run_id, chosen, now_us=NOW) == len(expected)
    assert [one.key for one in results(ledger, 1) if one.state == "pending"] == expected
    assert run.get(ledger, 1).state == ("running" if expected else "cancelled")
    jobs = actives.load(ledger, jobs.run_id)
    factory.work_off(ledger, jobs, size=3)
    assert {one.key for one in results(ledger, 1) if one.ok} == {"k1", "k2", *expected}
    assert all(row.finished_at_us for row in batch.list_of_run(ledger, 1))


def test_a_key_that_is_not_there_is_named(ledger):
    """Nothing is moved when one of the keys is wrong."""
    jobs = finished_run(ledger, {"k2"})
    with pytest.raises(errors.NotFoundError, match="'k99'"):
        retry(ledger, jobs.run_id, Chosen(keys=("k2", "k99")), now_us=NOW)
    assert run.get(ledger, 1).failed_count == 1


def test_a_state_from_which_nothing_runs_again_is_refused(ledger):
    """Succeeded items are not run again, and others have not ended."""
    jobs = finished_run(ledger, {"k2"})
    with pytest.raises(errors.UsageError, match="succeeded"):
        retry(ledger, jobs.run_id, Chosen(states=("failed", "succeeded")), now_us=NOW)


def test_a_wrong_expression_changes_nothing(ledger):
    """It is the user's error, in one line."""
    jobs = finished_run(ledger, {"k2"})
    with pytest.raises(errors.SqlError):
        retry(ledger, jobs.run_id, Chosen(where="no_such_column = 1"), now_us=NOW)
    assert run.get(ledger, 1).state == "finished"


def test_everything_is_counted_anew_after_a_retry(ledger):
    """Snoozes and the item's time too: both begin with the first try after it."""
    jobs = factory.run_of(ledger, 1)
    policy = RetryPolicy(item_deadline_s=60)
    finished(ledger, jobs, failures(take(ledger, jobs, 1), "snoozed", after_s=1), policy=policy, now_us=NOW)
    finished(ledger, jobs, failures(take(ledger, jobs, 1, now_us=NOW + 10**7), "failed"), policy=policy, now_us=NOW + 10**7)
    assert retry(ledger, 1, Chosen(), now_us=NOW) == 1
    stored = item.get(ledger, 1)
    assert (stored.attempt_count, stored.uncharged_count, stored.earlier_count) == (2, 2, 2)
    assert (attempt.history(ledger, 1, 2), attempt.first_started(ledger, [1])) == ((0, None), {})
    jobs, later = actives.load(ledger, 1), NOW + 3600 * 10**6
    finished(ledger, jobs, failures(take(ledger, jobs, 1, now_us=later), "snoozed", after_s=50, started_at_us=later), policy=policy, now_us=later)
    assert (attempt.history(ledger, 1, 2), attempt.first_started(ledger, [1])) == ((1, later), {1: later})
    assert run.get(ledger, 1).scheduled_count == 1


def test_memory_does_not_grow_with_the_items(ledger, monkeypatch):
    """A page at a time, however many there are."""
    monkeypatch.setattr("durabatch.engine.retry.PAGE", 100)
    peaks = []
    for count in (300, 6000):
        jobs = factory.run_of(ledger, count)
        with factory.tick(ledger, jobs):
            while cancel_page(ledger, jobs, 1000, NOW):
                continue
        tracemalloc.start()
        assert retry(ledger, jobs.run_id, Chosen(states=("cancelled",)), now_us=NOW) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000
