from __future__ import annotations

import pytest

from durabatch import errors
from durabatch.engine.conclude import conclude
from durabatch.engine.results import chosen, results, results_of_batch
from durabatch.engine.start import open_session, resume_run
from durabatch.engine.status import attempts, error_groups, eta_s, handler_text, list_runs, status
from durabatch.flow.retrying import RetryPolicy
from durabatch.ledger import event, run
from durabatch.ledger.locks import Ownership
from durabatch.ledger.reader import Reader
from durabatch.models import Counts
from durabatch.states import RunState
from tests import factory
from tests.factory import NOW, answer, failures, finished, give_back, take

ABOUT = {"pid": 1, "host": "h", "since": "now", "run": "jobs"}


def test_a_run_that_nobody_holds_is_interrupted(ledger):
    """The row says running until somebody resumes it; people are told what it means."""
    factory.run_of(ledger, 3)
    assert status(ledger, None).state == "interrupted"
    ownership = Ownership(ledger.files, ABOUT)
    assert status(ledger, "jobs").state == "running"
    ownership.release()


def test_status_says_where_a_run_stands(ledger):
    """Counters, rate, times and reason come from one row."""
    jobs = factory.run_of(ledger, 4)
    give_back(ledger, jobs, answer(take(ledger, jobs, 3), failing={"k2"}))
    conclude(ledger, jobs, RunState.HALTED, reason="drained", exit_code=3, elapsed_us=2_000_000, now_us=NOW)
    now = status(ledger, jobs.run_id)
    assert (now.state, now.reason, now.exit_code, now.handler) == ("halted", "drained", 3, "jobs:work")
    assert now.counts == Counts(total=4, pending=1, succeeded=2, failed=1)
    assert (now.items_per_s, now.elapsed_s, now.attempt_count, now.batch_count, now.finished_at) == (1.5, 2.0, 3, 1, None)
    assert now.started_at == "2027-01-15T08:00:00.000Z"


def test_a_finished_run_can_be_taken_up_again(ledger):
    """Concluding sets the end, resuming takes it away, and both leave an event."""
    jobs = factory.run_of(ledger, 2)
    factory.work_off(ledger, jobs)
    conclude(ledger, jobs, RunState.FINISHED, reason=None, exit_code=0, elapsed_us=0, now_us=NOW)
    assert status(ledger, None).finished_at == "2027-01-15T08:00:00.000Z"
    resume_run(ledger, jobs.run_id, handler=factory.HANDLER, settings={"workers": 3}, fingerprint=None, now_us=NOW)
    row = run.get(ledger, jobs.run_id)
    assert (row.state, row.finished_at_us, row.exit_code, row.settings) == ("running", None, None, {"workers": 3})
    assert [kind for (kind,) in ledger.raw.execute("SELECT kind FROM event ORDER BY event_id")] == ["created", "finished", "resumed"]


def test_a_run_with_open_items_cannot_be_finished(ledger):
    """The table itself refuses it: nothing was changed."""
    jobs = factory.run_of(ledger, 2)
    with pytest.raises(errors.LedgerError):
        conclude(ledger, jobs, RunState.FINISHED, reason=None, exit_code=0, elapsed_us=0, now_us=NOW)
    assert run.get(ledger, jobs.run_id).state == "running"


@pytest.mark.parametrize(("left", "rate", "complete", "expected"), [(10, 4.0, True, 2.5), (10, 0.0, True, None), (10, 4.0, False, None)])
def test_the_time_left_is_said_only_when_known(left, rate, complete, expected):
    """While items are still being read, or nothing has ended yet, nobody knows."""
    assert eta_s(left, rate, complete=complete) == expected


def test_runs_of_a_series_are_numbered_and_found_by_name(ledger):
    """The first has the plain name, the next ones a number; the name finds the newest, a full name or an id that one."""
    for _ in range(3):
        factory.new_run(ledger, "nightly")
    factory.new_run(ledger, "other")
    assert [one.name for one in list_runs(ledger)] == ["nightly", "nightly#2", "nightly#3", "other"]
    found = [run.find(ledger, name).run_id for name in ("nightly", "nightly#2", "1", 2, None)]
    assert found == [3, 2, 1, 2, 4]


def test_a_name_that_is_taken_is_passed_over(ledger):
    """A series called like the second run of another one does not stop that one."""
    for series in ("a", "a#2", "a", "a#2"):
        factory.new_run(ledger, series)
    assert [one.name for one in list_runs(ledger)] == ["a", "a#2", "a#3", "a#2#2"]


@pytest.mark.parametrize("name", ["nope", "99", "9" * 30, 17])
def test_an_unknown_run_is_named_with_those_that_are_there(ledger, name):
    """The error lists up to five runs, whatever was asked for."""
    for _ in range(7):
        factory.new_run(ledger)
    with pytest.raises(errors.NotFoundError, match="no run") as caught:
        run.find(ledger, name)
    assert "jobs#7" in str(caught.value) or "durabatch runs" in str(caught.value)


def test_an_empty_ledger_has_no_latest_run(ledger):
    """Asking for the latest one says so."""
    with pytest.raises(errors.NotFoundError, match="holds no run"):
        run.find(ledger, None)


def test_status_says_what_was_spent_and_what_comes(ledger):
    """Amounts so far, at the end if it goes on like this, and when the next waiting item is due."""
    jobs = factory.run_of(ledger, 4)
    made = take(ledger, jobs, 3)
    back = answer(made, only={"k1", "k2"})
    back.spends = {1: {"usd": 0.5}, 2: {"usd": 1.0}}
    give_back(ledger, jobs, back)
    finished(ledger, jobs, failures(made, "failed", only={"k3"}), policy=RetryPolicy(max_attempts=2, backoff_s=60), now_us=NOW)
    now = status(ledger, 1)
    assert (now.spent, now.forecast, now.next_due_at) == ({"usd": 1.5}, {"usd": 3.0}, "2027-01-15T08:01:00.000Z")
    assert status(ledger, 1).as_json()["spent"] == {"usd": 1.5}
    open_run = factory.run_of(ledger, 1, series="open", complete=False)
    back = answer(take(ledger, open_run, 1))
    back.spends = {5: {"usd": 1.0}}
    give_back(ledger, open_run, back)
    assert (status(ledger, 2).forecast, status(ledger, 2).next_due_at) == ({}, None)


def test_tries_are_shown_with_all_that_is_known(ledger):
    """What went wrong, what to do about it, what the process did, and what it cost."""
    jobs = factory.run_of(ledger, 1)
    words = {"error_group": "ValueError: <n>", "remedy": "Wait.", "exit_code": -9, "signal": 9, "stdout_tail": "out", "stderr_tail": "err"}
    back = failures(take(ledger, jobs, 1), "failed", **words)
    back.peak_rss_bytes, back.spends = 5, {1: {"usd": 2}}
    give_back(ledger, jobs, back, max_attempts=2)
    give_back(ledger, jobs, failures(take(ledger, jobs, 1), "skipped", error_message="no use"))
    first, second = attempts(ledger, 1)
    assert (first.error, first.group, first.remedy, first.exit_code, first.signal) == ("ValueError: no", "ValueError: <n>", "Wait.", -9, 9)
    assert (first.stdout_tail, first.stderr_tail, first.peak_rss_bytes, first.spent) == ("out", "err", 5, {"usd": 2})
    assert (second.outcome, second.error, second.spent, second.duration_s) == ("skipped", "no use", {}, 0.0005)


def test_errors_that_differ_in_numbers_are_one_group(ledger):
    """The group counts, with the message of its first item; what has no group is grouped by its words."""
    jobs = factory.run_of(ledger, 5)
    made = take(ledger, jobs, 5)
    for key, group, message in (("k1", None, "odd"), ("k2", "OSError: <n>", "5"), ("k3", "OSError: <n>", "6"), ("k4", None, "odd"), ("k5", None, "even")):
        give_back(ledger, jobs, failures(made, "failed", only={key}, error_type="OSError", error_message=message, error_group=group))
    groups = [(one.group, one.message, one.item_count, one.first_key, one.last_key) for one in error_groups(ledger, 1)]
    assert groups == [("OSError: odd", "odd", 2, "k1", "k4"), ("OSError: <n>", "5", 2, "k2", "k3"), ("OSError: even", "even", 1, "k5", "k5")]
    assert len(error_groups(ledger, 1, 2)) == 2


def test_errors_are_grouped_biggest_first(ledger):
    """One group for each type and message, with the first and the last key."""
    jobs = factory.run_of(ledger, 6)
    made = take(ledger, jobs, 6)
    give_back(ledger, jobs, answer(made, failing={"k2"}, only={"k1", "k2"}, error_type="OSError", error_message="full"))
    give_back(ledger, jobs, answer(made, failing={"k3", "k5", "k6"}, only={"k3", "k4", "k5", "k6"}))
    groups = [(one.error_type, one.message, one.item_count, one.first_key, one.last_key) for one in error_groups(ledger, 1)]
    assert groups == [("ValueError", "no", 3, "k3", "k6"), ("OSError", "full", 1, "k2", "k2")]


def test_results_come_in_input_order_across_pages_and_spans(ledger, monkeypatch):
    """Reading in pages of three changes nothing, nor do items of other runs in between."""
    monkeypatch.setattr("durabatch.engine.results.PAGE", 3)
    jobs, other = factory.new_run(ledger), factory.new_run(ledger, "other")
    for target, count in ((jobs, 4), (other, 2), (jobs, 3), (other, 1), (jobs, 1)):
        factory.add(ledger, target, [f"{target.run_id}-{target.total_count + number}" for number in range(count)])
    assert [one.key for one in results(ledger, jobs.run_id)] == [f"1-{number}" for number in range(8)]
    assert [one.key for one in results(ledger, other.run_id)] == ["2-0", "2-1", "2-2"]


def test_an_error_is_shown_until_the_item_succeeds(ledger):
    """The last attempt's words stand with items that failed or wait, and not with those that made it."""
    jobs = factory.run_of(ledger, 3)
    give_back(ledger, jobs, answer(take(ledger, jobs, 3), failing={"k1", "k2"}), max_attempts=2)
    give_back(ledger, jobs, answer(take(ledger, jobs, 1)), max_attempts=2)
    assert [(one.state, one.error) for one in results(ledger, 1)] == [("succeeded", None), ("pending", "ValueError: no"), ("succeeded", None)]


def test_chosen_items_come_in_the_given_order(ledger):
    """Whoever asks for items by id gets them as asked."""
    jobs = factory.run_of(ledger, 5)
    factory.work_off(ledger, jobs, packed={"k2", "k4"})
    assert [one.value for one in chosen(ledger, [4, 1, 2])] == ["k4!", "k1!", "k2!"]
    assert [one.key for one in results_of_batch(ledger, 1)] == ["k1", "k2", "k3", "k4", "k5"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("UPDATE segment SET data = x'00'", "damaged"),
        ("UPDATE segment SET data = substr(data, 1, length(data) - 2)", "damaged"),
        ("UPDATE segment SET raw_bytes = raw_bytes + 1", "differs from what was recorded"),
        ("UPDATE segment SET raw_bytes = 1 << 40", "differs from what was recorded"),
        ("UPDATE segment SET digest = zeroblob(32)", "differs from what was recorded"),
        ("UPDATE result SET segment_offset = 9 WHERE item_id = 2", "beyond its segment"),
        ("UPDATE result SET segment_offset = -3 WHERE item_id = 2", "beyond its segment"),
        ("DELETE FROM segment", "missing"),
    ],
)
def test_a_damaged_result_is_named_and_the_others_are_read(worked, text, why):
    """It is exit code 4 for whoever insists on it; a reader that goes on gets every other value."""
    factory.sabotage(worked, text)
    with Reader(worked) as reader:
        with pytest.raises(errors.LedgerDamagedError, match=why) as caught:
            list(results(reader, 1))
        damaged = []
        found = {one.key: one for one in results(reader, 1, on_damage=damaged.append)}
    assert caught.value.exit_code == 4
    assert "'k2'" in str(damaged[0])
    assert (found["k2"].state, found["k2"].value_json, found["k5"].value, len(found)) == ("succeeded", None, "k5!", 25)


def test_a_run_row_that_is_no_json_is_named(worked):
    """A damaged column is a damaged ledger, not a traceback."""
    factory.sabotage(worked, "UPDATE run SET settings = '{' WHERE run_id = 1")
    with Reader(worked) as reader, pytest.raises(errors.LedgerDamagedError, match="settings of run 1 is no JSON"):
        status(reader, 1)


def test_the_makers_words_are_those_of_the_first_session(ledger):
    """Who made a ledger decides whether its handlers may be imported; later sessions change nothing of that."""
    assert event.first_opened(ledger) == {}
    open_session(ledger, {"uid": 7}, now_us=NOW)
    ledger.epoch = None
    open_session(ledger, {"uid": 8}, now_us=NOW)
    assert event.first_opened(ledger) == {"uid": 7}


@pytest.mark.parametrize(
    ("reference", "text"),
    [({"kind": "command", "argv": ["gzip", "{}"]}, "gzip {}"), ({"kind": "python", "target": "a:b"}, "a:b"), ({"name": "f"}, "f"), ({}, "")],
)
def test_a_handler_is_shown_as_typed(reference, text):
    """A command as its words, a function as its target."""
    assert handler_text(reference) == text
