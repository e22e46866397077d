from __future__ import annotations

from durabatch.engine import active as actives
from durabatch.engine.conclude import conclude
from durabatch.engine.results import results
from durabatch.engine.retry import retry
from durabatch.ledger import attempt, batch, run
from durabatch.states import RunState
from tests import factory
from tests.factory import NOW, answer, give_back, keys, take


def finished_run(ledger, failing, **error):
    """Return a finished run of 12 items in batches of 5, of which *failing* keys failed."""
    jobs = factory.run_of(ledger, 12)
    factory.work_off(ledger, jobs, size=5, failing=failing, **error)
    conclude(ledger, jobs, RunState.FINISHED, reason=None, exit_code=1, elapsed_us=1_000_000, now_us=NOW)
    return jobs


def test_failed_items_are_pending_again_and_the_run_is_open(ledger):
    """The failed ones run again, in their batches, which are open until then; the others stay as they are."""
    jobs = finished_run(ledger, {"k2", "k7"})
    assert retry(ledger, jobs.run_id, error_type=None, now_us=NOW) == 2
    row = run.get(ledger, jobs.run_id)
    assert (row.state, row.finished_at_us, row.exit_code, row.pending_count, row.failed_count) == ("running", None, None, 2, 0)
    assert [found.finished_at_us is None for found in batch.list_of_run(ledger, 1)] == [True, True, False]
    jobs = actives.load(ledger, jobs.run_id)
    assert keys(take(ledger, jobs, 9, size=5)) == ["k2", "k7"]


def test_a_retried_item_succeeds_with_its_history(ledger):
    """Earlier attempts stay; the result counts the new one alone, and the batches are finished again."""
    jobs = finished_run(ledger, {"k2"})
    retry(ledger, jobs.run_id, error_type=None, now_us=NOW)
    jobs = actives.load(ledger, jobs.run_id)
    factory.work_off(ledger, jobs, size=5)
    assert [row.outcome for row in attempt.list_of_item(ledger, 2)] == ["failed", "succeeded"]
    assert [(one.ok, one.attempts) for one in results(ledger, 1)] == [(True, 1)] * 12
    assert [(number, failed) for number, failed, _ in batch.list_finished(ledger, 1)] == [(1, 0), (2, 0), (3, 0)]


def test_a_retried_item_has_its_whole_allowance(ledger):
    """Tries of before do not count against the limit."""
    jobs = finished_run(ledger, {"k2"})
    retry(ledger, jobs.run_id, error_type=None, now_us=NOW)
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
    assert retry(ledger, jobs.run_id, error_type="TimeoutError", now_us=NOW) == 2
    assert [one.state for one in results(ledger, 1)] == ["pending", "failed", "pending", "succeeded"]


def test_retry_without_failed_items_changes_nothing(ledger):
    """A finished run stays finished."""
    jobs = finished_run(ledger, ())
    assert retry(ledger, jobs.run_id, error_type=None, now_us=NOW) == 0
    assert run.get(ledger, jobs.run_id).state == "finished"


def test_published_batches_of_retried_items_are_published_again(ledger):
    """Their files are out of date from the retry on; those of the other batches are not."""
    jobs = finished_run(ledger, {"k2"})
    batch.mark_published(ledger, [1, 2, 3], NOW)
    retry(ledger, jobs.run_id, error_type=None, now_us=NOW)
    factory.work_off(ledger, actives.load(ledger, 1), size=5)
    assert batch.list_unpublished(ledger, 1, 10) == [(1, 1)]
    batch.mark_all_unpublished(ledger, 1)
    assert batch.list_unpublished(ledger, 1, 2) == [(1, 1), (2, 2)]
