"""
Runs share a ledger and are interrupted in the middle of their intake: ids of one run are then no longer consecutive.
"""

from __future__ import annotations

from durabatch.errors import LedgerMissingError, NotFoundError
from durabatch.ledger.reader import Reader
from tests.crash.processes import eventually

#: Many pages of input.
MANY = 25_000


def taken_in(place, name):
    """Return how many items of the run are in the ledger, and whether that is all of them; nothing while there is no run."""
    try:
        status = place.ledger[name].status()
    except (LedgerMissingError, NotFoundError):
        return 0, False
    return status.counts.total, status.intake_complete


def killed_in_intake(place, items):
    """Start a run and kill everything while its intake is going on."""
    child = place.map(items, name="many")
    eventually(lambda: taken_in(place, "many")[0], "first items")
    child.destroy()
    total, complete = taken_in(place, "many")
    assert (0 < total < MANY, complete) == (True, False)


def check_many(place, reported):
    """Make sure that the big run has every item once, in input order, and knows what was reported."""
    assert place.ledger.verify() == []
    results = [(one.key, one.state) for one in place.ledger["many"].results()]
    assert results == [(f"m{n}", "succeeded") for n in range(MANY)]
    assert len(reported) == len(set(reported)) == MANY


def test_another_run_between_the_halves_of_an_intake_disturbs_neither(place):
    """Run A is killed in its intake, run B is done in the same ledger, A goes on: each has all its items once, in input order."""
    items = place.items((f"m{n}" for n in range(MANY)), "many.txt")
    killed_in_intake(place, items)
    place.items((f"k{n}" for n in range(500)), "few.txt")
    between = place.map("few.txt", name="few")
    assert between.end() == 0, between.stderr()
    again = place.map(items, name="many")
    assert again.end() == 0, again.stderr()
    check_many(place, again.lines())
    assert [one.key for one in place.ledger["few"].results()] == [f"k{n}" for n in range(500)]
    with Reader(place.ledger_path) as reader:
        spans = reader.raw.execute("SELECT run.name FROM span JOIN run USING (run_id) ORDER BY first_item_id").fetchall()
    assert [name for (name,) in spans] == ["many", "few", "many"]
