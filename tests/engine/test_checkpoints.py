from __future__ import annotations

import contextlib
import os
import random

import pytest

from durabatch.codec import inline_digests
from durabatch.engine import active as actives
from durabatch.engine.checkpoints import held_counts, list_checkpoints, mark, point, remaining
from durabatch.engine.conclude import conclude
from durabatch.engine.digests import digest_of_batch
from durabatch.engine.redo import redo
from durabatch.engine.retry import Chosen, retry
from durabatch.engine.reuse import Cache
from durabatch.engine.skip import skip
from durabatch.engine.validating import refuse_differing, validate
from durabatch.engine.withdraw import withdraw
from durabatch.errors import LedgerDamagedError, NotFoundError, UsageError
from durabatch.flow.retrying import RetryPolicy
from durabatch.ledger import checkpoint
from durabatch.ledger.opening import open_ledger
from durabatch.ledger.reader import Reader
from durabatch.states import RunState
from tests import factory
from tests.factory import NOW, answer, failure, finished, give_back, ids, take

ENDED = ("succeeded", "failed", "skipped", "cancelled", "quarantined", "undone")


def stored(ledger, run_id=1):
    """Return (bytes, digest) of each finished batch as its row has them, by number."""
    return {one.number: (one.result_bytes, one.digest) for one in checkpoint.list_batches(ledger, run_id) if one.finished_at_us is not None}


def computed(ledger, run_id=1):
    """Return the same as the results have them."""
    return {one.number: digest_of_batch(ledger, one.batch_id) for one in checkpoint.list_batches(ledger, run_id) if one.finished_at_us is not None}


def at(back, started_at_us, duration_us):
    """Return what comes back of a dispatch with these times for all attempts."""
    back.inline = [(*row[:3], started_at_us, duration_us, row[5]) for row in back.inline]
    back.packed = [(*row[:3], started_at_us, duration_us, *row[5:]) for row in back.packed]
    back.failed = [failure(one.row["item_id"], one.row["number"], started_at_us=started_at_us, duration_us=duration_us) for one in back.failed]
    return back


def wander(ledger, jobs, chance, *, steps=400):
    """Work a run off in random order, several dispatches at once, with failures, further tries, packed results and items run again."""
    now, held = NOW, []
    for _ in range(steps):
        now += chance.randrange(1, 50)
        made = take(ledger, jobs, chance.randrange(1, 9), size=6, now_us=now) if len(held) < 3 else None
        if made is not None:
            held.append((made, now))
        elif not held:
            return
        if chance.random() < 0.6:
            made, begun = held.pop(chance.randrange(len(held)))
            keys = factory.keys(made)
            back = answer(made, failing=[key for key in keys if chance.random() < 0.2], packed=[key for key in keys if chance.random() < 0.3])
            give_back(ledger, jobs, at(back, begun, now - begun), max_attempts=3, now_us=now)
        elif chance.random() < 0.1:
            redo(ledger, jobs.run_id, [chance.randrange(1, 60)], cause="redone", now_us=now)
            actives.reload(ledger, jobs)


def held_by_hand(ledger, number, finished_at_us):
    """Return the keys that a checkpoint holds, told from the rows in Python."""
    sql = """SELECT item.key, item.state, batch.number, batch.finished_at_us, attempt.started_at_us + attempt.duration_us
             FROM item LEFT JOIN batch USING (batch_id) LEFT JOIN attempt ON attempt.item_id = item.item_id AND attempt.number = item.attempt_count"""
    held = set()
    for key, state, batch, finished_at, ended in ledger.raw.execute(sql):
        with_batch = batch is not None and batch <= number and finished_at is not None and finished_at <= finished_at_us
        before = (batch or 0) < number and ended is not None and ended <= finished_at_us
        if state in ENDED and (with_batch or before):
            held.add(key)
    return held


def test_a_digest_is_added_up_as_results_come_and_is_that_of_the_stored_results(ledger, seed):
    """Inline and packed results, in whatever order and over batches; what came too late or twice counts once; bytes are those of the JSON."""
    jobs, chance = factory.run_of(ledger, 60), random.Random(seed)
    made = take(ledger, jobs, 9, size=6)
    back = answer(made, packed=[f"k{number}" for number in range(2, 9, 3)])
    give_back(ledger, jobs, answer(made, only=["k1", "k2", "k7"], packed=["k2"]))
    give_back(ledger, jobs, back)
    give_back(ledger, jobs, back)
    wander(ledger, jobs, chance)
    factory.work_off(ledger, jobs, size=6)
    assert len(stored(ledger)) == 10
    assert stored(ledger) == computed(ledger)
    keys = [row[0] for row in ledger.raw.execute("SELECT key FROM item WHERE state = 'succeeded'")]
    assert sum(size for size, _ in stored(ledger).values()) == sum(len(f'"{key}!"') for key in keys)


def test_two_values_that_change_places_change_the_digest():
    """What a result adds begins with its item: the same values of other items come to something else."""
    assert sum(inline_digests([1, 2], [b'"a"', b'"b"'])) != sum(inline_digests([1, 2], [b'"b"', b'"a"']))
    assert sum(inline_digests([2, 1], [b'"b"', b'"a"'])) == sum(inline_digests([1, 2], [b'"a"', b'"b"']))


def test_a_digest_is_unknown_from_where_a_result_goes_until_its_batch_finishes(ledger):
    """A retry of what failed takes no result away, and keeps it; a redo and a withdrawal do, and have it added up anew."""
    jobs = factory.run_of(ledger, 12)
    factory.work_off(ledger, jobs, size=5, failing={"k2"})
    before = {one.number: one.digest for one in checkpoint.list_batches(ledger, 1)}
    retry(ledger, 1, Chosen(), now_us=NOW)
    redo(ledger, 1, [7], cause="redone", now_us=NOW)
    withdraw(ledger, 1, [11], now_us=NOW)
    assert [one.digest for one in checkpoint.list_batches(ledger, 1)] == [before[1], None, None]
    jobs = actives.load(ledger, 1)
    factory.work_off(ledger, jobs, size=5)
    assert stored(ledger)[3] == (None, None)
    conclude(ledger, jobs, RunState.FINISHED, reason=None, exit_code=0, elapsed_us=1, now_us=NOW)
    assert stored(ledger) == computed(ledger)
    assert [stored(ledger)[2][1] == before[2], stored(ledger)[3][1] == before[3]] == [True, False]


def test_results_of_the_cache_are_added_up_when_their_batch_finishes(ledger):
    """They are copied without being looked at, so the batch is read once, at its end."""
    cache = Cache(ledger, "same", ttl_s=None, size_bytes=1 << 20)
    first = factory.run_of(ledger, 12)
    while made := take(ledger, first, 5, size=5):
        with factory.tick(ledger, first):
            factory.finish(ledger, first, answer(made, packed={"k3"}), policy=RetryPolicy(), now_us=NOW, cache=cache)
    with ledger.transaction():
        cache.write(NOW)
    second = factory.run_of(ledger, 12, series="again")
    with factory.tick(ledger, second):
        cache.begin()
        factory.claim(ledger, second, factory.FixedBatches(5), limit=20, max_bytes=1 << 20, now_us=NOW, cache=cache)
        factory.seal_when_exhausted(ledger, second, NOW)
    conclude(ledger, second, RunState.FINISHED, reason=None, exit_code=0, elapsed_us=1, now_us=NOW)
    assert len(stored(ledger, second.run_id)) == 3
    assert stored(ledger, second.run_id) == computed(ledger, second.run_id)
    assert None not in sum(stored(ledger, second.run_id).values(), ())


def test_a_checkpoint_holds_what_had_ended_when_its_batch_finished(ledger, seed):
    """The list counts what the definition says, which is what Python finds in the rows; what is left and has ended is what a rollback takes back."""
    jobs, chance = factory.run_of(ledger, 60), random.Random(seed)
    skip(ledger, jobs, [{**failure(item_id, 1, "skipped").row, "started_at_us": NOW + item_id} for item_id in (58, 59)], NOW)
    jobs.write_tally(ledger)
    wander(ledger, jobs, chance, steps=chance.randrange(20, 200))
    keys, states = [f"k{number}" for number in range(1, 61)], dict(ledger.raw.execute("SELECT key, state FROM item"))
    listed = {one.number: one for one in list_checkpoints(ledger, 1)}
    points = {one.number: one for one in checkpoint.list_batches(ledger, 1) if one.finished_at_us is not None}
    assert listed.keys() == points.keys()
    for number, one in points.items():
        held = held_by_hand(ledger, number, one.finished_at_us)
        assert list(remaining(ledger, 1, number, one.finished_at_us)) == [key for key in keys if key not in held]
        assert (listed[number].done, listed[number].left) == (len(held), 60 - len(held))
        after = [found.key for found in checkpoint.outside(ledger, 1, number, one.finished_at_us, ended=True)]
        assert after == [key for key in keys if key not in held and states[key] in ENDED]
    for made in iter(lambda: take(ledger, jobs, 50, size=6), None):
        give_back(ledger, jobs, answer(made))


def test_items_that_never_ran_are_in_no_checkpoint_before_their_batch(ledger):
    """Cancelled without an attempt: not held by a batch that finished before theirs."""
    counts = held_counts(
        [checkpoint.BatchPoint(1, 1, 3, 3, 2, 50, 0, 0), checkpoint.BatchPoint(2, 2, 2, 2, 0, 20, 0, 0), checkpoint.BatchPoint(3, 3, 1, 0, 0, None, 0, 0)],
        {1: [10], 2: [15, 20], 3: []}.__getitem__, [5, 30],
    )  # fmt: skip
    assert counts == {1: 3 + 2, 2: 1 + 2 + 1}
    assert list_checkpoints(ledger, factory.run_of(ledger, 3).run_id) == []


def test_checkpoints_have_numbers_and_names(ledger):
    """A name stays with its checkpoint, may be given twice and stand beside others; a wrong one says what there is."""
    jobs = factory.run_of(ledger, 12)
    with pytest.raises(NotFoundError, match="no checkpoint yet"):
        point(ledger, 1, None)
    give_back(ledger, jobs, answer(take(ledger, jobs, 7, size=5)))
    assert mark(ledger, 1, "before upgrade", None, now_us=NOW) == 1
    assert mark(ledger, 1, "before upgrade", "1", now_us=NOW) == 1
    give_back(ledger, jobs, answer(take(ledger, jobs, 4, size=5)), now_us=NOW + 5000)
    assert (mark(ledger, 1, "second", None, now_us=NOW), mark(ledger, 1, "also", "second", now_us=NOW)) == (2, 2)
    assert [(one.number, one.labels) for one in list_checkpoints(ledger, 1)] == [(1, ("before upgrade",)), (2, ("also", "second"))]
    assert (point(ledger, 1, "before upgrade").number, point(ledger, 1, 2).number) == (1, 2)
    with pytest.raises(UsageError, match=r"checkpoint 1 is called 'before upgrade' already"):
        mark(ledger, 1, "before upgrade", "2", now_us=NOW)
    with pytest.raises(NotFoundError, match=r"'nope' in this run. There are: before upgrade, also, second"):
        point(ledger, 1, "nope")
    with pytest.raises(NotFoundError, match="batch 3 has not finished"):
        point(ledger, 1, 3)
    with pytest.raises(NotFoundError, match="no checkpoint 9 in this run"):
        mark(ledger, 1, "far", "9", now_us=NOW)
    for label in ("", "  ", "7", "a\nb", "x" * 201):
        with pytest.raises(UsageError, match="cannot name a checkpoint"):
            mark(ledger, 1, label, None, now_us=NOW)
    redo(ledger, 1, [1], cause="redone", now_us=NOW)
    with pytest.raises(NotFoundError, match="before upgrade is not there yet"):
        point(ledger, 1, "before upgrade")
    factory.work_off(ledger, actives.load(ledger, 1), size=5)


@pytest.fixture
def recorded(path, tmp_path):
    """Give the path of a ledger with a finished run of three batches, read from a file, with packed results and undo entries of two items."""
    (tmp_path / "in.csv").write_text("a\n")
    facts = os.stat(tmp_path / "in.csv")
    prints = [{"path": str(tmp_path / "in.csv"), "bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns}]
    with contextlib.closing(open_ledger(path, create=True, durability="process")) as ledger:
        jobs = factory.new_run(ledger, fingerprint=prints)
        factory.add(ledger, jobs, [f"k{number}" for number in range(1, 13)], complete=True)
        factory.work_off(ledger, jobs, size=5, packed={"k6", "k7"}, failing={"k11"})
        conclude(ledger, jobs, RunState.FINISHED, reason=None, exit_code=1, elapsed_us=1, now_us=NOW)
    columns = "INSERT INTO undo (run_id, item_id, number, sequence, action, arguments, state, recorded_at_us, ended_at_us) VALUES"
    factory.sabotage(
        path, f"{columns} (1, 3, 1, 1, 'unmake', '{{}}', 'recorded', 1, NULL), (1, 11, 1, 1, 'unmake', '{{}}', 'undone', 1, 2)", "UPDATE run SET undo_count = 2"
    )  # fmt: skip
    return path


SABOTAGE = [
    ("UPDATE result SET value = '\"k2?\"' WHERE item_id = 2", 1, ["the digest"]),
    ("UPDATE result SET value = '\"k2!!\"' WHERE item_id = 2", 1, ["25 bytes of results were recorded, there are 26", "the digest"]),
    ("UPDATE result SET segment_offset = 5 - segment_offset WHERE item_id IN (6, 7)", 2, ["the digest"]),
    ("UPDATE segment SET data = zeroblob(9)", 2, ["segment 1, in which the result of item 'k6' lies: stored results are damaged"]),
    ("DELETE FROM result WHERE item_id = 12", 3, ["item 'k12' is succeeded and has no result", "bytes of results", "the digest"]),
    ("UPDATE batch SET failed_count = 0 WHERE number = 3", 3, ["0 failed items were recorded, there are 1"]),
    ("UPDATE run SET succeeded_count = 10, failed_count = 2", None, ["succeeded_count 10 was recorded, the rows say 11", "failed_count 2 was"]),
    ("UPDATE run SET undo_count = 5", None, ["5 entries were recorded, there are 2"]),
    ("UPDATE undo SET state = 'undone', ended_at_us = 9 WHERE item_id = 3", 1, ["item 'k3': it is succeeded, but 'unmake' of attempt 1 was undone"]),
    ("UPDATE undo SET state = 'undoing', wanted_at_us = 9 WHERE item_id = 3", 1, ["item 'k3': 'unmake' of attempt 1 is still to be undone"]),
    ("UPDATE undo SET state = 'failed', ended_at_us = 9 WHERE item_id = 3", 1, ["item 'k3': 'unmake' of attempt 1 could not be undone: its effect remains"]),
    ("UPDATE undo SET state = 'recorded', ended_at_us = NULL WHERE item_id = 11", 3, ["item 'k11': attempt 1 is failed, but 'unmake' was not undone"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "number", "told"), SABOTAGE)
def test_validation_says_exactly_what_differs_and_up_to_where(recorded, text, number, told):
    """What was changed is found in its batch, and by no checkpoint before it; what is of the run as a whole, by all of it alone."""
    with Reader(recorded) as reader:
        assert validate(reader, 1) == []
    factory.sabotage(recorded, text)
    with Reader(recorded) as reader:
        found = [one for one in validate(reader, 1) if not (number and one.where.startswith("run "))]
        assert [wanted in one.detail for one, wanted in zip(found, told, strict=True)] == [True] * len(told), found
        assert {one.where for one in found} == {f"batch {number}" if number else "run jobs"}
        for earlier in range(1, number or 4):
            assert validate(reader, 1, earlier) == []
        if number:
            assert validate(reader, 1, number) == found


def test_validation_looks_at_the_input_files(recorded, tmp_path):
    """Size and time, and whether the file is there; only the first of several entries of one file differs where only that was changed."""
    source = tmp_path / "in.csv"
    source.write_text("a\nb\n")
    os.utime(source, ns=(0, 10**9))
    with Reader(recorded) as reader:
        found = [(one.rule, one.where.endswith("in.csv"), one.detail) for one in validate(reader, 1, 1)]
        source.unlink()
        gone = [one.detail for one in validate(reader, 1)]
    assert found[0] == ("input", True, "2 bytes were recorded, there are 4")
    assert found[1][2].endswith("and since at 1970-01-01T00:00:01.000Z")
    assert (len(found), gone) == (2, ["cannot be looked at: No such file or directory"])


def test_the_check_before_a_resume_reads_the_last_checkpoint_alone(recorded):
    """Its digest and counters; an unknown digest, and what stands before it, stop nobody."""
    with Reader(recorded) as reader:
        refuse_differing(reader, 1)
    factory.sabotage(recorded, "UPDATE result SET value = '\"k2?\"' WHERE item_id = 2")
    with Reader(recorded) as reader:
        refuse_differing(reader, 1)
    factory.sabotage(recorded, "UPDATE result SET value = '\"k12?\"' WHERE item_id = 12")
    with Reader(recorded) as reader, pytest.raises(LedgerDamagedError, match=r"not as it was recorded \(batch 3: the digest .* --force"):
        refuse_differing(reader, 1)
    factory.sabotage(recorded, "UPDATE batch SET digest = NULL WHERE number = 3")
    with Reader(recorded) as reader:
        refuse_differing(reader, 1)
        assert len(list_checkpoints(reader, 1)[2].digest) == 16
    factory.sabotage(recorded, "UPDATE batch SET ended_count = 1, failed_count = 1 WHERE number = 3")
    with Reader(recorded) as reader, pytest.raises(LedgerDamagedError, match=r"batch 3: 1 ended items were recorded, there are 2"):
        refuse_differing(reader, 1)


def test_a_stale_answer_adds_nothing(ledger):
    """A dispatch that lost some of its items adds the results of the others alone."""
    jobs = factory.run_of(ledger, 6)
    made = take(ledger, jobs, 6, size=6)
    back = answer(made, packed={"k5", "k6"})
    finished(ledger, jobs, answer(made, only=["k1", "k5"], packed={"k5"}))
    finished(ledger, jobs, back)
    assert ids(made) == list(range(1, 7))
    assert len(stored(ledger)) == 1
    assert stored(ledger) == computed(ledger)
