from __future__ import annotations

import random

import pytest

from durabatch.engine import active as actives
from durabatch.engine.release import release
from durabatch.ledger import batch, run
from tests import factory
from tests.factory import NOW, answer, give_back, ids, keys, take


def batches(ledger, jobs):
    """Return the ids of the items of each batch, by number."""
    found: dict[int, list[int]] = {}
    text = "SELECT batch.number, item_id FROM item JOIN batch USING (batch_id) WHERE batch.run_id = ? ORDER BY batch.number, item_id"
    for number, item_id in ledger.raw.execute(text, (jobs.run_id,)):
        found.setdefault(number, []).append(item_id)
    return found


def test_fresh_items_are_handed_out_in_input_order(ledger):
    """Each claim goes on where the last one ended, and the watermark on the row goes with it."""
    jobs = factory.run_of(ledger, 7)
    assert [keys(take(ledger, jobs, 3)) for _ in range(3)] == [["k1", "k2", "k3"], ["k4", "k5", "k6"], ["k7"]]
    assert take(ledger, jobs, 3) is None
    assert run.get(ledger, jobs.run_id).next_item_id == 8


def test_a_claim_is_on_disk_when_it_returns(ledger):
    """The items are running, in a batch and a dispatch of their own number, and the counters say so."""
    jobs = factory.run_of(ledger, 3)
    made = take(ledger, jobs, 2)
    stored = ledger.raw.execute("SELECT item_id, state, batch_id, dispatch_id FROM item ORDER BY item_id").fetchall()
    assert stored == [(1, "running", 1, made.dispatch_id), (2, "running", 1, made.dispatch_id), (3, "pending", None, None)]
    row = run.get(ledger, jobs.run_id)
    assert (row.running_count, row.pending_count, row.dispatch_count, row.batch_count, row.started_at_us) == (2, 1, 1, 1, NOW)


def test_each_item_comes_with_the_number_of_its_attempt(ledger):
    """The first try is number 1, after a failure with tries left it is 2."""
    jobs = factory.run_of(ledger, 2)
    first = take(ledger, jobs, 2)
    assert [work[1] for _, works in first.groups for work in works] == [1, 1]
    give_back(ledger, jobs, answer(first, failing={"k2"}), max_attempts=2)
    again = take(ledger, jobs, 2)
    assert again.groups == [(1, [(2, 2, "k2", '"k2"')])]


@pytest.mark.parametrize("size", [1, 2, 7, 10, 100])
def test_batches_are_exact_whatever_the_dispatches(ledger, size, seed):
    """Batch k holds items (k-1)N+1 to kN, for dispatches of any size, and the last one is sealed with the rest."""
    jobs = factory.run_of(ledger, 45)
    chance = random.Random(seed)
    while made := take(ledger, jobs, chance.randint(1, 13), size=size):
        give_back(ledger, jobs, answer(made))
    expected = [list(range(first, min(first + size, 46))) for first in range(1, 46, size)]
    assert list(batches(ledger, jobs).items()) == list(enumerate(expected, 1))
    assert all(row.sealed and row.finished_at_us for row in batch.list_of_run(ledger, jobs.run_id))


def test_batches_stay_exact_through_releases_and_reloads(ledger, seed):
    """Items that come back, and coordinators that start anew, move no item to another batch."""
    jobs = factory.run_of(ledger, 40)
    chance = random.Random(seed)
    while made := take(ledger, jobs, chance.randint(1, 9), size=7):
        back = [item_id for item_id in ids(made) if chance.random() < 0.4]
        with factory.tick(ledger, jobs):
            release(ledger, jobs, made.dispatch_id, back)
        give_back(ledger, jobs, answer(made, only=[key for item_id, key in zip(ids(made), keys(made), strict=True) if item_id not in back]))
        jobs = actives.load(ledger, jobs.run_id)
    assert batches(ledger, jobs) == {number: list(range(7 * number - 6, min(7 * number, 40) + 1)) for number in range(1, 7)}


def test_claims_of_interleaved_runs_stay_with_their_run(ledger):
    """A claim crosses from span to span of its run and leaves the items between them to theirs."""
    jobs, other = factory.new_run(ledger), factory.new_run(ledger, "other")
    for target, names in ((jobs, "ab"), (other, "xyz"), (jobs, "c"), (other, "w"), (jobs, "de")):
        factory.add(ledger, target, list(names))
    assert keys(take(ledger, jobs, 4)) == ["a", "b", "c", "d"]
    assert keys(take(ledger, other, 9)) == ["x", "y", "z", "w"]
    assert keys(take(ledger, jobs, 9)) == ["e"]


def test_released_items_go_before_fresh_ones(ledger):
    """What came back unstarted runs next, in its batch and uncharged."""
    jobs = factory.run_of(ledger, 6)
    first = take(ledger, jobs, 3)
    with factory.tick(ledger, jobs):
        assert release(ledger, jobs, first.dispatch_id, [2, 3]) == 2
    again = take(ledger, jobs, 3)
    assert keys(again) == ["k2", "k3", "k4"]
    assert [work[1] for _, works in again.groups for work in works] == [1, 1, 1]


def test_items_wait_until_they_are_due(ledger):
    """A due time in the future keeps an item back, whatever else is ready; then it comes first."""
    jobs = factory.run_of(ledger, 3)
    first = take(ledger, jobs, 1)
    with factory.tick(ledger, jobs):
        release(ledger, jobs, first.dispatch_id, [1])
    ledger.raw.execute("UPDATE item SET due_at_us = ? WHERE item_id = 1", (NOW + 5,))
    assert keys(take(ledger, jobs, 1)) == ["k2"]
    assert keys(take(ledger, jobs, 2, now_us=NOW + 5)) == ["k1", "k3"]


def test_priority_decides_on_which_side_of_the_fresh_items_one_stands(ledger):
    """Priority 0 and more goes before them, highest first; below 0 goes after them."""
    jobs = factory.run_of(ledger, 6)
    ledger.raw.execute("UPDATE item SET due_at_us = 0, priority = CASE item_id WHEN 2 THEN -1 WHEN 4 THEN 1 ELSE 9 END WHERE item_id IN (2, 4, 5)")
    jobs = actives.load(ledger, jobs.run_id)
    assert keys(take(ledger, jobs, 10)) == ["k5", "k4", "k1", "k3", "k6", "k2"]


@pytest.mark.parametrize(
    ("sizes", "max_bytes", "expected"),
    [
        ([10, 10, 10, 10], 25, [2, 2]),
        ([10, 10, 10], 30, [3]),
        ([100, 10, 10], 25, [1, 2]),
        ([10, 100, 10], 25, [1, 1, 1]),
        ([60, 60], 100, [1, 1]),
        ([30, 30, 30], 1, [1, 1, 1]),
    ],
)
def test_a_dispatch_is_bounded_by_bytes(ledger, sizes, max_bytes, expected):
    """Payloads of a dispatch stay within the bound together; one item may exceed it, alone."""
    jobs = factory.new_run(ledger)
    sizes_by_key = {f"k{number}": size for number, size in enumerate(sizes)}
    factory.add(ledger, jobs, sizes_by_key, payload=lambda key: '"' + "x" * (sizes_by_key[key] - 2) + '"')
    counts = []
    while made := take(ledger, jobs, 100, max_bytes=max_bytes):
        counts.append(made.item_count)
        assert made.payload_bytes == sum(len(work[3]) for _, works in made.groups for work in works)
    assert counts == expected


def test_released_items_are_bounded_by_bytes_too(ledger):
    """Items outside the input order and fresh ones share one bound."""
    jobs = factory.new_run(ledger)
    factory.add(ledger, jobs, ["a", "b", "c", "d"], payload=lambda key: '"' + key * 38 + '"')
    first = take(ledger, jobs, 2)
    with factory.tick(ledger, jobs):
        release(ledger, jobs, first.dispatch_id, ids(first))
    assert keys(take(ledger, jobs, 10, max_bytes=100)) == ["a", "b"]
    assert keys(take(ledger, jobs, 10, max_bytes=79)) == ["c"]


def test_a_smaller_batch_size_after_a_resume_closes_the_fuller_batch(ledger):
    """A batch that has more items than the new size takes no more, and the next ones have the new size."""
    jobs = factory.run_of(ledger, 20)
    give_back(ledger, jobs, answer(take(ledger, jobs, 8, size=50)))
    jobs = actives.load(ledger, jobs.run_id)
    while made := take(ledger, jobs, 5, size=4):
        give_back(ledger, jobs, answer(made))
    assert [len(found) for found in batches(ledger, jobs).values()] == [8, 4, 4, 4]


def test_the_last_batch_stays_open_while_intake_goes_on(ledger):
    """More items may come: they join it; with the end of the input it is sealed and finished."""
    jobs = factory.run_of(ledger, 3, complete=False)
    give_back(ledger, jobs, answer(take(ledger, jobs, 3)))
    assert [row.finished_at_us for row in batch.list_of_run(ledger, jobs.run_id)] == [None]
    factory.add(ledger, jobs, ["late"], complete=True)
    give_back(ledger, jobs, answer(take(ledger, jobs, 3)))
    assert batches(ledger, jobs) == {1: [1, 2, 3, 4]}
    assert batch.list_finished(ledger, jobs.run_id) == [(1, 0, 0.001)]


def test_a_claim_that_fails_leaves_nothing(ledger):
    """An exception in the tick takes back states, batches and the watermark."""
    jobs = factory.run_of(ledger, 3)
    with pytest.raises(ZeroDivisionError), ledger.transaction():
        take(ledger, jobs, 2)
        _ = 1 / 0
    jobs = actives.load(ledger, jobs.run_id)
    assert keys(take(ledger, jobs, 9)) == ["k1", "k2", "k3"]
