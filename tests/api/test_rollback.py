"""``Run.rollback``: what the items of a run did is undone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import durabatch


@durabatch.undo_action("api-rmdir")
def rmdir(path):
    if os.path.isdir(path):
        os.rmdir(path)


def make(item, ctx):
    ctx.undo("api-rmdir", path=os.path.abspath(f"d{item}"))
    os.mkdir(f"d{item}")
    return item


@pytest.fixture
def run(here):
    """Give a run of two batches that has made four directories."""
    ledger = durabatch.Ledger("l.db", durability="process")
    ledger.run(make, [1, 2, 3, 4], name="n", workers=0, batch_size=2)
    assert folders() == "1234"
    return ledger["n"]


def folders():
    return "".join(sorted(path.name[1:] for path in Path().glob("d?")))


@pytest.mark.parametrize(
    ("choice", "left"),
    [({"items": "3"}, "124"), ({"items": ["1", "4"]}, "23"), ({"batch": 1}, "34"), ({"to_batch": 1}, "12"), ({"where": "key > '1'", "batch": 1}, "134"), ({}, "")],
)  # fmt: skip
def test_a_choice_means_the_same_when_it_is_listed_and_when_it_is_undone(run, choice, left):
    """By key, batch, checkpoint and expression; newest first, and a second time there is nothing to do."""
    listed = [one.key for one in run.rollback_steps(**choice)]
    assert listed == [key for key in "4321" if key not in left]
    assert folders() == "1234"
    summary = run.rollback(**choice, workers=0)
    done = summary.rolled_back
    assert (folders(), summary.exit_code, done.items, done.steps, done.unresolved_count) == (left, 0, 4 - len(left), 4 - len(left), 0)
    assert summary.status.state == ("finished" if left else "rolled_back")
    again = run.rollback(**choice, workers=0)
    assert (again.rolled_back.steps, list(run.rollback_steps(**choice))) == (0, [])


def test_it_is_done_in_a_process_of_its_own_unless_only_this_one_has_the_handler(run):
    """By default one worker imports the module; a handler without a name is rolled back here. Undone items run again."""
    seen = []

    def nameless(item, ctx):
        return seen.append(item) or make(item, ctx)

    assert run.rollback().status.state == "rolled_back"
    assert folders() == ""
    assert run.retry(undone=True, workers=0).counts.succeeded == 4
    assert run.rollback(workers=2, items=["1", "2", "3", "4"]).rolled_back.steps == 4
    run.ledger.run(nameless, [5, 6], name="here", workers=0)
    assert run.ledger["here"].rollback().rolled_back.steps == 2
    assert folders() == ""


def test_what_cannot_be_meant_is_refused(run):
    """Nothing is changed."""
    for wrong, error in (
        ({"batch": 1, "to_batch": 1}, "batch and to_batch exclude each other"),
        ({"batch": 9}, "no batch 9"),
        ({"items": ["1", "x"]}, "no item 'x'"),
        ({"wrokers": 1}, "unknown setting 'wrokers'"),
    ):
        with pytest.raises(durabatch.UsageError, match=error):
            run.rollback(**{"workers": 0, **wrong})
    with pytest.raises(durabatch.SqlError, match="no such column"):
        run.rollback(where="nope", workers=0)
    assert (folders(), run.status().counts.succeeded) == ("1234", 4)
