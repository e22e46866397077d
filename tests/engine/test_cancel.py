from __future__ import annotations

import pytest

from durabatch.engine import active as actives
from durabatch.engine.cancel import cancel_page
from durabatch.engine.conclude import conclude
from durabatch.engine.release import release
from durabatch.engine.results import results
from durabatch.flow.retrying import RetryPolicy
from durabatch.ledger import batch, run
from durabatch.states import RunState
from tests import factory
from tests.factory import NOW, answer, failures, finished, give_back, ids, take


def cancel_all(ledger, jobs, limit):
    """Cancel page by page; return the sizes of the pages."""
    sizes = []
    while True:
        with factory.tick(ledger, jobs):
            sizes.append(cancel_page(ledger, jobs, limit, NOW))
        if not sizes[-1]:
            return sizes


def mixed_run(ledger):
    """Return a run of 12 items: two succeeded, one waits for a retry, two were given back, one is running, six were never claimed."""
    jobs = factory.run_of(ledger, 12)
    made = take(ledger, jobs, 6, size=5)
    give_back(ledger, jobs, answer(made, only={"k1", "k2"}))
    finished(ledger, jobs, failures(made, "failed", only={"k3"}), policy=RetryPolicy(max_attempts=2, backoff_s=60))
    with factory.tick(ledger, jobs):
        release(ledger, jobs, made.dispatch_id, [4, 5])
    return jobs, made


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
def test_what_nobody_runs_is_left_out(ledger, limit):
    """Waiting items of every kind, in pages; running ones end as they would have, and the run can be concluded."""
    jobs, made = mixed_run(ledger)
    assert sum(cancel_all(ledger, jobs, limit)) == 9
    row = run.get(ledger, 1)
    assert (row.cancelled_count, row.pending_count, row.scheduled_count, row.running_count, row.succeeded_count) == (9, 0, 0, 1, 2)
    assert take(ledger, jobs, 9) is None
    give_back(ledger, jobs, answer(made, only={"k6"}))
    assert cancel_all(ledger, jobs, limit) == [0]
    assert [(found.item_count, found.ended_count, found.failed_count) for found in batch.list_of_run(ledger, 1)] == [(5, 5, 3), (1, 1, 0)]
    assert all(found.finished_at_us for found in batch.list_of_run(ledger, 1))
    conclude(ledger, jobs, RunState.CANCELLED, reason="enough", exit_code=1, elapsed_us=1, now_us=NOW)
    assert [one.attempts for one in results(ledger, 1)] == [1, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]


def test_a_cancellation_that_was_cut_short_goes_on(ledger):
    """Each page is whole on disk; another coordinator finds the rest."""
    jobs, _ = mixed_run(ledger)
    with factory.tick(ledger, jobs):
        cancel_page(ledger, jobs, 4, NOW)
    jobs = actives.load(ledger, 1)
    assert sum(cancel_all(ledger, jobs, 3)) == 6


def test_other_runs_are_left_alone(ledger):
    """Pages cross from span to span of their run and touch nothing between."""
    jobs, other = factory.new_run(ledger), factory.new_run(ledger, "other")
    for target, names in ((jobs, "ab"), (other, "xyz"), (jobs, "c"), (other, "w"), (jobs, "de")):
        factory.add(ledger, target, list(names))
    assert cancel_all(ledger, jobs, 2) == [2, 1, 2, 0]
    assert [one.state for one in results(ledger, other.run_id)] == ["pending"] * 4
    assert ids(take(ledger, other, 9)) == [3, 4, 5, 7]


def test_intake_that_goes_on_finds_its_place(ledger):
    """Items that come after a cancellation are claimed like any others."""
    jobs = factory.run_of(ledger, 3, complete=False)
    cancel_all(ledger, jobs, 9)
    factory.add(ledger, jobs, ["late"], complete=True)
    assert factory.keys(take(ledger, actives.load(ledger, 1), 9)) == ["late"]
