"""
Steps: handed out newest first, tried again, given up, taken back after a crash; and a random walk over all of it.
"""

from __future__ import annotations

import random

import pytest
from pydantic_core import from_json

from durabatch.codec import frame_digest, pack_frame
from durabatch.engine import active as actives
from durabatch.engine import steps as steps_module
from durabatch.engine.recover import recover
from durabatch.engine.release import release
from durabatch.engine.rollback import Scope, choose
from durabatch.engine.steps import recover_steps, release_steps
from durabatch.engine.verify import verify
from durabatch.flow.retrying import RetryPolicy
from durabatch.ledger import batch, item, run, undo
from tests import factory
from tests.factory import NOW, answer, failures, finished, give_back, keys, promise, stepped, steps, take, undo_all

S = 1_000_000


def done_run(ledger, count=3, *, entries=1, series="jobs", in_order=False):
    """Return a run of items that all succeeded, each with so many effects, all of them to be undone."""
    jobs = factory.run_of(ledger, count, series=series)
    while made := take(ledger, jobs, 1, size=2):
        promise(ledger, jobs, made, entries=entries)
        give_back(ledger, jobs, answer(made))
    choose(ledger, jobs.run_id, Scope(), in_order=in_order, now_us=NOW)
    actives.reload(ledger, jobs)
    return jobs


def whats(claimed):
    return [from_json(one.step_json)["arguments"]["what"] for one in claimed]


def undo_rows(ledger, columns="state, try_count, due_at_us, error"):
    return ledger.raw.execute(f"SELECT {columns} FROM undo ORDER BY undo_id").fetchall()


def test_the_newest_of_each_item_goes_first_and_alone(ledger):
    """Items beside each other, within one a step only when the newer one is undone; a worker gets all that it needs to know."""
    jobs = done_run(ledger, 2, entries=2)
    first = steps(ledger, jobs, limit=9, is_forced=True)
    assert [(one.undo_id, one.try_number, one.key, one.blob) for one in first] == [(4, 1, "k2", None), (2, 1, "k1", None)]
    assert from_json(first[0].step_json) == {"action": "drop", "arguments": {"what": "k2.2"}, "key": "jobs/k2/1/2", "is_forced": True}
    assert steps(ledger, jobs, limit=9, dispatch_id=-2) == []
    assert jobs.next_step_at_us is None
    done = stepped(ledger, jobs, first[:1])
    assert (done.recorded, done.undone, done.ran, done.ended, jobs.next_step_at_us, jobs.wanted_count) == (1, 1, 1, [], 0, 3)
    second = steps(ledger, jobs, limit=9, dispatch_id=-2)
    assert (whats(second), from_json(second[0].step_json)["is_forced"]) == (["k2.1"], False)
    assert (stepped(ledger, jobs, second, dispatch_id=-2, ran=False).ran, item.get(ledger, 2).state) == (0, "undone")
    stepped(ledger, jobs, first[1:])
    assert undo_all(ledger, jobs) == ["k1.1"]
    assert undo_all(ledger, jobs) == []


def test_an_order_over_all_items_lets_one_step_out_at_a_time(ledger):
    """Newest first over all; a wait for a further try keeps the others back, what failed attempts left goes beside it."""
    jobs = done_run(ledger, 3, in_order=True)
    factory.add(ledger, jobs, ["late"], complete=True)
    made = take(ledger, jobs, 1, size=2)
    promise(ledger, jobs, made, entries=2)
    give_back(ledger, jobs, failures(made, "failed"))
    assert (jobs.wanted_count, jobs.ordered_count) == (5, 3)
    out = steps(ledger, jobs)
    assert whats(out) == ["late.2", "k3.1"]
    stepped(ledger, jobs, out[1:], "failed")
    assert steps(ledger, jobs, dispatch_id=-2) == []
    assert jobs.next_step_at_us == NOW + S
    stepped(ledger, jobs, out[:1])
    assert whats(steps(ledger, jobs, dispatch_id=-3)) == ["late.1"]
    assert [whats(steps(ledger, jobs, now_us=NOW + 2 * S, dispatch_id=-4)), whats(steps(ledger, jobs, dispatch_id=-5))] == [["k3.1"], []]
    recover_steps(ledger)
    jobs = actives.load(ledger, 1)
    assert undo_all(ledger, jobs, now_us=NOW + 2 * S) == ["late.1", "k3.1", "k2.1", "k1.1"]


def test_what_stood_there_before_goes_along_and_is_removed_once_it_is_back(ledger, monkeypatch):
    """As it was recorded; a dispatch holds only as much as is good for a message, but one step may exceed that."""
    jobs, old = factory.run_of(ledger, 3), bytes(range(256)) * 4
    made = take(ledger, jobs, 3)
    promise(ledger, jobs, made, old=pack_frame(old), old_bytes=len(old), old_digest=frame_digest(old))
    give_back(ledger, jobs, failures(made, "failed"))
    monkeypatch.setattr(steps_module, "DISPATCH_BYTES", 2 * len(pack_frame(old)))
    first = steps(ledger, jobs)
    assert (whats(first), {one.blob for one in first}, jobs.next_step_at_us) == (["k3.1"], {pack_frame(old)}, 0)
    stepped(ledger, jobs, first)
    assert ledger.raw.execute("SELECT undo_id FROM undo_blob").fetchall() == [(1,), (2,)]
    assert undo_all(ledger, jobs) == ["k2.1", "k1.1"]
    assert ledger.raw.execute("SELECT count(*) FROM undo_blob").fetchone() == (0,)


def test_a_step_is_tried_again_after_a_wait(ledger):
    """Failures of every kind, a dead worker among them, are charged, an interruption is not; what was wrong last stands with the entry."""
    jobs = done_run(ledger, 1)
    now, waits = NOW, []
    for outcome, wait in (("failed", 1), ("interrupted", 0), ("crashed", 2), ("timed_out", 4), ("snoozed", 8)):
        claimed = steps(ledger, jobs, now_us=now)
        waits.append((claimed[0].try_number, outcome))
        assert stepped(ledger, jobs, claimed, outcome, max_attempts=9, now_us=now, error_message=f"m{wait}").failed == []
        if wait:
            assert steps(ledger, jobs, now_us=now + wait * S - 1) == []
            now += wait * S
            assert jobs.next_step_at_us == now
            assert undo_rows(ledger)[0][3].endswith(f"m{wait}")
    assert waits == [(1, "failed"), (2, "interrupted"), (2, "crashed"), (3, "timed_out"), (4, "snoozed")]
    assert undo_rows(ledger, "state, try_count") == [("undoing", 4)]
    assert stepped(ledger, jobs, steps(ledger, jobs, now_us=now), now_us=now).undone == 1
    assert undo_rows(ledger) == [("undone", 5, None, None)]


@pytest.mark.parametrize("is_last", [True, False])
def test_a_step_that_fails_for_good_leaves_its_item_as_it_was(ledger, is_last):
    """Its tries are used up, or a further one makes no sense: the older effects of the item are not wanted any more, other items go on."""
    jobs = done_run(ledger, 2, entries=3)
    out = steps(ledger, jobs)
    stepped(ledger, jobs, out)
    out = steps(ledger, jobs)
    done = stepped(ledger, jobs, out, "failed", "undone", max_attempts=1 if is_last else 9, retryable=is_last)
    assert [(one.undo_id, one.item_id, one.key, one.error) for one in done.failed] == [(5, 2, "k2", "ValueError: no")]
    assert (done.ended, done.finished.ended_failed, jobs.wanted_count, jobs.undoing_count) == ([], 0, 1, 1)
    assert undo_rows(ledger, "state, wanted_at_us IS NOT NULL") == [
        ("recorded", 1), ("undone", 0), ("undone", 0), ("recorded", 0), ("failed", 0), ("undone", 0),
    ]  # fmt: skip
    assert undo_all(ledger, jobs) == ["k1.1"]
    assert [item.get(ledger, item_id).state for item_id in (1, 2)] == ["undone", "succeeded"]


def test_what_turns_out_to_be_irreversible_is_so_from_then_on(ledger):
    """Nobody tries again; the other effects of the item are undone all the same, and of a failed attempt it remains."""
    jobs = done_run(ledger, 1, entries=2)
    done = stepped(ledger, jobs, steps(ledger, jobs), "failed", error_type="Irreversible", error_message="it is sent")
    assert (done.failed, undo_rows(ledger)[1]) == ([], ("irreversible", 1, None, "Irreversible: it is sent"))
    assert (undo_all(ledger, jobs), item.get(ledger, 1).state) == (["k1.1"], "undone")
    factory.add(ledger, jobs, ["again"], complete=True)
    made = take(ledger, jobs, 1)
    promise(ledger, jobs, made)
    give_back(ledger, jobs, failures(made, "failed"), max_attempts=5)
    done = stepped(ledger, jobs, steps(ledger, jobs), "failed", error_type="Irreversible")
    assert (done.ended, done.finished.ended_failed, item.get(ledger, 2).state) == ([2], 1, "failed")


def test_undone_items_have_no_result_and_their_batches_are_written_anew(ledger):
    """The result is one of before; the batch counts them as not succeeded, and is another thing to publish."""
    jobs = factory.run_of(ledger, 2)
    made = take(ledger, jobs, 2, size=2)
    promise(ledger, jobs, made)
    give_back(ledger, jobs, answer(made))
    batch.mark_published(ledger, [1], NOW)
    choose(ledger, 1, Scope(keys=("k1",)), in_order=True, now_us=NOW)
    actives.reload(ledger, jobs)
    undo_all(ledger, jobs)
    assert ledger.raw.execute("SELECT item_id, number, cause FROM result_history").fetchall() == [(1, 1, "undone")]
    assert ledger.raw.execute("SELECT ended_count, failed_count, published_at_us, digest FROM batch").fetchall() == [(2, 1, None, None)]
    assert (run.get(ledger, 1).undone_count, run.get(ledger, 1).succeeded_count) == (1, 1)


def test_steps_that_come_back_or_are_lost_are_taken_again(ledger):
    """Unstarted ones by a release, those of a dead coordinator at the next opening; what a dispatch sends that does not hold them changes nothing."""
    jobs = done_run(ledger, 3)
    out = steps(ledger, jobs)
    with factory.tick(ledger, jobs):
        assert release_steps(ledger, jobs, -7, [-3]) == 0
        assert release_steps(ledger, jobs, -1, [-3, -99]) == 1
        assert release_steps(ledger, jobs, -1, []) == 0
    again = steps(ledger, jobs, dispatch_id=-2)
    assert [one.undo_id for one in again] == [3]
    assert (stepped(ledger, jobs, out[:1]).recorded, stepped(ledger, jobs, out[:1], "failed").recorded) == (0, 0)
    assert (recover_steps(ledger), recover_steps(ledger)) == (3, 0)
    jobs = actives.load(ledger, 1)
    assert stepped(ledger, jobs, out).recorded == 0
    assert (jobs.wanted_count, jobs.next_step_at_us, sorted(undo_all(ledger, jobs))) == (3, 0, ["k1.1", "k2.1", "k3.1"])


class Walk:
    """Random work on one run: whatever happens, the memory agrees with the ledger, and every rule holds."""

    def __init__(self, ledger, chance):
        self.ledger, self.chance, self.now = ledger, chance, NOW
        self.jobs = factory.run_of(ledger, 12)
        self.items, self.out, self.dispatch_id = [], [], 0
        self.sequences = {}

    def claim(self):
        made = take(self.ledger, self.jobs, self.chance.randint(1, 3), size=4, now_us=self.now)
        self.items += [made] if made else []

    def promise(self):
        if self.items:
            made, sequence = self.chance.choice(self.items), len(self.sequences) + 1
            self.sequences[sequence] = made
            key = self.chance.choice(keys(made))
            promise(self.ledger, self.jobs, made, key, sequence=sequence, is_irreversible=self.chance.random() < 0.05)

    def finish(self):
        if self.items:
            made = self.items.pop(self.chance.randrange(len(self.items)))
            outcomes = self.chance.choices(["failed", "timed_out", "interrupted", "skipped", "snoozed"], k=3)
            lost = {key for key in keys(made) if self.chance.random() < 0.5}
            give_back(self.ledger, self.jobs, answer(made, only=set(keys(made)) - lost), now_us=self.now)
            back = failures(made, *outcomes, only=lost, after_s=1.0)
            finished(self.ledger, self.jobs, back, policy=RetryPolicy(3, backoff_s=1), now_us=self.now)

    def give_back(self):
        if self.items:
            made = self.items.pop()
            with factory.tick(self.ledger, self.jobs):
                release(self.ledger, self.jobs, made.dispatch_id, factory.ids(made))

    def claim_steps(self):
        self.dispatch_id -= 1
        claimed = steps(self.ledger, self.jobs, limit=self.chance.randint(1, 4), dispatch_id=self.dispatch_id, now_us=self.now)
        assert len({one.key for one in claimed}) == len(claimed)
        self.out += [(self.dispatch_id, claimed)] if claimed else []

    def finish_steps(self):
        if self.out:
            dispatch_id, claimed = self.out.pop(self.chance.randrange(len(self.out)))
            outcomes = self.chance.choices(["undone", "failed", "interrupted", "crashed"], [6, 1, 1, 1], k=4)
            stepped(
                self.ledger, self.jobs, claimed, *outcomes, dispatch_id=dispatch_id, now_us=self.now, retryable=self.chance.random() < 0.8,
                error_type=self.chance.choice(["ValueError"] * 9 + ["Irreversible"]),
            )  # fmt: skip

    def release_steps(self):
        if self.out:
            dispatch_id, claimed = self.out.pop()
            with factory.tick(self.ledger, self.jobs):
                release_steps(self.ledger, self.jobs, dispatch_id, [-one.undo_id for one in claimed])

    def roll_back(self):
        if not self.items and not self.out:
            choose(self.ledger, 1, Scope(), in_order=self.chance.random() < 0.5, now_us=self.now)
            actives.reload(self.ledger, self.jobs)

    def crash(self):
        self.items, self.out, self.dispatch_id = [], [], 0
        recover(self.ledger, 1, [], now_us=self.now)
        recover_steps(self.ledger)
        self.jobs = actives.load(self.ledger, 1)

    def wait(self):
        self.now += 2 * S

    def step(self):
        moves = [self.claim, self.promise, self.promise, self.finish, self.finish_steps, self.claim_steps, self.wait]
        rare = [self.give_back, self.release_steps, self.crash, self.roll_back]
        self.chance.choice(rare if self.chance.random() < 0.15 else moves)()

    def check(self, *, rules=True):
        fresh = actives.load(self.ledger, 1)
        for name in ("undo_count", "wanted_count", "ordered_count", "undoing_count", "counts", "attempt_count", "held_count"):
            assert getattr(self.jobs, name) == getattr(fresh, name), name
        assert not self.is_missed(fresh.next_due_at_us, self.jobs.next_due_at_us)
        assert not self.is_missed(0 if self.is_ready() else undo.next_due(self.ledger, 1, self.now), self.jobs.next_step_at_us)
        assert not rules or verify(self.ledger) == []

    def is_ready(self):
        """Tell whether a step can be handed out; found by going through all entries."""
        rows = self.ledger.raw.execute("SELECT item_id, is_in_order, dispatch_id, due_at_us FROM undo WHERE wanted_at_us IS NOT NULL ORDER BY undo_id DESC")
        seen, has_order = set(), False
        for item_id, is_in_order, dispatch_id, due_at_us in rows.fetchall():
            is_first = item_id not in seen and not (is_in_order and has_order)
            if is_first and dispatch_id is None and (due_at_us or 0) <= self.now:
                return True
            seen.add(item_id)
            has_order |= bool(is_in_order)
        return False

    def is_missed(self, due_us, expected_us):
        """Tell whether something comes before it is looked for."""
        return due_us is not None and (expected_us is None or max(self.now, due_us) < expected_us)

    def end(self):
        """Everything that is with somebody comes back; then what is wanted can always be worked off, and no owed item is left."""
        self.crash()
        self.now += 1000 * S
        undo_all(self.ledger, self.jobs, now_us=self.now)
        self.check()
        assert (self.jobs.wanted_count, self.jobs.undoing_count) == (0, 0)
        left = self.ledger.raw.execute("SELECT DISTINCT item.state FROM undo JOIN item USING (item_id) WHERE undo.state = 'recorded'")
        assert {row[0] for row in left} <= {"succeeded", "failed"}


def test_whatever_happens_the_memory_agrees_with_the_ledger(ledger, seed, long):
    """Claims, promises, failures, steps, crashes and rollbacks in any order: counters, rules, and an end at which nothing is owed."""
    walk = Walk(ledger, random.Random(seed))
    for _ in range(40 if long else 4):
        for step in range(60):
            walk.step()
            walk.check(rules=long or step % 10 == 0)
        walk.end()
        factory.add(ledger, walk.jobs, [f"more{walk.jobs.total_count}-{number}" for number in range(6)])
