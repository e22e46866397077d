from __future__ import annotations

import random
from dataclasses import replace

import pytest

from durabatch.codec import payload_digest
from durabatch.engine import reuse
from durabatch.engine.claim import claim, seal_when_exhausted
from durabatch.engine.finish import finish
from durabatch.engine.results import results
from durabatch.engine.reuse import Cache
from durabatch.flow.batching import FixedBatches
from durabatch.flow.retrying import RetryPolicy
from durabatch.ledger import attempt, batch, run
from tests import factory
from tests.factory import NOW, answer

SECOND = 1_000_000
BIG = 1 << 30


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Have results remembered at once, not with others a second later."""
    monkeypatch.setattr(reuse, "WRITE_S", 0.0)


def cache_of(ledger, *, identity="one", ttl_s=None, size_bytes=BIG):
    """Return what a run of this identity uses."""
    return Cache(ledger, identity, ttl_s=ttl_s, size_bytes=size_bytes)


def take(ledger, jobs, cache, limit=100, *, size=10, now_us=NOW):
    """Claim beside a cache, as a tick does."""
    with factory.tick(ledger, jobs):
        cache.begin()
        made = claim(ledger, jobs, FixedBatches(size), limit=limit, max_bytes=1 << 20, now_us=now_us, cache=cache)
        seal_when_exhausted(ledger, jobs, now_us)
    return made


def give(ledger, jobs, cache, back, now_us=NOW):
    """Record what a worker sent, and have it remembered."""
    with factory.tick(ledger, jobs):
        return finish(ledger, jobs, back, policy=RetryPolicy(), now_us=now_us, cache=cache)


def work_off(ledger, jobs, cache, *, limit=100, now_us=NOW, **answered):
    """Claim and finish until nothing is ready; return the keys that ran."""
    ran = []
    while made := take(ledger, jobs, cache, limit, now_us=now_us):
        ran += factory.keys(made)
        if made.item_count:
            give(ledger, jobs, cache, answer(made, **answered), now_us)
    return ran


def ran_before(ledger, keys, *, cache=None, series="before", **answered):
    """Leave a finished run of items with these keys in the ledger, each remembered."""
    jobs = factory.new_run(ledger, series)
    factory.add(ledger, jobs, keys, complete=True)
    work_off(ledger, jobs, cache or cache_of(ledger), **answered)
    return jobs


def again(ledger, keys, series="again", **place):
    """Return a run of items with these keys that nobody has touched."""
    jobs = factory.new_run(ledger, series)
    factory.add(ledger, jobs, keys, complete=True, **place)
    return jobs


def values(ledger, jobs):
    """Return the values of a run by key, with whether the cache gave them."""
    return {one.key: one.value_json for one in results(ledger, jobs.run_id)}


def cached(ledger):
    """Return (item_id, number) of what the cache holds, oldest use first."""
    return ledger.raw.execute("SELECT item_id, number FROM cache ORDER BY used_at_us, item_id").fetchall()


def test_equal_items_end_in_the_claim_without_a_worker(ledger):
    """The same input again: everything that a run leaves is there, the values point to where they were, nothing was handed out."""
    keys = [f"k{number}" for number in range(1, 26)]
    before = ran_before(ledger, keys, packed={"k2", "k3", "k12"})
    jobs, cache = again(ledger, keys), cache_of(ledger)
    made = take(ledger, jobs, cache)
    assert (made.item_count, made.groups, made.answered) == (0, [], list(range(26, 51)))
    assert values(ledger, jobs) == values(ledger, before)
    row = run.get(ledger, jobs.run_id)
    assert (row.succeeded_count, row.pending_count, row.attempt_count, row.cached_count, row.dispatch_count) == (25, 0, 25, 25, 0)
    assert [(one.item_count, one.ended_count, one.finished_at_us) for one in batch.list_of_run(ledger, jobs.run_id)] == [
        (10, 10, NOW), (10, 10, NOW), (5, 5, NOW),
    ]  # fmt: skip
    assert attempt.list_of_item(ledger, 26) == [attempt.AttemptRow(1, 0, "succeeded", NOW, 0, *[None] * 11, 1)]
    assert ledger.raw.execute("SELECT count(*) FROM segment").get == 2
    assert take(ledger, jobs, cache) is None


def test_what_is_not_known_runs_in_its_place(ledger):
    """Of a claim with room for three, three run, and everything known that stands before the next is answered; batches stay in input order."""
    ran_before(ledger, [f"k{number}" for number in range(1, 31)])
    keys = [f"k{number}" if number % 4 else f"new{number}" for number in range(1, 31)]
    jobs, cache = again(ledger, keys), cache_of(ledger)
    ran = []
    while made := take(ledger, jobs, cache, 3):
        assert made.item_count <= 3
        ran.append(factory.keys(made))
        give(ledger, jobs, cache, answer(made))
    assert ran == [["new4", "new8", "new12"], ["new16", "new20", "new24"], ["new28"]]
    assert values(ledger, jobs) == {key: f'"{key}!"' for key in keys}
    assert run.get(ledger, jobs.run_id).cached_count == 23
    assert [(one.first_item_id, one.last_item_id, one.item_count) for one in batch.list_of_run(ledger, 2)] == [
        (31, 40, 10),
        (41, 50, 10),
        (51, 60, 10),
    ]


def test_without_room_what_stands_first_is_answered(ledger):
    """No worker has room: the known items before the first unknown one end, the others wait."""
    ran_before(ledger, ["a", "b", "d"])
    jobs, cache = again(ledger, ["a", "b", "new", "d", "newer"]), cache_of(ledger)
    assert take(ledger, jobs, cache, 0).answered == [4, 5]
    assert take(ledger, jobs, cache, 0) is None
    made = take(ledger, jobs, cache, 1)
    assert (factory.keys(made), made.answered) == (["new"], [7])
    assert take(ledger, jobs, cache, 0) is None


def test_items_outside_the_input_order_are_answered_too(ledger):
    """By priority: the known ones end, in the order and the batches in which they would have run."""
    ran_before(ledger, ["a", "b", "c"])
    ranks = {"a": 5, "x": 4, "b": 3, "c": -1}
    place = lambda payload: (ranks[payload.strip('"')], 0)
    jobs, cache = again(ledger, ["c", "b", "x", "a"], place=place), cache_of(ledger)
    made = take(ledger, jobs, cache, 1)
    assert (made.answered, factory.keys(made)) == ([7, 5], ["x"])
    give(ledger, jobs, cache, answer(made))
    assert take(ledger, jobs, cache, 1).answered == [4]
    assert values(ledger, jobs) == {key: f'"{key}!"' for key in "cbxa"}


def test_equal_payloads_of_one_run_are_asked_for_once(ledger):
    """A payload that comes again after its first result is known does not run."""
    jobs, cache = factory.new_run(ledger), cache_of(ledger)
    factory.add(ledger, jobs, [f"k{number}" for number in range(100)], complete=True, payload=lambda key: f'"{key[-1]}"')
    assert work_off(ledger, jobs, cache, limit=10) == [f"k{number}" for number in range(10)]
    assert run.get(ledger, jobs.run_id).cached_count == 90
    assert values(ledger, jobs) == {f"k{number}": f'"k{number % 10}!"' for number in range(100)}


def test_identities_do_not_meet(ledger):
    """Another version, other parameters: nothing is known."""
    ran_before(ledger, ["a", "b"])
    jobs = again(ledger, ["a", "b"])
    assert work_off(ledger, jobs, cache_of(ledger, identity="other")) == ["a", "b"]
    assert ledger.raw.execute("SELECT count(*) FROM cache").get == 4


def test_failures_are_not_remembered(ledger):
    """Only a success is used again."""
    ran_before(ledger, ["a", "b"], failing={"a"})
    assert factory.keys(take(ledger, again(ledger, ["a", "b"]), cache_of(ledger))) == ["a"]


def test_a_late_flush_is_not_remembered(ledger):
    """What a dispatch sends that holds nothing any more counts for nothing."""
    jobs, cache = again(ledger, ["a", "b"]), cache_of(ledger)
    made = take(ledger, jobs, cache)
    stranger = replace(answer(made), dispatch_id=99)
    assert give(ledger, jobs, cache, stranger).recorded == 0
    assert cached(ledger) == []


def test_an_old_value_is_not_used(ledger):
    """Beyond --cache-ttl the item runs, and its new value counts from then on."""
    ran_before(ledger, ["a", "b"])
    late = NOW + 11 * SECOND
    jobs, cache = again(ledger, ["a"]), cache_of(ledger, ttl_s=10)
    assert work_off(ledger, jobs, cache, now_us=late) == ["a"]
    assert work_off(ledger, again(ledger, ["a"], "third"), cache_of(ledger, ttl_s=10), now_us=late + SECOND) == []
    assert work_off(ledger, again(ledger, ["b"], "fourth"), cache_of(ledger, ttl_s=None), now_us=late) == []


def test_the_least_recently_used_leave(ledger):
    """Values of four bytes in a cache of twelve: what was used of late stays, and a value larger than all of it never comes in."""
    cache = cache_of(ledger, size_bytes=12)
    for number, key in enumerate("abc"):
        jobs = again(ledger, [key], f"run {key}")
        work_off(ledger, jobs, cache, now_us=NOW + number * 100 * SECOND)
    used = NOW + 400 * SECOND
    assert work_off(ledger, again(ledger, ["a"], "use"), cache, now_us=used) == []
    assert work_off(ledger, again(ledger, ["d"], "new"), cache, now_us=used + SECOND) == ["d"]
    assert cached(ledger) == [(3, 1), (1, 1), (5, 1)]
    assert work_off(ledger, again(ledger, ["much too long"], "big"), cache, now_us=used + 2 * SECOND) == ["much too long"]
    assert cached(ledger) == [(3, 1), (1, 1), (5, 1)]
    # A session that begins with less room makes it at its first result.
    assert work_off(ledger, again(ledger, ["e"], "small"), cache_of(ledger, size_bytes=8), now_us=used + 3 * SECOND) == ["e"]
    assert cached(ledger) == [(5, 1), (7, 1)]


def test_a_use_is_written_down_once_a_minute(ledger):
    """Hits a second apart write nothing into the cache."""
    ran_before(ledger, ["a"])
    look = "SELECT used_at_us FROM cache"
    work_off(ledger, again(ledger, ["a"]), cache_of(ledger), now_us=NOW + 59 * SECOND)
    assert ledger.raw.execute(look).get == NOW
    work_off(ledger, again(ledger, ["a"], "third"), cache_of(ledger), now_us=NOW + 61 * SECOND)
    assert ledger.raw.execute(look).get == NOW + 61 * SECOND


def test_a_damaged_segment_answers_nobody(ledger):
    """A packed value that cannot be read is forgotten: the item runs, and its new value is used from then on. The others are not concerned."""
    ran_before(ledger, ["a", "b", "c"], packed={"b", "c"})
    ledger.raw.execute("UPDATE segment SET data = CAST(substr(data, 1, length(data) - 1) || x'00' AS BLOB)")
    assert work_off(ledger, again(ledger, ["a", "b", "c"]), cache_of(ledger)) == ["b", "c"]
    assert work_off(ledger, again(ledger, ["a", "b", "c"], "third"), cache_of(ledger)) == []
    # For verify at the end: as it was.
    ledger.raw.execute("DELETE FROM result WHERE segment_id = 1")
    ledger.raw.execute("INSERT INTO result (item_id, value) VALUES (2, '1'), (3, '1')")
    ledger.raw.execute("DELETE FROM segment WHERE segment_id = 1")


@pytest.mark.parametrize("cause", ["redone", "changed", "gone", "undone"])
def test_a_value_of_the_history_is_used_unless_it_was_taken_back(ledger, cause):
    """The item that returned a value has another one now, or none: the value is where it went. An undone one is not used."""
    ran_before(ledger, ["a", "b"], packed={"b"})
    ledger.raw.execute(
        "INSERT INTO result_history SELECT item.item_id, 1, digest, value, segment_id, segment_offset, raw_bytes, ?, ? "
        "FROM result JOIN item USING (item_id)", (NOW, cause),
    )  # fmt: skip
    kept = ledger.raw.execute("SELECT * FROM result").fetchall()
    ledger.raw.execute("DELETE FROM result")
    jobs = again(ledger, ["a", "b"])
    assert work_off(ledger, jobs, cache_of(ledger)) == (["a", "b"] if cause == "undone" else [])
    assert values(ledger, jobs) == {"a": '"a!"', "b": '"b!"'}
    ledger.raw.execute("DELETE FROM result_history")
    ledger.raw.executemany("INSERT INTO result VALUES (?, ?, ?, ?, ?)", kept)


def test_what_somebody_wants_run_again_runs(ledger):
    """The item had a value for this very payload and is to run again: it is not given the same one, and the new one takes its place."""
    ran_before(ledger, ["a"])
    jobs, cache = again(ledger, ["a"]), cache_of(ledger)
    assert work_off(ledger, jobs, cache) == []
    with ledger.transaction():
        ledger.raw.execute(
            "INSERT INTO result_history SELECT 2, 1, digest, value, NULL, NULL, NULL, 1, 'redone' FROM result JOIN item USING (item_id) WHERE item_id = 2"
        )
        ledger.raw.execute("DELETE FROM result WHERE item_id = 2")
        ledger.raw.execute("UPDATE item SET state = 'pending', due_at_us = 0, uncharged_count = 1, earlier_count = 1 WHERE item_id = 2")
        ledger.raw.execute("UPDATE batch SET ended_count = 0, finished_at_us = NULL WHERE batch_id = 2")
        ledger.raw.execute("UPDATE run SET succeeded_count = 0, pending_count = 1 WHERE run_id = 2")
    jobs = factory.actives.load(ledger, 2)
    assert work_off(ledger, jobs, cache) == ["a"]
    assert cached(ledger) == [(2, 2)]


def test_answers_take_turns_with_everything_else(ledger, monkeypatch):
    """When the time of a tick is over, the rest is left to the next one, which is told that there is more."""
    keys = [f"k{number}" for number in range(200)]
    ran_before(ledger, keys)
    monkeypatch.setattr(reuse, "ANSWER_S", -1.0)
    jobs, cache = again(ledger, keys), cache_of(ledger)
    assert take(ledger, jobs, cache) is None
    assert cache.was_cut_short
    monkeypatch.undo()
    assert len(take(ledger, jobs, cache).answered) == 200
    assert not cache.was_cut_short


def test_results_are_remembered_together(ledger, monkeypatch):
    """The first at once, those of the next second with one statement: when the second is over, when they are many, or at the end."""
    monkeypatch.setattr(reuse, "WRITE_S", 1e9)
    monkeypatch.setattr(reuse, "MANY", 4)
    jobs, cache = again(ledger, [f"k{number}" for number in range(8)]), cache_of(ledger)
    seen = []
    while made := take(ledger, jobs, cache, 1):
        give(ledger, jobs, cache, answer(made))
        seen.append(len(cached(ledger)))
    assert seen == [1, 1, 1, 1, 5, 5, 5, 5]
    with ledger.transaction():
        cache.write(NOW)
    assert len(cached(ledger)) == 8


def test_a_transaction_that_was_not_made_leaves_nothing_behind(ledger):
    """The identity that it had written down is not there: the next one writes it again."""
    jobs, cache = again(ledger, ["a"]), cache_of(ledger)
    with pytest.raises(ZeroDivisionError), ledger.transaction():
        assert cache.scope_id == 1
        raise ZeroDivisionError
    cache.rewind()
    made = take(ledger, jobs, cache)
    with pytest.raises(ZeroDivisionError), ledger.transaction():
        cache.begin()
        finish(ledger, jobs, answer(made), policy=RetryPolicy(), now_us=NOW, cache=cache)
        raise ZeroDivisionError
    cache.rewind()
    factory.actives.reload(ledger, jobs)
    assert cached(ledger) == []
    give(ledger, jobs, cache, answer(made))
    assert cached(ledger) == [(1, 1)]


def test_any_input_ends_as_if_there_were_no_cache(ledger, seed, scaled):
    """Random inputs with repeats, room and packing: every item has the value of its payload, and each payload runs while it is unknown."""
    chance, known, cache = random.Random(seed), set(), None
    for number in range(scaled(60)):
        cache = cache if cache is not None and chance.random() < 0.5 else cache_of(ledger)
        letters = [chance.choice("abcdefghijklmnop") for _ in range(chance.randrange(1, 60))]
        payloads = {f"{index}": letter for index, letter in enumerate(letters)}
        jobs = factory.new_run(ledger, f"run {number}")
        factory.add(ledger, jobs, payloads, complete=True, payload=lambda key, payloads=payloads: f'"{payloads[key]}"')
        ran = set()
        while made := take(ledger, jobs, cache, chance.randrange(0, 9) or 50, size=chance.randrange(1, 9)):
            assert not {work[3] for _, works in made.groups for work in works} & known
            ran |= set(factory.keys(made))
            back = answer(made, packed={key for key in factory.keys(made) if chance.random() < 0.5}) if made.item_count else None
            if back:
                give(ledger, jobs, cache, back)
                known |= {work[3] for _, works in made.groups for work in works}
        found = run.get(ledger, jobs.run_id)
        assert (found.succeeded_count, found.cached_count) == (len(letters), len(letters) - len(ran))
        assert {payload_digest(f'"{letter}"') for letter in letters} <= {row[0] for row in ledger.raw.execute("SELECT digest FROM cache")}
