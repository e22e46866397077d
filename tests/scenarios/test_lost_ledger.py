"""
Somebody deletes, replaces or cuts the ledger under a running coordinator. SQLite would go on and say that all is well.
"""

from __future__ import annotations

import os
import shutil

import pytest

from durabatch.api import Ledger
from durabatch.errors import LedgerLostError
from tests.crash.processes import children, eventually, is_alive


def delete(place):
    place.ledger_path.unlink()


def move_away(place):
    place.ledger_path.rename(place.folder / "moved.db")


def replace(place):
    shutil.copy(place.ledger_path, place.folder / "copy.db")
    os.replace(place.folder / "copy.db", place.ledger_path)


def cut(place):
    os.truncate(place.ledger_path, 4096)


def cut_to_nothing(place):
    os.truncate(place.ledger_path, 0)


def delete_log(place):
    os.unlink(f"{place.ledger_path}-wal")


def cut_log(place):
    os.truncate(f"{place.ledger_path}-wal", 0)


def link(place):
    os.link(place.ledger_path, place.folder / "second.db")


@pytest.mark.parametrize("harm", [delete, move_away, replace, cut, cut_to_nothing, delete_log, cut_log, link], ids=lambda harm: harm.__name__)
def test_a_lost_ledger_is_noticed_at_the_next_commit(place, harm):
    """The run ends within a second or two with status 4 and says what happened; nothing is reported as done any more, and no worker is left."""
    place.items(f"k{n} 0.02" for n in range(2000))
    child = place.map()
    eventually(lambda: child.read(0.01) and child.lines(), "first results")
    workers = child.workers()
    harm(place)
    assert child.end(timeout_s=10) == 4
    assert any(word in child.stderr() for word in ("disappeared", "replaced", "cut", "hard link", "damaged")), child.stderr()
    assert not any(is_alive(*worker) for worker in workers.items())
    assert len(child.lines()) < 2000


def test_a_ledger_that_got_a_second_name_goes_on_without_it(place):
    """After the cause is removed, the same command finishes the run: nothing was lost by the stop."""
    keys = [f"k{n}" for n in range(150)]
    place.items(f"{key} 0.01" for key in keys)
    child = place.map()
    eventually(lambda: child.read(0.01) and child.lines(), "first results")
    link(place)
    assert child.end(timeout_s=10) == 4
    (place.folder / "second.db").unlink()
    assert {line.split()[0] for line in child.lines()} <= set(place.results())
    assert place.map().end() == 0
    assert place.results() == dict.fromkeys(keys, "succeeded")


def test_a_program_that_lives_on_keeps_no_worker_of_a_lost_ledger(place, monkeypatch):
    """A caller that catches the error has no worker left of the run, and can use another ledger."""
    monkeypatch.setenv("NOTES", str(place.folder / "notes"))
    handler, before = f"{place.folder}/jobs.py:work", set(children(os.getpid()))
    with pytest.raises(LedgerLostError):
        place.ledger.run(handler, (f"k{n} 0.01" for n in range(1000)), workers=2, on_progress=lambda _: place.ledger_path.unlink(missing_ok=True))
    assert set(children(os.getpid())) <= before
    assert Ledger(place.folder / "next.db").run(handler, ["k 0"], workers=1).exit_code == 0
