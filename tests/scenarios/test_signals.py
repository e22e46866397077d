"""
INT, TERM and HUP: the first asks to drain, the second interrupts. None of them loses or invents work.
"""

from __future__ import annotations

import collections
import random
import signal
import sys

import pytest

from tests.crash.processes import eventually, is_alive, make_place

KEYS = [f"k{n}" for n in range(30)]
WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def at_work(place, count=4):
    """Return a run that has begun some items."""
    # The tests may themselves run under nohup.
    child = place.run(preexec=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))
    eventually(lambda: len(place.executions()) >= count, "items at work")
    return child


def goes_on(place, keys=KEYS):
    """Check that the same command finishes the run."""
    child = place.run()
    assert child.end() == 0, child.stderr()
    assert place.results() == dict.fromkeys(keys, "succeeded")
    assert place.overlaps() == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_first_signal_drains(place, number, status):
    """Running items finish and are recorded, what was not started goes back, the run is halted; the exit status is that of the signal."""
    place.items(f"{key} 0.05" for key in KEYS)
    child = at_work(place)
    workers = child.workers()
    child.signal(number)
    assert child.end(timeout_s=10) == status
    assert not any(is_alive(*worker) for worker in workers.items())
    calls = place.executions()
    assert all(one.ended_s is not None for one in calls)
    assert place.results() == {one.key: "succeeded" for one in calls}
    standing = place.ledger["kill"].status()
    assert (standing.state, standing.exit_code, standing.counts.running, standing.counts.failed) == ("halted", status, 0, 0)
    assert signal.Signals(number).name in standing.reason
    goes_on(place)
    # Nothing was run a second time.
    assert collections.Counter(one.key for one in place.executions()) == dict.fromkeys(KEYS, 1)


def test_the_second_signal_interrupts_without_charge(place):
    """Items that run at the second signal are stopped at once; their attempts count as interrupted, and charge nothing."""
    place.items(f"{key} 60" for key in KEYS)
    child = at_work(place, count=2)
    child.signal(signal.SIGINT)
    eventually(lambda: "stopping" in child.stderr(), "word of the drain")
    child.signal(signal.SIGINT)
    assert child.end(timeout_s=10) == 130
    assert place.results() == {}
    begun = [one.key for one in place.executions()]
    attempts = {key: [one.outcome for one in place.ledger["kill"].attempts(f"{key} 60")] for key in KEYS}
    assert attempts == {key: ["interrupted"] if key in begun else [] for key in KEYS}
    standing = place.ledger["kill"].status()
    assert (standing.state, standing.counts.pending, standing.attempt_count) == ("halted", len(KEYS), 2)
    assert {one.attempts for one in place.ledger["kill"].results()} == {0}


def test_a_hangup_that_was_ignored_stays_ignored(place):
    """Under nohup the run outlives its terminal."""
    place.items(f"{key} 0.05" for key in KEYS)
    child = place.start(
        ["nohup", sys.executable, "-m", "durabatch", "run", "jobs.py:work", "items.txt", "--ledger", "l.db", "--name", "kill", "-j", "2"]
    )
    eventually(lambda: len(place.executions()) >= 4, "items at work")
    child.signal(signal.SIGHUP)
    assert child.end() == 0, child.stderr()
    assert place.results() == dict.fromkeys(KEYS, "succeeded")
    assert collections.Counter(one.key for one in place.executions()) == dict.fromkeys(KEYS, 1)


@pytest.mark.parametrize("shard", [1, 2])
def test_a_storm_of_signals_leaves_a_sound_ledger_each_time(tmp_path, seed, long, shard):
    """One to three signals of any kind at random moments: the status is the first one's, the ledger is sound, what was told is there, and the run ends."""
    rng = random.Random(seed + shard)
    wanted, sent, number = 80 if long else 8, 0, 0
    while sent < wanted:
        number += 1
        place = make_place(tmp_path, f"place{number}")
        keys = [f"k{n}" for n in range(200)]
        place.items(f"{key} 0.005" for key in keys)
        status = None
        while status != 0:
            noted = place.noted()
            child = place.map()
            eventually(lambda noted=noted, place=place, child=child: place.has_begun(child, noted), "some work")
            child.read_for(rng.uniform(0.0, 0.25))
            kinds = rng.choices(WATCHED, k=rng.choice((1, 1, 2, 3)))
            for kind in kinds:
                if child.process.poll() is None and sent < wanted:
                    child.signal(kind)
                    sent += 1
                    child.read_for(rng.uniform(0.0, 0.03))
            status = child.end()
            # Negative: a signal that came when the run had ended and the script not yet.
            assert status in {0, *(128 + kind for kind in kinds), *(-kind for kind in kinds)}, child.stderr()
            assert {line.split()[0] for line in child.lines()} <= set(place.results())
        assert place.results() == dict.fromkeys(keys, "succeeded")
        assert place.overlaps() == []
    assert sent >= wanted
