"""Items that other processes than the coordinator add to an open run."""

from __future__ import annotations

import pytest

from durabatch.codec import key_hash
from durabatch.engine import add as adding
from durabatch.engine import submit as submitting
from durabatch.engine.active import load
from durabatch.engine.add import NO_HANDLER, Added, add, find_or_create
from durabatch.engine.close import close_run, let_in, shut
from durabatch.engine.notice import notice
from durabatch.engine.verify import verify
from durabatch.errors import NotFoundError, UsageError
from durabatch.ledger import item, run
from tests import factory
from tests.factory import NOW

LATER = NOW + 60_000_000


def queue(ledger):
    """Return an open run without items."""
    return load(ledger, find_or_create(ledger, "q", now_us=NOW))


def put(ledger, opened, *keys, **options):
    """Add items whose payload is their key."""
    return add(ledger, opened.run_id, [(key, f'"{key}"', 1) for key in keys], now_us=NOW, **options)


def stored(ledger):
    return ledger.raw.execute("SELECT key, payload, state, priority, due_at_us, source_position FROM item ORDER BY item_id").fetchall()


def test_a_name_that_nobody_has_makes_an_open_run_without_handler(ledger):
    """The second call finds it; a run of that very name is found, too."""
    made = queue(ledger)
    row = run.get(ledger, made.run_id)
    assert (row.name, row.handler, row.is_open, row.intake_complete, row.state) == ("q", NO_HANDLER, 1, 0, "halted")
    assert find_or_create(ledger, "q", now_us=NOW) == made.run_id
    second = factory.new_run(ledger, "q")
    assert find_or_create(ledger, "q", now_us=NOW) == second.run_id
    assert find_or_create(ledger, "q#2", now_us=NOW) == second.run_id


def test_items_are_added_behind_the_others_and_a_known_key_is_no_item_more(ledger):
    """The counters, the span and the keys are those of a sound ledger."""
    opened = queue(ledger)
    assert put(ledger, opened, "a", "b") == Added(opened.run_id, 2)
    assert put(ledger, opened, "b", "c", "c", "a", "d") == Added(opened.run_id, 2, 3)
    assert put(ledger, opened) == Added(opened.run_id)
    assert [(row[0], row[5]) for row in stored(ledger)] == [("a", -1), ("b", -2), ("c", -3), ("d", -4)]
    notice(ledger, opened)
    assert (opened.total_count, opened.pending_count) == (4, 4)
    assert verify(ledger) == []


def test_items_known_by_their_content_get_ordinals_that_nobody_has(ledger):
    """Also where numbers stand among the keys, in the run and in the page: none is taken for a duplicate."""
    opened = queue(ledger)
    put(ledger, opened, "2", "x")
    rows = [(None, '"p"', 1), ("5", '"five"', 2), (None, '"q"', 3)]
    assert add(ledger, opened.run_id, rows, now_us=NOW) == Added(opened.run_id, 3)
    assert add(ledger, opened.run_id, [(None, '"p"', 1)], now_us=NOW) == Added(opened.run_id, 1)
    assert [row[:2] for row in stored(ledger)][2:] == [("3", '"p"'), ("5", '"five"'), ("4", '"q"'), ("6", '"p"')]
    assert verify(ledger) == []


@pytest.fixture
def one_bit_hashes(monkeypatch):
    """Let the hashes of keys be 0 or 1, and further probes count up from there."""

    def narrow(key, probe=0):
        return (key_hash(key) & 1) + 2 * probe

    monkeypatch.setattr(submitting, "key_hash", narrow)
    monkeypatch.setattr(adding, "key_hashes", lambda keys: [narrow(key) for key in keys])


def test_keys_whose_hashes_meet_are_two_keys(one_bit_hashes, ledger):
    """With a hash of one bit there is no key that does not meet another one."""
    opened = queue(ledger)
    keys = [f"k{number}" for number in range(20)]
    assert put(ledger, opened, *keys[:7]) == Added(opened.run_id, 7)
    assert put(ledger, opened, *keys[3:]) == Added(opened.run_id, 13, 4)
    assert [row[0] for row in stored(ledger)] == keys
    assert verify(ledger) == []


def test_priorities_and_due_times_decide_what_is_handed_out(ledger):
    """Higher ones first, then the others in their order, those below 0 last; what is due later is scheduled, what was due earlier is not."""
    opened = queue(ledger)
    put(ledger, opened, "plain1")
    put(ledger, opened, "low", priority=-1)
    put(ledger, opened, "high", priority=9)
    put(ledger, opened, "later", due_at_us=LATER)
    put(ledger, opened, "past", due_at_us=NOW - 1)
    assert {row[0]: row[2] for row in stored(ledger) if row[2] != "pending"} == {"later": "scheduled"}
    with ledger.transaction():
        notice(ledger, opened)
    assert opened.counts["scheduled"] == 1
    assert factory.keys(factory.take(ledger, opened, 10)) == ["high", "plain1", "past", "low"]
    assert opened.next_due_at_us == LATER
    assert factory.keys(factory.take(ledger, opened, 10, now_us=LATER)) == ["later"]
    assert verify(ledger) == []


def test_a_page_of_input_and_items_of_others_share_a_run(ledger):
    """What others added between two pages is known after a notice; the last page leaves an open run open, and closing ends its intake."""
    opened = factory.new_run(ledger, provenance={}, is_open=True)
    factory.add(ledger, opened, ["a", None])
    put(ledger, opened, "b")
    with ledger.transaction():
        notice(ledger, opened)
        factory.add(ledger, opened, [None, "c"], complete=True)
    assert [row[0] for row in stored(ledger)] == ["a", "2", "b", "4", "c"]
    assert not run.get(ledger, opened.run_id).intake_complete
    assert close_run(ledger, opened.run_id, now_us=NOW)
    assert run.get(ledger, opened.run_id).intake_complete
    assert verify(ledger) == []


def test_a_closed_run_takes_nothing_and_may_be_opened_again(ledger):
    """The error says how; closing twice changes nothing; an input that was not read to its end still is."""
    opened = queue(ledger)
    put(ledger, opened, "a")
    shut(ledger, opened, now_us=NOW)
    assert (opened.is_open, opened.intake_complete, opened.total_count) == (False, True, 1)
    assert not close_run(ledger, opened.run_id, now_us=NOW)
    with pytest.raises(UsageError, match=r"run q is not open .*--name q --open"):
        put(ledger, opened, "b")
    let_in(ledger, opened)
    assert (opened.is_open, opened.intake_complete) == (True, False)
    assert put(ledger, opened, "a", "b") == Added(opened.run_id, 1, 1)
    half = factory.new_run(ledger, "half", provenance={}, is_open=True)
    factory.add(ledger, half, ["a"])
    close_run(ledger, half.run_id, now_us=NOW)
    assert not run.get(ledger, half.run_id).intake_complete


def test_a_run_that_is_not_there_is_an_error(ledger):
    """By its id, whether items are added or it is closed."""
    with pytest.raises(NotFoundError, match="no run 7"):
        add(ledger, 7, [("a", "1", 1)], now_us=NOW)
    with pytest.raises(NotFoundError, match="no run 7"):
        close_run(ledger, 7, now_us=NOW)


def test_runs_that_are_filled_in_turns_stay_apart(ledger):
    """The same keys in both; each span holds items of one run."""
    one, two = queue(ledger), load(ledger, find_or_create(ledger, "other", now_us=NOW))
    for number in range(3):
        put(ledger, one, f"k{number}")
        put(ledger, two, f"k{number}")
    with ledger.transaction():
        notice(ledger, two)
    assert factory.ids(factory.take(ledger, two, 10)) == [2, 4, 6]
    assert item.last_id(ledger) == 6
    assert verify(ledger) == []


def test_a_batch_is_sealed_although_the_last_item_stood_outside_the_order(ledger):
    """It was handed out before the fresh ones, so the watermark stands before it when all have a batch."""
    opened = queue(ledger)
    put(ledger, opened, "plain")
    put(ledger, opened, "urgent", priority=5)
    shut(ledger, opened, now_us=NOW)
    made = factory.take(ledger, opened, 10)
    assert factory.keys(made) == ["urgent", "plain"]
    factory.give_back(ledger, opened, factory.answer(made))
    assert ledger.raw.execute("SELECT sealed, ended_count, finished_at_us IS NOT NULL FROM batch").fetchall() == [(1, 2, 1)]
