"""
Promises: on disk before their effects, and only while their attempt counts.
"""

from __future__ import annotations

from durabatch.codec import frame_digest, pack_frame
from durabatch.engine import active as actives
from durabatch.ledger import run
from tests import factory
from tests.factory import NOW, answer, give_back, promise, take


def entries(ledger, columns="item_id, number, sequence, action, arguments, state"):
    return ledger.raw.execute(f"SELECT {columns} FROM undo ORDER BY undo_id").fetchall()


def test_entries_are_recorded_in_their_order_and_counted(ledger):
    """Each gets an id above all before it; run row and memory count them, and a fresh look at the ledger says the same."""
    jobs = factory.run_of(ledger, 3)
    made = take(ledger, jobs, 2)
    assert promise(ledger, jobs, made, entries=2) == [1, 2, 3, 4]
    assert entries(ledger, "item_id, number, sequence, state, recorded_at_us") == [
        (1, 1, 1, "recorded", NOW), (1, 1, 2, "recorded", NOW), (2, 1, 1, "recorded", NOW), (2, 1, 2, "recorded", NOW),
    ]  # fmt: skip
    assert (jobs.undo_count, jobs.wanted_count, jobs.undoing_count) == (4, 0, 0)
    assert run.get(ledger, 1).undo_count == actives.load(ledger, 1).undo_count == 4
    give_back(ledger, jobs, answer(made))
    assert (jobs.wanted_count, {row[-1] for row in entries(ledger)}) == (0, {"recorded"})


def test_what_is_kept_for_an_effect_comes_with_it(ledger):
    """The content of before is stored as it came; an effect that cannot be taken back says so from the start."""
    jobs = factory.run_of(ledger, 2)
    made, old = take(ledger, jobs, 2), b"old" * 1000
    promise(ledger, jobs, made, "k1", old=pack_frame(old), old_bytes=len(old), old_digest=frame_digest(old))
    promise(ledger, jobs, made, "k2", is_irreversible=True)
    assert ledger.raw.execute("SELECT undo_id, raw_bytes, data FROM undo_blob").fetchall() == [(1, 3000, pack_frame(old))]
    assert [row[-1] for row in entries(ledger)] == ["recorded", "irreversible"]


def test_an_attempt_that_does_not_count_promises_nothing(ledger):
    """Another dispatch, another number, another run, an item that has ended or was never handed out, the same once more: None, and nothing is written."""
    jobs, other = factory.run_of(ledger, 3), factory.run_of(ledger, 1, series="other")
    made = take(ledger, jobs, 2)
    give_back(ledger, jobs, answer(made, only={"k2"}))
    assert promise(ledger, jobs, made, "k2") == [None]
    for wrong in ({"dispatch_id": 9}, {"number": 2}, {"number": 0}, {"item_id": 3}, {"item_id": 99}):
        assert promise(ledger, jobs, made, "k1", **wrong) == [None]
    assert promise(ledger, other, made, "k1") == [None]
    assert (entries(ledger), jobs.undo_count, run.get(ledger, 1).undo_count) == ([], 0, 0)
    assert promise(ledger, jobs, made, "k1", entries=2) == [1, 2]
    assert promise(ledger, jobs, made, "k1", arguments="{}") == [None]
    assert [row[4] for row in entries(ledger)] == ['{"what":"k1.1"}', '{"what":"k1.2"}']
    assert run.get(ledger, 1).undo_count == 2
