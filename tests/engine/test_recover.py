from __future__ import annotations

import contextlib

from durabatch.engine import active as actives
from durabatch.engine.recover import recover
from durabatch.engine.release import release
from durabatch.engine.results import results
from durabatch.engine.verify import verify
from durabatch.ledger import attempt, item, run
from durabatch.ledger.opening import open_ledger
from durabatch.workers.cells import Cells
from tests import factory
from tests.factory import NOW, answer, give_back, ids, keys, take


def test_everything_handed_out_can_be_claimed_again(ledger):
    """Items that no cell shows are pending as if they had never been claimed, except that they keep their batch."""
    jobs = factory.run_of(ledger, 6)
    take(ledger, jobs, 4, size=3)
    assert recover(ledger, jobs.run_id, [], now_us=NOW) == (4, 0)
    assert [(item.get(ledger, n).state, item.get(ledger, n).batch_id, item.get(ledger, n).attempt_count) for n in (1, 4, 5)] == [
        ("pending", 1, 0),
        ("pending", 2, 0),
        ("pending", None, 0),
    ]
    jobs = actives.load(ledger, jobs.run_id)
    assert keys(take(ledger, jobs, 9, size=3)) == ["k1", "k2", "k3", "k4", "k5", "k6"]


def test_what_the_cells_show_becomes_an_interrupted_attempt(ledger, tmp_path):
    """An item that had started carries one attempt more, with its worker and its time, and is not charged for it."""
    jobs = factory.run_of(ledger, 4)
    made = take(ledger, jobs, 4)
    with contextlib.closing(Cells.create(tmp_path / "cells", 3, "boot", jobs.run_id)) as cells:
        cells.occupy(2, 4711, 12)
        cells.enter(2, 3, made.dispatch_id, 1, NOW - 5000)
        started = [(cell.item_id, cell.dispatch_id, cell.index + 1, cell.started_at_us) for cell in cells.read()]
    assert recover(ledger, jobs.run_id, started, now_us=NOW) == (4, 1)
    assert attempt.list_of_item(ledger, 3) == [attempt.AttemptRow(1, 3, "interrupted", NOW - 5000, 5000, *[None] * 6)]
    assert (item.get(ledger, 3).attempt_count, item.get(ledger, 3).uncharged_count) == (1, 1)
    assert run.get(ledger, jobs.run_id).attempt_count == 1
    jobs = actives.load(ledger, jobs.run_id)
    factory.work_off(ledger, jobs)
    assert [one.attempts for one in results(ledger, jobs.run_id)] == [1, 1, 1, 1]


def test_a_cell_of_an_older_dispatch_is_ignored(ledger):
    """What a cell shows counts only when the item is still with that dispatch; damaged cells do no harm."""
    jobs = factory.run_of(ledger, 2)
    made = take(ledger, jobs, 2)
    cells = [(1, made.dispatch_id + 7, 1, NOW), (999, made.dispatch_id, 1, NOW), (2, made.dispatch_id, 1, NOW), (2, made.dispatch_id, 2, NOW + 9)]
    assert recover(ledger, jobs.run_id, cells, now_us=NOW) == (2, 1)
    assert [row.duration_us for row in attempt.list_of_item(ledger, 2)] == [0]


def test_a_second_recovery_finds_nothing(ledger):
    """Recovery may itself be interrupted and made again."""
    jobs = factory.run_of(ledger, 3)
    made = take(ledger, jobs, 3)
    assert recover(ledger, jobs.run_id, [(1, made.dispatch_id, 1, NOW)], now_us=NOW) == (3, 1)
    assert recover(ledger, jobs.run_id, [(1, made.dispatch_id, 1, NOW)], now_us=NOW) == (0, 0)
    assert len(attempt.list_of_item(ledger, 1)) == 1


def test_finished_items_are_left_alone(ledger):
    """Only what was running is touched, also in batches in which some have ended."""
    jobs = factory.run_of(ledger, 5)
    made = take(ledger, jobs, 4)
    give_back(ledger, jobs, answer(made, only={"k1", "k3"}))
    assert recover(ledger, jobs.run_id, [], now_us=NOW) == (2, 0)
    assert [one.state for one in results(ledger, jobs.run_id)] == ["succeeded", "pending", "succeeded", "pending", "pending"]


def test_a_flush_from_before_the_crash_changes_nothing(ledger):
    """A worker that outlived its coordinator comes too late with everything."""
    jobs = factory.run_of(ledger, 2)
    made = take(ledger, jobs, 2)
    recover(ledger, jobs.run_id, [], now_us=NOW)
    jobs = actives.load(ledger, jobs.run_id)
    assert give_back(ledger, jobs, answer(made, failing={"k2"})) == 0
    assert keys(take(ledger, jobs, 2)) == ["k1", "k2"]


def test_a_run_goes_on_in_another_connection(worked):
    """What a crash leaves is all in the file: another connection recovers it and works it off, batches exact."""
    with contextlib.closing(open_ledger(worked)) as again:
        assert recover(again, 2, [], now_us=NOW) == (3, 0)
        factory.work_off(again, actives.load(again, 2), limit=4, size=5)
        assert [one.value for one in results(again, 2)] == [f"k{number}!" for number in range(1, 13)]
        counts = again.raw.execute("SELECT item_count, ended_count, sealed FROM batch WHERE run_id = 2 ORDER BY number").fetchall()
        assert counts == [(5, 5, 1), (5, 5, 1), (2, 2, 1)]
        assert verify(again) == []


def test_a_release_takes_back_only_what_the_dispatch_holds(ledger):
    """Items of other dispatches, ended ones and unknown ones stay as they are."""
    jobs = factory.run_of(ledger, 6)
    first, second = take(ledger, jobs, 3), take(ledger, jobs, 3)
    give_back(ledger, jobs, answer(first, only={"k1"}))
    with factory.tick(ledger, jobs):
        assert release(ledger, jobs, first.dispatch_id, [*ids(first), *ids(second), 999]) == 2
        assert release(ledger, jobs, first.dispatch_id, []) == 0
    row = run.get(ledger, jobs.run_id)
    assert (row.pending_count, row.running_count, row.succeeded_count) == (2, 3, 1)
    assert item.get(ledger, 2).attempt_count == 0
