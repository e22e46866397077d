"""
Workers are killed at random moments, again and again, while functions run one at a time or many coroutines at once.

Nothing is lost, and nobody pays: the item that a worker ran when it was killed is a suspect, not a culprit, and is acquitted when it succeeds.
5 kills, 50 with ``--long``.
"""

from __future__ import annotations

import collections
import os
import random
import signal

import pytest

from tests.crash.processes import eventually

#: Coroutines that note what functions note in ``JOBS`` of processes.py, and functions in threads.
MORE_JOBS = """
import asyncio
from jobs import note


async def awork(item):
    key, seconds, *_ = item.split()
    note("start", key)
    await asyncio.sleep(float(seconds))
    note("end", key)
    return {"key": key}
"""


class Watched:
    """A run whose workers are killed one after the other."""

    def __init__(self, place, child, rng) -> None:
        self.place, self.child, self.rng = place, child, rng
        self.is_over = lambda: child.process.poll() is not None

    def victims(self) -> set[str]:
        """Wait until somebody is at work, kill a worker that is, and return the items that it may have been at; nothing when the run is over."""
        before = len(self.place.executions())
        eventually(lambda: len(self.place.executions()) > before or self.is_over(), "more work")
        self.child.read_for(self.rng.uniform(0.0, 0.05))
        workers = self.child.workers()
        at_work = [one for one in self.place.executions() if one.ended_s is None and one.pid in workers]
        if not at_work:
            return set()
        victim = self.rng.choice(sorted({one.pid for one in at_work}))
        os.kill(victim, signal.SIGKILL)
        # What it noted in the meantime counts too: it is dead when its end was seen.
        eventually(lambda: victim not in self.child.workers() or self.is_over(), "the end of the victim")
        return {one.key for one in self.place.executions() if one.ended_s is None and one.pid == victim}

    def have_succeeded(self, keys) -> bool:
        """Tell whether items have ended well."""
        results = self.place.results()
        return all(results.get(key) == "succeeded" for key in keys)


def charges(place) -> dict[str, tuple[str, int, frozenset[str]]]:
    """Return state, charged attempts and outcomes of each item."""
    run = place.ledger["kill"]
    return {
        one.key.split()[0]: (one.state, one.attempts, frozenset(each.outcome for each in run.attempts(one.key))) for one in run.results()
    }


@pytest.mark.parametrize(
    ("handler", "concurrency", "item_s"),
    [("jobs.py:work", 1, 0.03), ("jobs.py:work", 3, 0.05), ("more.py:awork", 20, 0.2)],
    ids=["one", "threads", "async"],
)
def test_workers_killed_at_random_cost_nobody_anything(place, seed, scaled, long, not_run, handler, concurrency, item_s):
    """Each time a worker is killed, what it ran is run again, apart, and succeeds: no item lost, failed, put aside or charged twice."""
    if concurrency == 3 and not long:
        not_run("threads are between the other two; --long kills them too")
    (place.folder / "more.py").write_text(MORE_JOBS)
    kills = scaled(50)
    keys = [f"k{number}" for number in range(30 * kills if concurrency == 1 else 50 * kills)]
    place.items(f"{key} {item_s}" for key in keys)
    child = place.durabatch(
        "run",
        handler,
        "items.txt",
        "--ledger",
        "l.db",
        "--name",
        "kill",
        "--progress",
        "none",
        "-j",
        "2",
        "--concurrency",
        str(concurrency),
    )
    watched, killed, hit = Watched(place, child, random.Random(seed)), 0, collections.Counter()
    while killed < kills and not watched.is_over():
        victims = watched.victims()
        if victims:
            killed += 1
            hit.update(victims)
            # An item that is hit three times in a row, alone, would rightly be put aside.
            eventually(lambda victims=victims: watched.have_succeeded(victims) or watched.is_over(), f"the success of {victims}")
    assert child.end(60) == 0, child.stderr()
    assert killed >= (kills if long else 3)
    found = charges(place)
    assert set(found) == set(keys)
    assert {key: one[:2] for key, one in found.items() if one[:2] != ("succeeded", 1)} == {}
    # Those that were not hit never noticed, and of those that were it is on record.
    assert {key for key, (_, _, outcomes) in found.items() if outcomes != {"succeeded"}} <= set(hit)
    crashed = {key for key, (_, _, outcomes) in found.items() if "crashed" in outcomes}
    assert len(crashed) >= kills / 2
    assert place.overlaps() == []


def test_a_storm_of_kills_cannot_be_outrun(place, seed, scaled, long, not_run):
    """Workers killed as fast as they come to work, with a great budget of deaths: every item ends well all the same, charged once."""
    if not long:
        not_run("more of the same kills, faster; --long does it")
    rng, keys = random.Random(seed), [f"k{number}" for number in range(30 * scaled(50))]
    place.items(f"{key} 0.005" for key in keys)
    child = place.run("items.txt", "--max-deaths", "1000")
    killed, wanted = 0, 2 * scaled(50)
    while killed < wanted and child.process.poll() is None:
        # One that has not begun any item would count as one that cannot start.
        at_work = {one.pid for one in place.executions()} & set(child.workers())
        if at_work:
            os.kill(rng.choice(sorted(at_work)), signal.SIGKILL)
            killed += 1
        child.read_for(rng.uniform(0.0, 0.2))
    assert child.end(60) == 0, child.stderr()
    assert killed == wanted
    assert {key: one[:2] for key, one in charges(place).items()} == dict.fromkeys(keys, ("succeeded", 1))
    assert place.overlaps() == []


def test_a_guilty_item_is_not_acquitted(place):
    """Sabotage: the same checks with an item that does kill its worker find it."""
    place.items([*(f"k{number} 0" for number in range(50)), "bad 0 kills", *(f"l{number} 0" for number in range(50))])
    child = place.run()
    assert child.end() == 1, child.stderr()
    found = charges(place)
    assert {key: one for key, one in found.items() if one[:2] != ("succeeded", 1)} == {"bad": ("quarantined", 1, frozenset({"crashed"}))}
