"""
Undoing where it meets something else: output that was written, runs that are open, the cache, a full disk, ends in between. All in this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

import pytest

import durabatch
from durabatch.api.ledger import Ledger
from durabatch.engine import reuse
from durabatch.engine.active import ActiveRun
from durabatch.engine.recover import recover
from durabatch.engine.reuse import Cache
from durabatch.errors import LedgerFullError
from durabatch.flow.batching import FixedBatches
from durabatch.flow.retrying import RetryPolicy
from durabatch.ledger.opening import open_ledger
from durabatch.runner.handling import Handling
from durabatch.runner.session import Session
from durabatch.runner.undoing import Undoing
from tests import factory

#: Calls of the action, by the names that it was given.
undone: list[str] = []


@durabatch.undo_action("corner", verify=lambda name: not Path(name).exists())
def corner(name):
    undone.append(name)
    os.unlink(name)


@durabatch.undo_action("corner-for-good", irreversible=True)
def for_good():
    raise AssertionError("nobody calls this")


def make(item, ctx):
    """Make a file; ``bad`` ones raise then."""
    ctx.undo("corner", name=os.path.abspath(f"made-{item}"))
    Path(f"made-{item}").touch()
    if str(item).startswith("bad"):
        raise ValueError(item)
    return item


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    """Stand in a directory of its own, and give a ledger there."""
    monkeypatch.chdir(tmp_path)
    undone.clear()
    return Ledger("l.db", durability="process")


def made() -> str:
    """Return which items have an effect."""
    return "".join(sorted(path.name[5:] for path in Path().glob("made-*")))


def written(path="out.jsonl") -> list[str]:
    """Return the keys of the results in an output file."""
    return [json.loads(line)["key"] for line in Path(path).read_text().splitlines()]


def test_the_output_loses_what_is_undone(ledger):
    """A file that all batches share holds each result once, and none that was taken back, whether step by step or all at once."""
    ledger.run(make, list("abcdef"), name="n", workers=0, batch_size=2, output="out.jsonl")
    assert sorted(written()) == list("abcdef")
    ledger["n"].rollback(items=["b", "e"], workers=0)
    assert (sorted(written()), made()) == (list("acdf"), "acdf")
    ledger["n"].rollback(workers=0)
    assert (written(), made()) == ([], "")


def test_the_output_never_holds_what_an_atomic_batch_takes_back(ledger):
    """A batch that broke with its last item was written to nobody before it was undone; nor was anybody called about it."""
    told = []
    ledger.run(
        make, ["a", "b", "bad", "c", "d", "e"], name="n", workers=0, batch_size=3, atomic="batch", output="out.jsonl",
        on_batch=lambda one: told.append((one.number, [row.state for row in one.results])),
    )  # fmt: skip
    assert (sorted(written()), made()) == (list("cde"), "cde")
    assert sorted(told) == [(1, ["undone", "undone", "failed"]), (2, ["succeeded"] * 3)]


def test_an_open_run_is_rolled_back_and_takes_items_again(ledger):
    """What undoes does not wait for items that may come; the run is open still."""
    ledger.run(make, list("abc"), name="n", workers=0, open=True, idle_exit_s=0.001)
    assert ledger["n"].rollback(workers=0).status.state == "rolled_back"
    assert made() == ""
    ledger.submit("n", ["d"])
    assert ledger.run(make, None, name="n", workers=0, open=True, idle_exit_s=0.001).status.counts.succeeded == 1
    assert made() == "d"


@pytest.mark.parametrize("tolerate", [None, "0"])
def test_a_run_that_is_all_or_nothing_ends_alike_when_it_is_killed_before_it_is_undone(ledger, monkeypatch, tolerate):
    """Whoever goes on with it finds on disk that everything is to be undone, and it is rolled back then."""
    with monkeypatch.context() as patch:
        patch.setattr(Session, "undo", lambda _self, _summary: sys.exit(9))
        with pytest.raises(SystemExit):
            ledger.run(make, ["a", "b", "bad"], name="n", workers=0, atomic="run", tolerate=tolerate, batch_size=1)
    assert made() == "ab"
    summary = ledger["n"].resume(handler=make, workers=0)
    assert (summary.status.state, summary.exit_code, made(), sorted(Path(name).name for name in undone)) == (
        "rolled_back", 1, "", ["made-a", "made-b", "made-bad"],
    )  # fmt: skip


def test_a_full_disk_makes_a_promise_wait_and_counts_it_once(ledger, monkeypatch):
    """With ``workers=0``, too, no item fails for it."""
    real, left = ActiveRun.write_tally, [2]

    def full(self, connection):
        if self.tally.undo and left[0]:
            left[0] -= 1
            raise LedgerFullError("l.db", "the disk is full", "Make room.")
        real(self, connection)

    monkeypatch.setattr(ActiveRun, "write_tally", full)
    assert ledger.run(make, list("ab"), name="n", workers=0).status.counts.succeeded == 2
    assert left == [0]
    assert list(ledger.verify()) == []


def atomic(connection, run, cache=None) -> Handling:
    """Return the phase of a run with batches of three."""
    undoing = Undoing(connection, run, RetryPolicy())
    return Handling(connection, run, RetryPolicy(), FixedBatches(3), undoing, is_atomic=True, cache=cache)


def test_an_answer_of_the_cache_does_not_stay_in_a_broken_batch(ledger, monkeypatch):
    """Items that join it afterwards, and end at once, are undone like the others."""
    monkeypatch.setattr(reuse, "WRITE_S", 0.0)
    with contextlib.closing(open_ledger(Path("l.db"), create=True)) as connection:
        for name, keys in (("first", ["x"]), ("second", ["bad"])):
            run = factory.new_run(connection, name)
            factory.add(connection, run, keys, payload=lambda key: '"bad"' if key == "bad" else '"same"')
            phase = atomic(connection, run, Cache(connection, "one", ttl_s=None, size_bytes=1 << 30))
            with factory.tick(connection, run):
                phase.mark()
                phase.finish(factory.answer(phase.claim(1), failing=["bad"]))
                phase.end()
        factory.add(connection, run, ["y", "z"], complete=True, payload=lambda _: '"same"')
        with factory.tick(connection, run):
            phase.mark()
            assert len(phase.answer().answered) == 2
        assert (run.view().undone, run.view().succeeded) == (2, 0)


def test_a_batch_breaks_also_while_nobody_is_at_work(ledger):
    """An item that had an effect for good when its coordinator died has failed; what stands beside it is undone when the run goes on."""
    with contextlib.closing(open_ledger(Path("l.db"), create=True)) as connection:
        run = factory.run_of(connection, 3)
        taken = factory.take(connection, run, 3, size=3)
        factory.promise(connection, run, taken, "k1")
        factory.promise(connection, run, taken, "k3", is_irreversible=True)
        factory.give_back(connection, run, factory.answer(taken, only=["k1", "k2"]))
        recover(connection, run.run_id, [], now_us=factory.NOW)
        run = factory.actives.load(connection, run.run_id)
        assert (run.view().failed, run.view().succeeded) == (1, 2)
        atomic(connection, run).begin()
        assert (run.view().undone, run.wanted_count) == (1, 1)
