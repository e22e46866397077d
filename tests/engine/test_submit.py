from __future__ import annotations

import pytest

from durabatch.codec import payload_digest
from durabatch.engine import active as actives
from durabatch.engine import submit as submitting
from durabatch.engine.submit import DuplicateKeyError, locate, submit
from durabatch.ledger import run, span
from durabatch.ledger.new_items import ROWS_TOGETHER
from tests import factory


def items(ledger):
    return ledger.raw.execute("SELECT item_id, run_id, key, payload, source_position FROM item ORDER BY item_id").fetchall()


@pytest.fixture
def all_keys_collide(monkeypatch):
    """Let every key have the same hash, and probes count up from there."""
    monkeypatch.setattr(submitting, "key_hash", lambda key, probe=0: probe)
    monkeypatch.setattr(submitting, "key_hashes", lambda keys: [0 for _ in keys])


def test_a_page_is_on_disk_with_its_span_counters_and_position(ledger):
    """After submit the items, the span, the counters and the place where the source goes on are there together."""
    jobs = factory.new_run(ledger)
    factory.add(ledger, jobs, ["a", "b", "c"])
    row = run.get(ledger, jobs.run_id)
    assert [one[2:] for one in items(ledger)] == [("a", '"a"', 1), ("b", '"b"', 2), ("c", '"c"', 3)]
    assert (row.total_count, row.pending_count, row.source_position, row.intake_complete) == (3, 3, "3", 0)
    assert span.list_of_run(ledger, jobs.run_id) == [(1, 3)]


@pytest.mark.parametrize("place", [None, lambda payload: (len(payload), int(payload)) if payload[-1] == "7" else (0, None)], ids=["plain", "placed"])
@pytest.mark.parametrize("count", [1, ROWS_TOGETHER - 1, ROWS_TOGETHER, ROWS_TOGETHER + 1, 2 * ROWS_TOGETHER + 3])
def test_every_row_of_a_page_is_written_whole_whatever_its_length(ledger, count, place):
    """Rows go in many at a time: those that fill statements and the rest of them keep their fields, their order and their places."""
    jobs = factory.new_run(ledger)
    page = [(f"k{number}", str(number), 3 * number + 1) for number in range(count)]
    with factory.tick(ledger, jobs):
        submit(ledger, jobs, page, position="1", complete=True, place=place)
    found = ledger.raw.execute(
        "SELECT item_id, key, payload, digest, source_position, priority, due_at_us FROM item ORDER BY item_id"
    ).fetchall()
    wanted = [(number + 1, *row[:2], payload_digest(row[1]), row[2], *((0, None) if place is None else place(row[1]))) for number, row in enumerate(page)]
    assert found == wanted
    assert [locate(ledger, jobs.run_id, row[0]) for row in page] == list(range(1, count + 1))


def test_pages_that_follow_each_other_are_one_span(ledger):
    """Uninterrupted intake makes one span; pages of another run in between end it."""
    jobs, other = factory.new_run(ledger), factory.new_run(ledger, "other")
    for target, keys in ((jobs, "ab"), (jobs, "cd"), (other, "xy"), (jobs, "ef"), (jobs, "g")):
        factory.add(ledger, target, list(keys))
    assert span.list_of_run(ledger, jobs.run_id) == [(1, 4), (7, 9)]
    assert span.list_of_run(ledger, other.run_id) == [(5, 6)]


def test_an_item_known_by_content_gets_its_ordinal_as_key(ledger):
    """Keys of None are numbered on through all pages, whatever other runs take in meanwhile."""
    jobs, other = factory.new_run(ledger), factory.new_run(ledger, "other")
    factory.add(ledger, jobs, [None, None])
    factory.add(ledger, other, [None])
    factory.add(ledger, jobs, [None])
    assert [(one[1], one[2]) for one in items(ledger)] == [(1, "1"), (1, "2"), (2, "1"), (1, "3")]


def test_the_end_of_the_input_can_come_without_items(ledger):
    """An empty last page closes intake and leaves the rest as it is."""
    jobs = factory.run_of(ledger, 2, complete=False)
    factory.add(ledger, jobs, [], complete=True)
    assert jobs.intake_complete
    assert run.get(ledger, jobs.run_id).intake_complete == 1
    assert jobs.total_count == 2


@pytest.mark.parametrize("before", [[], ["a", "b"]], ids=["first-page", "later-page"])
def test_a_key_twice_in_a_page_is_named_and_nothing_is_written(ledger, before):
    """The error knows the row, the key and where it stood first; not one item of the page is added."""
    jobs = factory.new_run(ledger)
    factory.add(ledger, jobs, before)
    with pytest.raises(DuplicateKeyError) as caught:
        factory.add(ledger, jobs, ["x", "y", "x", "z"])
    assert (caught.value.index, caught.value.key, caught.value.first_position) == (2, "x", len(before) + 1)
    assert [one[2] for one in items(ledger)] == before


def test_a_key_of_an_earlier_page_is_named_and_nothing_is_written(ledger):
    """A duplicate across pages is found by the index, with the position of the first one."""
    jobs = factory.new_run(ledger)
    factory.add(ledger, jobs, ["a", "b", "c"])
    with pytest.raises(DuplicateKeyError) as caught:
        factory.add(ledger, jobs, ["d", "b"])
    assert (caught.value.index, caught.value.key, caught.value.first_position) == (1, "b", 2)
    assert len(items(ledger)) == jobs.total_count == 3


def test_intake_goes_on_after_a_duplicate(ledger):
    """What was refused leaves no trace in memory either: the corrected page is taken in with the next ids."""
    jobs = factory.new_run(ledger)
    factory.add(ledger, jobs, ["a"])
    with pytest.raises(DuplicateKeyError):
        factory.add(ledger, jobs, ["b", "a"])
    factory.add(ledger, jobs, ["b", "c"], complete=True)
    assert [one[:3] for one in items(ledger)] == [(1, 1, "a"), (2, 1, "b"), (3, 1, "c")]


def test_the_same_key_in_two_runs_is_two_items(ledger):
    """Keys are unique in a run, not in the ledger."""
    jobs, other = factory.run_of(ledger, 2), factory.run_of(ledger, 2, series="other")
    assert locate(ledger, jobs.run_id, "k2") == 2
    assert locate(ledger, other.run_id, "k2") == 4


def test_keys_whose_hashes_meet_stay_apart(all_keys_collide, ledger):
    """Were all hashes the same, every key would still be its own item: within a page and across pages."""
    jobs = factory.new_run(ledger)
    factory.add(ledger, jobs, ["a", "b", "c"])
    factory.add(ledger, jobs, ["d", "e"])
    assert [locate(ledger, jobs.run_id, key) for key in "abcde"] == [1, 2, 3, 4, 5]
    assert locate(ledger, jobs.run_id, "f") is None


def test_a_duplicate_among_colliding_keys_is_found(all_keys_collide, ledger):
    """The same text is a duplicate also where hashes meet, and the page is refused whole."""
    jobs = factory.new_run(ledger)
    factory.add(ledger, jobs, ["a", "b", "c"])
    with pytest.raises(DuplicateKeyError) as caught:
        factory.add(ledger, jobs, ["d", "c"])
    assert (caught.value.key, caught.value.first_position) == ("c", 3)
    assert len(items(ledger)) == 3


def test_a_page_joins_the_transaction_around_it(ledger):
    """When the tick fails after the page, nothing of it is in the ledger."""
    jobs = factory.new_run(ledger)
    with pytest.raises(ZeroDivisionError), ledger.transaction():
        submit(ledger, jobs, [("a", "1", 1)], position="1", complete=False)
        _ = 1 / 0
    assert items(ledger) == []
    assert actives.load(ledger, jobs.run_id).total_count == 0


def test_hundreds_of_keys_that_differ_at_the_end_are_found_again(ledger):
    """The index finds each of them, and no other."""
    jobs = factory.run_of(ledger, 500)
    assert [locate(ledger, jobs.run_id, f"k{number}") for number in (1, 2, 99, 250, 500)] == [1, 2, 99, 250, 500]
    assert locate(ledger, jobs.run_id, "k501") is None
