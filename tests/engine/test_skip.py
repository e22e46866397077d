from __future__ import annotations

from durabatch.engine import active as actives
from durabatch.engine.release import release
from durabatch.engine.results import results
from durabatch.engine.skip import claim_checks, skip
from durabatch.engine.status import skipped_groups
from durabatch.ledger import attempt, batch, run
from tests import factory
from tests.factory import NOW, answer, failures, finished, give_back, keys, take


def refusal(item_id, number=1, reason="closed", remedy="open it"):
    """Return the attempt of a check that failed."""
    return {**factory.failure(item_id, number, "failed").row, "error_message": reason, "remedy": remedy}


def refuse(ledger, jobs, *rows):
    """Skip items, as a tick of its own."""
    with factory.tick(ledger, jobs):
        return skip(ledger, jobs, rows, now_us=NOW)


def test_refused_items_are_left_out_before_the_first_runs(ledger):
    """They are skipped with reason and remedy, the others run, and batches hold those alone."""
    jobs = factory.run_of(ledger, 6)
    assert refuse(ledger, jobs, refusal(1), refusal(3), refusal(6)) == 3
    assert keys(take(ledger, jobs, 9, size=2)) == ["k2", "k4", "k5"]
    row = attempt.list_of_item(ledger, 3)[0]
    assert (row.outcome, row.error_type, row.error_message, row.remedy) == ("skipped", None, "closed", "open it")
    row = run.get(ledger, 1)
    assert (row.skipped_count, row.attempt_count, row.batch_count) == (3, 3, 2)


def test_all_may_be_refused(ledger):
    """A run of which nothing is left is at its end, without a batch."""
    jobs = factory.run_of(ledger, 3)
    refuse(ledger, jobs, *(refusal(number) for number in (1, 2, 3)))
    assert (take(ledger, jobs, 9), jobs.open_count, batch.list_of_run(ledger, 1)) == (None, 0, [])


def test_an_item_that_was_tried_meanwhile_is_not_skipped(ledger):
    """Only a pending item with as many attempts as the check saw is; a message that comes twice changes nothing."""
    jobs = factory.run_of(ledger, 4)
    made = take(ledger, jobs, 3)
    give_back(ledger, jobs, answer(made, only={"k2", "k3"}, failing={"k3"}), max_attempts=2)
    assert refuse(ledger, jobs, refusal(1), refusal(2), refusal(3), refusal(4), refusal(4), refusal(99)) == 1
    assert [one.state for one in results(ledger, 1)] == ["running", "succeeded", "pending", "skipped"]


def test_one_that_has_a_batch_ends_in_it(ledger):
    """A released or retried item counts in its batch, and not as failed."""
    jobs = factory.run_of(ledger, 2)
    made = take(ledger, jobs, 2)
    with factory.tick(ledger, jobs):
        release(ledger, jobs, made.dispatch_id, [1, 2])
    give_back(ledger, jobs, answer(take(ledger, jobs, 1), failing={"k1"}), max_attempts=2)
    assert refuse(ledger, jobs, refusal(1, number=2), refusal(2)) == 2
    assert batch.list_finished(ledger, 1) == [(1, 0, 0.0)]


def test_checks_read_pending_items_page_by_page(ledger):
    """In input order, across spans and bounds, without changing anything."""
    jobs, other = factory.new_run(ledger), factory.new_run(ledger, "other")
    for target, names in ((jobs, "ab"), (other, "xyz"), (jobs, "c"), (jobs, "de")):
        factory.add(ledger, target, list(names), complete=True)
    refuse(ledger, jobs, refusal(2))
    before = factory.tables(ledger.files.ledger)
    pages, first = [], 1
    while page := claim_checks(ledger, jobs, first, limit=2, max_bytes=100):
        pages.append([work[2] for work in page])
        first = page[-1][0] + 1
    assert pages == [["a"], ["c", "d"], ["e"]]
    assert claim_checks(ledger, jobs, 7, limit=9, max_bytes=100, last_item_id=7) == [(7, 1, "d", '"d"')]
    assert claim_checks(ledger, jobs, 2, limit=9, max_bytes=100, last_item_id=2) == []
    assert [work[2] for work in claim_checks(ledger, jobs, 6, limit=9, max_bytes=7)] == ["c", "d"]
    assert factory.tables(ledger.files.ledger) == before


def test_skipped_items_are_grouped_by_reason(ledger):
    """Biggest group first, each with its remedy and one key; whether a check or the handler itself said so, and of this run alone."""
    jobs, other = factory.run_of(ledger, 5), factory.run_of(ledger, 1, series="other")
    refuse(ledger, other, refusal(6))
    refuse(ledger, jobs, refusal(1, reason="old", remedy=None), refusal(2))
    finished(ledger, jobs, failures(take(ledger, jobs, 9), "skipped", only={"k4"}, error_message="closed", remedy="open it"))
    groups = [(one.reason, one.remedy, one.item_count, one.first_key) for one in skipped_groups(ledger, 1)]
    assert groups == [("closed", "open it", 2, "k2"), ("old", None, 1, "k1")]
    assert actives.load(ledger, 1).counts["skipped"] == 3
