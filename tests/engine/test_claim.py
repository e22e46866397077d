from __future__ import annotations

import random

import pytest

from durabatch.engine import active as actives
from durabatch.engine.claim import claim, seal_when_exhausted
from durabatch.engine.release import release
from durabatch.flow.batching import Filled
from durabatch.flow.retrying import RetryPolicy
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


def test_many_priorities_are_claimed_from_the_top(ledger, seed):
    """However many priorities there are, and whatever waits for later among them: highest first, then by due time, then in input order."""
    chance = random.Random(seed)
    jobs = factory.new_run(ledger)
    places = {f"k{number}": (chance.randint(-30, 30), chance.choice((0, 7, 7, NOW + 5))) for number in range(300)}
    factory.add(ledger, jobs, places, complete=True, place=lambda payload: places[payload.strip('"')])
    ready = sorted((-priority, due, index, key) for index, (key, (priority, due)) in enumerate(places.items()) if due <= NOW)
    found = []
    while made := take(ledger, jobs, chance.randint(1, 40)):
        found += keys(made)
        give_back(ledger, jobs, answer(made))
    assert found == [key for *_, key in ready]
    later = sorted((-priority, index, key) for index, (key, (priority, due)) in enumerate(places.items()) if due > NOW)
    assert jobs.next_due_at_us == NOW + 5
    assert keys(take(ledger, jobs, 300, now_us=NOW + 5)) == [key for *_, key in later]


def test_items_with_a_place_run_before_those_without(ledger):
    """Of a page some have one, others stay in input order; batches take them as they are claimed."""
    jobs = factory.new_run(ledger)
    places = {"a": (0, None), "b": (5, 0), "c": (0, None), "d": (-1, 0), "e": (5, 0)}
    factory.add(ledger, jobs, places, complete=True, place=lambda payload: places[payload.strip('"')])
    jobs = actives.load(ledger, jobs.run_id)
    assert keys(take(ledger, jobs, 9, size=2)) == ["b", "e", "a", "c", "d"]
    assert batches(ledger, jobs) == {1: [2, 5], 2: [1, 3], 3: [4]}


def test_what_waits_for_later_does_not_slow_a_claim_down(ledger):
    """Thousands that wait are not looked at while others are claimed."""
    jobs = factory.new_run(ledger)
    factory.add(ledger, jobs, [f"w{number}" for number in range(3000)], place=lambda _: (0, NOW + 99))
    factory.add(ledger, jobs, ["a", "b"], place=lambda _: (0, 1))
    factory.add(ledger, jobs, ["c"], complete=True)
    steps = 0

    def count() -> bool:
        nonlocal steps
        steps += 1
        return False

    ledger.raw.set_progress_handler(count, 10)
    assert keys(take(ledger, jobs, 9)) == ["a", "b", "c"]
    ledger.raw.set_progress_handler(None)
    assert steps < 300


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


def test_batches_are_cut_by_bytes(ledger):
    """A strategy sees the payloads of the items and of the batch that is open, also after a resume."""
    jobs = factory.new_run(ledger)
    factory.add(ledger, jobs, [f"k{number}" for number in range(9)], payload=lambda _: '"' + "x" * 8 + '"', complete=True)
    strategy = Bytes(35)
    for _ in range(5):
        with factory.tick(ledger, jobs):
            claim(ledger, jobs, strategy, limit=2, max_bytes=1000, now_us=NOW)
            seal_when_exhausted(ledger, jobs, NOW)
        jobs = actives.load(ledger, jobs.run_id)
    assert batches(ledger, jobs) == {1: [1, 2, 3, 4], 2: [5, 6, 7, 8], 3: [9]}


class Bytes:
    """Batches of at least so many bytes."""

    def __init__(self, size: int) -> None:
        self.size = size

    def is_full(self, filled: Filled) -> bool:
        return filled.bytes >= self.size

    def cut(self, sizes, already):
        held, piece = already.bytes, 0
        for size in sizes:
            held, piece = held + size, piece + 1
            if held >= self.size:
                yield piece, True
                held = piece = 0
        if piece:
            yield piece, False

    def learn(self, measured) -> None:
        raise AssertionError(measured)


def test_scheduled_items_leave_their_count(ledger):
    """A due item is running from the claim on, whatever it was before."""
    jobs = factory.run_of(ledger, 3)
    back = factory.failures(take(ledger, jobs, 2), "failed")
    factory.finished(ledger, jobs, back, policy=RetryPolicy(max_attempts=2, backoff_s=3), now_us=NOW)
    assert ids(take(ledger, jobs, 9, now_us=NOW + 3_000_000)) == [1, 2, 3]
    row = run.get(ledger, 1)
    assert (row.pending_count, row.scheduled_count, row.running_count) == (0, 0, 3)
