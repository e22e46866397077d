from __future__ import annotations

from dataclasses import replace

import pytest

from durabatch.engine import active as actives
from durabatch.engine.finish import FailureNote
from durabatch.engine.release import release
from durabatch.engine.results import results
from durabatch.flow.retrying import MAX_SNOOZES, RetryPolicy
from durabatch.ledger import attempt, batch, item, run
from durabatch.states import AttemptOutcome, ItemState
from tests import factory
from tests.factory import NOW, answer, failure, failures, finished, give_back, ids, take

SECOND = 1_000_000


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


def test_a_failure_with_tries_left_waits_for_its_time(ledger):
    """The wait grows with each try, is a share of its bound, and stands on the item; nothing claims it before."""
    jobs = factory.run_of(ledger, 1)
    policy = RetryPolicy(max_attempts=4, backoff_s=10, backoff_factor=3, backoff_cap_s=60)
    now = NOW
    for wait_s in (5, 15, 30):
        made = take(ledger, jobs, 1, now_us=now)
        done = finished(ledger, jobs, failures(made, "failed"), policy=policy, now_us=now, luck=0.5)
        assert (done.recorded, done.ended_failed, done.failures[0].state) == (1, 0, "scheduled")
        assert jobs.next_due_at_us == item.get(ledger, 1).due_at_us == now + wait_s * SECOND
        row = run.get(ledger, 1)
        assert (row.scheduled_count, row.pending_count, row.running_count) == (1, 0, 0)
        assert take(ledger, jobs, 1, now_us=jobs.next_due_at_us - 1) is None
        now = jobs.next_due_at_us
    assert finished(ledger, jobs, failures(take(ledger, jobs, 1, now_us=now), "failed"), policy=policy).ended_failed == 1
    assert standing(ledger) == ["failed"]
    assert (run.get(ledger, 1).scheduled_count, jobs.next_due_at_us) == (0, None)


def test_due_times_outlive_the_coordinator(ledger):
    """Whoever goes on with the run keeps the schedule."""
    jobs = factory.run_of(ledger, 2)
    finished(ledger, jobs, failures(take(ledger, jobs, 1), "failed"), policy=RetryPolicy(max_attempts=2, backoff_s=60), now_us=NOW)
    jobs = actives.load(ledger, 1)
    assert (jobs.next_due_at_us, jobs.counts["scheduled"]) == (NOW + 60 * SECOND, 1)
    assert ids(take(ledger, jobs, 9, now_us=NOW + SECOND)) == [2]
    assert ids(take(ledger, jobs, 9, now_us=NOW + 60 * SECOND)) == [1]


def test_a_handler_names_its_own_wait(ledger):
    """What it asks for counts instead of the policy, and is passed on to those who pause for all."""
    jobs = factory.run_of(ledger, 1)
    back = failures(take(ledger, jobs, 1), "failed", after_s=7, error_group="ValueError: no")
    done = finished(ledger, jobs, back, policy=RetryPolicy(max_attempts=2, backoff_s=900), now_us=NOW)
    assert done.failures == [FailureNote(1, AttemptOutcome.FAILED, "ValueError: no", ItemState.SCHEDULED, 7)]
    assert jobs.next_due_at_us == NOW + 7 * SECOND


def test_a_snooze_charges_nothing_and_has_an_end(ledger):
    """A hundred times it is called later; the next one is a failure that says so. What is counted anew after a retry is that, too."""
    jobs = factory.run_of(ledger, 1)
    for number in range(MAX_SNOOZES + 1):
        back = failures(take(ledger, jobs, 1, now_us=NOW + number * SECOND), "snoozed", after_s=1, error_message="later")
        finished(ledger, jobs, back, now_us=NOW + number * SECOND)
        assert standing(ledger) == ["scheduled" if number < MAX_SNOOZES else "failed"]
    rows = attempt.list_of_item(ledger, 1)
    assert [row.outcome for row in rows] == ["snoozed"] * MAX_SNOOZES + ["failed"]
    assert (rows[0].error_type, rows[0].error_message) == (None, "later")
    assert (rows[-1].error_type, rows[-1].error_message) == ("TooManySnoozes", "snoozed 100 times before")
    assert next(results(ledger, 1)).attempts == 0


def test_an_item_deadline_counts_from_the_first_start(ledger):
    """A wait beyond it ends the item, and the attempt says why."""
    jobs = factory.run_of(ledger, 1)
    policy = RetryPolicy(max_attempts=9, backoff_s=50, backoff_factor=1, item_deadline_s=60)
    finished(ledger, jobs, failures(take(ledger, jobs, 1), "failed"), policy=policy, now_us=NOW)
    assert standing(ledger) == ["scheduled"]
    now = NOW + 50 * SECOND
    back = failures(take(ledger, jobs, 1, now_us=now), "failed", started_at_us=now)
    finished(ledger, jobs, back, policy=policy, now_us=now)
    assert standing(ledger) == ["failed"]
    assert attempt.list_of_item(ledger, 1)[-1].error_message == "no; item deadline of 1m"


def test_the_kind_of_an_error_decides_about_another_try(ledger):
    """Names of classes and exit codes reach the policy."""
    jobs = factory.run_of(ledger, 3)
    made = take(ledger, jobs, 3)
    back = failures(made, "failed", exit_code=75)
    kinds = (("OSError", "ConnectionError"), ("ValueError",), ("OSError", "GaveUp"))
    back.failed = [replace(one, kinds=names) for one, names in zip(back.failed, kinds, strict=True)]
    policy = RetryPolicy(max_attempts=2, retry_on=("OSError",), give_up_on=("GaveUp",), retry_exit=(75,))
    assert [note.state for note in finished(ledger, jobs, back, policy=policy).failures] == ["scheduled", "failed", "failed"]


def test_what_is_known_of_an_attempt_is_kept(ledger):
    """Group, remedy, signal, peak memory and spending of those that failed; peak memory and spending of those that did not."""
    jobs = factory.run_of(ledger, 4)
    words = {"error_group": "ValueError: <n>", "remedy": "Wait.", "signal": 9, "peak_rss_bytes": 77}
    back = answer(take(ledger, jobs, 4), failing={"k2"}, **words)
    back.failed.append(failure(4, 1, peak_rss_bytes=None))
    back.batch_of[4] = 1
    back.peak_rss_bytes = 1 << 30
    back.spends = {2: {"usd": 0.5}, 3: {"usd": 0.25, "tokens": 12}}
    back.inline = [row for row in back.inline if row[0] != 4]
    finished(ledger, jobs, back)
    first, second, third, fourth = (attempt.list_of_item(ledger, item_id)[0] for item_id in (1, 2, 3, 4))
    assert {name: getattr(second, name) for name in words} == words
    assert {first.peak_rss_bytes, third.peak_rss_bytes, fourth.peak_rss_bytes} == {1 << 30}
    assert (first.spent, second.spent, third.spent) == (None, '{"usd":0.5}', '{"usd":0.25,"tokens":12}')


def test_the_stretch_and_the_single_rows_say_the_same(ledger):
    """First tries side by side, later tries and ids with gaps: the same columns."""
    jobs = factory.run_of(ledger, 4)
    give_back(ledger, jobs, answer(take(ledger, jobs, 1), failing={"k1"}), max_attempts=2)
    back = answer(take(ledger, jobs, 4))
    back.peak_rss_bytes = 5
    give_back(ledger, jobs, back)
    rows = ledger.raw.execute("SELECT worker, outcome, started_at_us, duration_us, peak_rss_bytes FROM attempt WHERE outcome = 'succeeded'").fetchall()
    assert rows == [(1, "succeeded", NOW, 500, 5)] * 4


def test_spending_adds_up_on_the_run(ledger):
    """By unit, over messages and coordinators; what came late or twice is not counted again."""
    jobs = factory.run_of(ledger, 4)
    made = take(ledger, jobs, 4)
    back = answer(made, only={"k1", "k2"}, failing={"k2"})
    back.spends = {1: {"usd": 0.1}, 2: {"usd": 0.2}}
    finished(ledger, jobs, back)
    finished(ledger, jobs, back)
    assert jobs.spent == run.get(ledger, 1).spent == {"usd": 0.3}
    jobs = actives.load(ledger, 1)
    back = answer(made, only={"k2", "k3", "k4"}, packed={"k4"})
    back.spends = {2: {"usd": 5}, 3: {"tokens": 7}, 4: {"usd": 1}}
    finished(ledger, jobs, back)
    assert jobs.spent == run.get(ledger, 1).spent == {"usd": 1.3, "tokens": 7}


def test_what_was_new_is_told(ledger):
    """Attempts, successes, items that failed for good, and a note for each that did not succeed."""
    jobs = factory.run_of(ledger, 4)
    made = take(ledger, jobs, 4)
    back = answer(made, failing={"k2", "k3"}, packed={"k4"})
    back.failed[1] = replace(back.failed[1], outcome=AttemptOutcome.SKIPPED, row={**back.failed[1].row, "outcome": "skipped", "error_type": None})
    done = finished(ledger, jobs, back)
    assert (done.recorded, done.succeeded, done.ended_failed) == (4, 2, 1)
    assert [(note.item_id, note.outcome, note.state) for note in done.failures] == [(2, "failed", "failed"), (3, "skipped", "skipped")]
    again = finished(ledger, jobs, back)
    assert (again.recorded, again.succeeded, again.ended_failed, again.failures) == (0, 0, 0, [])
