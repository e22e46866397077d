from __future__ import annotations

import contextlib

import pytest

from durabatch.engine.export import Snapshot, record
from durabatch.engine.redo import redo
from durabatch.errors import LedgerDamagedError, SqlError
from durabatch.ledger.reader import Reader
from durabatch.ledger.scratch import Scratch
from durabatch.states import ItemState
from tests import factory

SUCCEEDED = (ItemState.SUCCEEDED,)
EVERY = tuple(ItemState)


@pytest.fixture
def snapshots(path):
    """Give a function that makes snapshots of a run, through readers that are closed afterwards."""
    with contextlib.ExitStack() as stack:

        def make(run):
            return Snapshot(stack.enter_context(Reader(path)), stack.enter_context(Scratch()), run.run_id)

        yield make


def take(snapshot, states=SUCCEEDED, **rest):
    snapshot.take(states, timeout_s=30, **rest)
    return snapshot


def values(snapshot, on_damage=None):
    return {result.key: result.value_json or result.error for _, result in snapshot.results(on_damage)}


def run_again(ledger, run, item_ids, **answered):
    """Have items run again by a handler that answers something else."""
    redo(ledger, run.run_id, item_ids, cause="redone", now_us=factory.NOW)
    again = factory.actives.load(ledger, run.run_id)
    made = factory.take(ledger, again, len(item_ids))
    back = factory.answer(made, **answered)
    back.inline = [(*one[:-1], '"later"') for one in back.inline]
    factory.give_back(ledger, again, back)


def test_what_is_redone_meanwhile_leaves_as_it_was(ledger, snapshots):
    """Inline values, packed ones and errors are those of the moment of the snapshot, whether the item waits again or has ended another way."""
    run = factory.run_of(ledger, 12)
    factory.work_off(ledger, run, failing={"k4", "k5"}, packed={"k2", "k3"})
    snapshot, before = take(snapshots(run), EVERY), values(take(snapshots(run), EVERY))
    run_again(ledger, run, [1, 2, 3, 4, 6], failing={"k6"})
    redo(ledger, run.run_id, [3, 7], cause="redone", now_us=factory.NOW)
    assert values(snapshot) == before
    assert {result.key: (result.state, result.attempts) for _, result in snapshot.results(None)} == {
        f"k{number}": ("failed" if number in (4, 5) else "succeeded", 1) for number in range(1, 13)
    }
    now = values(take(snapshots(run)))
    assert (now["k1"], now["k4"], now["k2"]) == ('"later"', '"later"', '"later"')
    assert now.keys() == {f"k{number}" for number in range(1, 13)} - {"k3", "k5", "k6", "k7"}


def test_reading_keeps_the_log_from_nothing(ledger, snapshots):
    """Once the items are noted, no read transaction is open between two pages: the whole log can be moved into the ledger."""
    run = factory.run_of(ledger, 2500)
    factory.work_off(ledger, run, limit=500, size=500)
    rows = take(snapshots(run)).results(None)
    next(rows)
    factory.add(ledger, factory.new_run(ledger, "other"), ["x"])
    assert ledger.checkpoint(truncate=True)
    assert len(list(rows)) == 2499


def test_items_are_chosen_by_state_and_expression(ledger, snapshots):
    """Both hold at once; what has not ended is there when it is asked for, and a wrong expression is an error."""
    run = factory.run_of(ledger, 30)
    factory.give_back(ledger, run, factory.answer(factory.take(ledger, run, 20), failing={"k4", "k11"}))
    assert list(values(take(snapshots(run), where="batch = 2 AND key <> 'k12'"))) == [f"k{number}" for number in range(13, 21)]
    assert values(take(snapshots(run), ("failed",), where="batch = 2")) == {"k11": "ValueError: no"}
    assert take(snapshots(run), EVERY).counts() == {"succeeded": 18, "failed": 2, "pending": 10}
    with pytest.raises(SqlError, match="no such column: nonsense"):
        take(snapshots(run), where="nonsense = 1")


def test_a_target_gets_each_attempt_once(ledger, snapshots):
    """What was recorded for a target is left out until it has run again; another target, another run and another order are not concerned."""
    run = factory.run_of(ledger, 20)
    factory.give_back(ledger, run, factory.answer(factory.take(ledger, run, 7)))
    first = take(snapshots(run), target="/out.csv")
    assert len(values(first)) == 7
    record(ledger, first, "/out.csv", factory.NOW)
    assert values(take(snapshots(run), target="/out.csv")) == {}
    factory.give_back(ledger, run, factory.answer(factory.take(ledger, run, 3)))
    run_again(ledger, run, [5])
    second = take(snapshots(run), target="/out.csv")
    assert values(second) == {"k5": '"later"', "k8": '"k8!"', "k9": '"k9!"', "k10": '"k10!"'}
    assert list(values(take(snapshots(run), target="/out.csv", where="key > 'k5'"))) == ["k8", "k9"]
    assert len(values(take(snapshots(run), target="-"))) == 10
    record(ledger, second, "/out.csv", factory.NOW)
    assert values(take(snapshots(run), target="/out.csv")) == {}


def test_damaged_and_missing_values_are_named(worked):
    """A value that cannot be read, or is not there, is told with its key, and the others are read; without a listener it is raised."""
    factory.sabotage(
        worked, "UPDATE segment SET data = zeroblob(length(data)) WHERE segment_id = 1", "DELETE FROM result WHERE item_id = 7"
    )
    with Reader(worked) as reader, Scratch() as scratch:
        snapshot, named = Snapshot(reader, scratch, 1), []
        take(snapshot)
        found = {result.key: result.value_json for _, result in snapshot.results(named.append)}
        assert [key for key, value in found.items() if value is None] == ["k2", "k3", "k7"]
        assert len(found) == 24
        assert [error.what.partition(" result of ")[2].partition(" (")[0] for error in named] == [
            "item 'k2' is damaged", "item 'k3' is damaged", "item 'k7' is missing"
        ]  # fmt: skip
        with pytest.raises(LedgerDamagedError, match="item 'k2'"):
            values(snapshot)
