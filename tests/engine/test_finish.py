from __future__ import annotations

import pytest

from durabatch.engine import active as actives
from durabatch.engine.release import release
from durabatch.engine.results import results
from durabatch.ledger import attempt, batch, item, run
from tests import factory
from tests.factory import NOW, answer, failure, give_back, ids, take


def standing(ledger):
    return [row[0] for row in ledger.raw.execute("SELECT state FROM item ORDER BY item_id")]


def everything(ledger):
    """Return every row of the tables that finish writes."""
    return [ledger.raw.execute(f"SELECT * FROM {table}").fetchall() for table in ("run", "batch", "item", "attempt", "segment", "result")]


def test_successes_are_recorded_whole(ledger):
    """States, attempts, values, counters and the finished batch are there together."""
    jobs = factory.run_of(ledger, 3)
    assert give_back(ledger, jobs, answer(take(ledger, jobs, 3))) == 3
    row = run.get(ledger, jobs.run_id)
    assert (row.succeeded_count, row.running_count, row.attempt_count) == (3, 0, 3)
    assert [(one.key, one.value, one.attempts) for one in results(ledger, jobs.run_id)] == [(f"k{n}", f"k{n}!", 1) for n in (1, 2, 3)]
    assert attempt.list_of_item(ledger, 1) == [attempt.AttemptRow(1, 1, "succeeded", NOW, 500, *[None] * 6)]
    assert [(found.ended_count, found.failed_count, found.finished_at_us) for found in batch.list_of_run(ledger, 1)] == [(3, 0, NOW + 1000)]


def test_a_second_flush_changes_nothing(ledger):
    """The same message again finds that its dispatch holds no item any more."""
    jobs = factory.run_of(ledger, 3)
    back = answer(take(ledger, jobs, 3), failing={"k1"}, packed={"k2"})
    assert give_back(ledger, jobs, back) == 3
    before = everything(ledger)
    assert give_back(ledger, jobs, back) == 0
    assert everything(ledger) == before


def test_a_late_flush_changes_nothing(ledger):
    """After the item went to another dispatch, what the first one says comes too late."""
    jobs = factory.run_of(ledger, 3)
    first = take(ledger, jobs, 3)
    with factory.tick(ledger, jobs):
        release(ledger, jobs, first.dispatch_id, ids(first))
    second = take(ledger, jobs, 3)
    before = everything(ledger)
    assert give_back(ledger, jobs, answer(first, packed={"k2"}, failing={"k3"})) == 0
    assert everything(ledger) == before
    assert give_back(ledger, jobs, answer(second)) == 3


@pytest.mark.parametrize("packed", [(), ("k1", "k2", "k3", "k4")], ids=["inline", "packed"])
def test_of_a_partly_late_flush_the_held_items_count(ledger, packed):
    """Two of four were called back meanwhile: the other two are recorded, with their own values."""
    jobs = factory.run_of(ledger, 4)
    first = take(ledger, jobs, 4)
    with factory.tick(ledger, jobs):
        release(ledger, jobs, first.dispatch_id, [2, 4])
    assert give_back(ledger, jobs, answer(first, packed=packed)) == 2
    assert standing(ledger) == ["succeeded", "pending", "succeeded", "pending"]
    assert [one.value_json for one in results(ledger, jobs.run_id)] == ['"k1!"', None, '"k3!"', None]


def test_ids_with_gaps_are_recorded(ledger):
    """A flush of items that do not lie side by side touches those, and no neighbour."""
    jobs = factory.run_of(ledger, 6)
    made = take(ledger, jobs, 6)
    assert give_back(ledger, jobs, answer(made, only={"k1", "k3", "k6"})) == 3
    assert standing(ledger) == ["succeeded", "running", "succeeded", "running", "running", "succeeded"]
    assert give_back(ledger, jobs, answer(made, only={"k2", "k4", "k5"})) == 3


def test_packed_values_of_two_batches_come_back(ledger):
    """Each batch has its own segment, and every item reads its own slice."""
    jobs = factory.run_of(ledger, 8)
    give_back(ledger, jobs, answer(take(ledger, jobs, 8, size=5), packed={"k2", "k4", "k5", "k7", "k8"}))
    assert ledger.raw.execute("SELECT batch_id, raw_bytes FROM segment").fetchall() == [(1, 15), (2, 10)]
    assert [one.value for one in results(ledger, jobs.run_id)] == [f"k{number}!" for number in range(1, 9)]


def test_a_failure_is_recorded_with_its_words(ledger):
    """Type, message, traceback, exit code and tails stand in the attempt; the item and its batch are failed."""
    jobs = factory.run_of(ledger, 2)
    words = {"error_type": "CommandError", "error_message": "exit code 3", "exit_code": 3, "stderr_tail": "oh", "traceback": "t"}
    give_back(ledger, jobs, answer(take(ledger, jobs, 2), failing={"k2"}, **words))
    (found,) = attempt.list_of_item(ledger, 2)
    assert {name: getattr(found, name) for name in words} == words
    assert standing(ledger) == ["succeeded", "failed"]
    assert [(row.ended_count, row.failed_count) for row in batch.list_of_run(ledger, 1)] == [(2, 1)]


def test_tries_are_counted_up_to_the_limit(ledger):
    """With three tries an item fails at the third; before that it waits, its batch open."""
    jobs = factory.run_of(ledger, 1)
    states = []
    for _ in range(3):
        give_back(ledger, jobs, answer(take(ledger, jobs, 1), failing={"k1"}), max_attempts=3)
        states += standing(ledger)
    assert states == ["pending", "pending", "failed"]
    assert (item.get(ledger, 1).attempt_count, item.get(ledger, 1).uncharged_count) == (3, 0)


def test_an_interruption_charges_nothing(ledger):
    """However often the worker is stopped, the item has its full allowance."""
    jobs = factory.run_of(ledger, 1)
    for number in (1, 2):
        back = answer(take(ledger, jobs, 1), only=())
        back.failed.append(failure(1, number, "interrupted"))
        back.batch_of[1] = 1
        assert give_back(ledger, jobs, back, max_attempts=1) == 1
    give_back(ledger, jobs, answer(take(ledger, jobs, 1)))
    assert [row.outcome for row in attempt.list_of_item(ledger, 1)] == ["interrupted", "interrupted", "succeeded"]
    assert next(results(ledger, jobs.run_id)).attempts == 1


def test_no_retry_where_the_handler_said_so(ledger):
    """A failure that is not retryable ends the item at once."""
    jobs = factory.run_of(ledger, 1)
    back = answer(take(ledger, jobs, 1), only=())
    back.failed.append(failure(1, 1, retryable=False))
    back.batch_of[1] = 1
    give_back(ledger, jobs, back, max_attempts=9)
    assert standing(ledger) == ["failed"]


def test_a_skipped_item_has_ended_without_failing(ledger):
    """It counts as skipped, has no result, and its batch did not fail."""
    jobs = factory.run_of(ledger, 1)
    back = answer(take(ledger, jobs, 1), only=())
    back.failed.append(failure(1, 1, "skipped"))
    back.batch_of[1] = 1
    give_back(ledger, jobs, back)
    assert run.get(ledger, 1).skipped_count == 1
    assert batch.list_finished(ledger, 1) == [(1, 0, 0.001)]


def test_a_finish_that_fails_leaves_nothing(ledger):
    """An exception in the tick takes back every row of it."""
    jobs = factory.run_of(ledger, 3)
    made = take(ledger, jobs, 3)
    before = everything(ledger)
    with pytest.raises(ZeroDivisionError), ledger.transaction():
        give_back(ledger, jobs, answer(made, packed={"k1"}, failing={"k2"}))
        _ = 1 / 0
    assert everything(ledger) == before
    jobs = actives.load(ledger, 1)
    assert give_back(ledger, jobs, answer(made)) == 3
