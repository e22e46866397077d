from __future__ import annotations

from durabatch.engine import active as actives
from durabatch.engine.conclude import conclude
from durabatch.engine.results import results
from durabatch.engine.withdraw import withdraw
from durabatch.flow.retrying import RetryPolicy
from durabatch.ledger import batch, result_history, run
from durabatch.states import RunState
from tests import factory
from tests.factory import NOW, answer, failures, finished, give_back, take


def every_state(ledger):
    """Return a run of 8 items in batches of 3: two succeeded, one failed, one scheduled, one skipped, one running, two fresh."""
    jobs = factory.run_of(ledger, 8)
    give_back(ledger, jobs, answer(take(ledger, jobs, 3, size=3), failing={"k3"}))
    finished(ledger, jobs, failures(take(ledger, jobs, 2, size=3), "failed", "skipped"), policy=RetryPolicy(2, backoff_s=3600))
    return jobs, take(ledger, jobs, 1, size=3)


def test_whatever_it_was_it_is_cancelled(ledger):
    """Results are results of before, counters and batches follow; what is with a worker stays, and what is out already."""
    jobs, taken = every_state(ledger)
    run.set_output(ledger, 1, {"offset": 1})
    batch.mark_published(ledger, [1], NOW)
    moved = withdraw(ledger, 1, [1, 3, 4, 5, 6, 7], now_us=NOW)
    assert moved == {"succeeded": 1, "failed": 1, "scheduled": 1, "skipped": 1, "pending": 1}
    assert withdraw(ledger, 1, [1, 3, 6], now_us=NOW) == {}
    row = run.get(ledger, 1)
    assert (row.cancelled_count, row.gone_count, row.succeeded_count, row.running_count, "offset" in row.output) == (5, 5, 1, 1, False)
    assert (result_history.list_of_item(ledger, 1)[0].cause, result_history.list_of_item(ledger, 2)) == ("gone", [])
    assert batch.list_unpublished(ledger, 1, 9) == [(1, 1)]
    assert batch.list_finished(ledger, 1)[0][:2] == (1, 2)
    actives.reload(ledger, jobs)
    give_back(ledger, jobs, answer(taken))
    factory.work_off(ledger, jobs, size=3)
    assert {one.key for one in results(ledger, 1) if one.ok} == {"k2", "k6", "k8"}
    assert all(one.finished_at_us for one in batch.list_of_run(ledger, 1))


def test_a_finished_run_stays_finished(ledger):
    """Its batches are there to be published again."""
    jobs = factory.run_of(ledger, 4)
    factory.work_off(ledger, jobs, size=2)
    conclude(ledger, jobs, RunState.FINISHED, reason=None, exit_code=0, elapsed_us=1, now_us=NOW)
    batch.mark_published(ledger, [1, 2], NOW)
    withdraw(ledger, 1, [1, 2], now_us=NOW)
    assert (run.get(ledger, 1).state, batch.list_unpublished(ledger, 1, 9)) == ("finished", [(1, 1)])


def test_cancelling_what_the_input_has_is_no_loss(ledger):
    """It keeps its place and is not counted as gone; if the input then loses it, it is."""
    factory.run_of(ledger, 2)
    assert withdraw(ledger, 1, [1], now_us=NOW, lost=False) == {"pending": 1}
    assert withdraw(ledger, 1, [1], now_us=NOW, lost=False) == {}
    assert (run.get(ledger, 1).gone_count, run.get(ledger, 1).cancelled_count) == (0, 1)
    assert withdraw(ledger, 1, [1], now_us=NOW) == {"cancelled": 1}
    assert (run.get(ledger, 1).gone_count, run.get(ledger, 1).cancelled_count) == (1, 1)
