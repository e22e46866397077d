"""
Processes die: all of them, the coordinator, or workers, at random moments of real runs, with an observer outside who believes nothing.

The observer keeps what was reported, and the handlers write down every beat of their work. A storm is 60 kills, 1,000 with ``--long``.
"""

from __future__ import annotations

import collections
import os
import random
import signal

import pytest

from durabatch.api import Ledger
from durabatch.clock import now_us
from durabatch.engine.active import load
from durabatch.engine.claim import claim
from durabatch.engine.finish import Returned, finish
from durabatch.engine.release import release
from durabatch.engine.start import create_run, open_session
from durabatch.engine.submit import submit
from durabatch.errors import LedgerError
from durabatch.flow.batching import FixedBatches
from durabatch.flow.retrying import RetryPolicy
from durabatch.ledger.opening import open_ledger
from tests.crash.processes import eventually, is_alive, make_place

WORKERS = 2
#: Seconds that a finished result waits in its worker at most.
FLUSH_S = 0.05


# -- everybody dies -----------------------------------------------------------------------------------------------------------


def one_life(place, rng) -> tuple[bool, int]:
    """
    Start the run, kill everything at a random moment, and compare what was reported with what is recorded.

    Returns:
        Whether the run came to its end before, and how many items were run though they had run before.
    """
    before, noted, done = collections.Counter(one.key for one in place.executions()), place.noted(), set(place.results())
    # A worker that dies a moment before its coordinator costs its item an attempt.
    child = place.map(batch_size=rng.choice((7, 100)), max_attempts=100)
    # Most kills hit the work, the others the start, the recovery or the end as well.
    if rng.random() < 0.7:
        eventually(lambda: place.has_begun(child, noted), "some work")
        child.read_for(rng.uniform(0.0, 0.15))
    else:
        child.read_for(rng.uniform(0.0, 0.5))
    ended = child.process.poll() is not None
    child.destroy(rng)
    if ended:
        assert child.process.returncode == 0, child.stderr()
    reported = [line.split()[0] for line in child.lines()]
    assert len(reported) == len(set(reported))
    recorded = place.results()
    assert done | set(reported) <= set(recorded)
    after = collections.Counter(one.key for one in place.executions())
    assert set(after - before) & done == set()
    return ended, sum(min(count - before[key], count - 1) for key, count in after.items() if count > 1)


@pytest.mark.parametrize("shard", [1, 2])
def test_kill_9_of_everything_at_random_moments_loses_and_doubles_nothing(tmp_path, seed, long, shard):
    """Whenever the whole tree of processes is killed: what was reported is recorded and not run again, no item ends twice or overlaps itself, little is repeated."""
    rng, item_s, wanted = random.Random(seed + shard), 0.002, 500 if long else 30
    kills, repeats, completed, number = 0, 0, 0, 0
    # On a slow machine one place can take all the kills: a second one is run to its end all the same.
    while kills < wanted or completed < 2:
        number += 1
        place = make_place(tmp_path, f"place{number}")
        keys = [f"k{n}" for n in range(rng.choice((100, 300, 500)))]
        place.items(f"{key} {item_s}" for key in keys)
        ended = False
        while not ended:
            ended, again = one_life(place, rng)
            kills += not ended
            repeats += again
            if kills >= wanted and not ended:
                child = place.map()
                assert child.end() == 0, child.stderr()
                ended = True
        completed += 1
        assert place.results() == dict.fromkeys(keys, "succeeded")
        assert {one.key for one in place.executions()} == set(keys)
        assert place.overlaps() == []
    # Each worker may lose the item it was at and what it finished in the last moments.
    assert repeats <= kills * WORKERS * (1 + FLUSH_S / item_s)


# -- only the coordinator dies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["well", "deaf"])
def test_workers_are_gone_two_seconds_after_their_coordinator(place, how):
    """When the coordinator alone is killed, its workers end by themselves, also one that is in C code and hears nothing."""
    place.items([f"k{n} 30 {how}" for n in range(4)])
    child = place.map()
    eventually(lambda: len(place.executions()) >= WORKERS, "both workers at work")
    workers = child.workers()
    child.signal(signal.SIGKILL)
    assert len(workers) == WORKERS
    eventually(lambda: not any(is_alive(*worker) for worker in workers.items()), "end of the workers", within_s=2.5)
    child.end()


def test_a_resume_right_after_the_coordinator_died_runs_no_item_twice_at_once(place, seed, scaled):
    """A new coordinator that starts while old workers still live waits for them or ends them before it hands anything out."""
    rng = random.Random(seed)
    keys = [f"k{n}" for n in range(40)]
    place.items(f"{key} 0.04" for key in keys)
    for _ in range(scaled(40)):
        child = place.map()
        noted = place.noted()
        eventually(lambda noted=noted, child=child: place.has_begun(child, noted), "some work")
        child.read_for(rng.uniform(0, 0.1))
        child.signal(signal.SIGKILL)
        child.process.wait()
        assert {line.split()[0] for line in child.lines()} <= set(place.results())
    child = place.map()
    assert child.end() == 0, child.stderr()
    assert place.results() == dict.fromkeys(keys, "succeeded")
    assert place.overlaps() == []


def test_a_stopped_worker_of_a_dead_coordinator_is_killed_before_anything_runs(place):
    """A worker that was stopped with SIGSTOP cannot notice that its coordinator died: the resume kills it first, and says it was interrupted."""
    place.items(["slow 1.5", *(f"k{n} 0.01" for n in range(20))])
    child = place.map(workers=1)
    eventually(place.executions, "the first item at work")
    ((worker, ticks),) = child.workers().items()
    os.kill(worker, signal.SIGSTOP)
    child.signal(signal.SIGKILL)
    child.process.wait()
    assert is_alive(worker, ticks)
    again = place.map(workers=1)
    assert again.end() == 0, again.stderr()
    assert not is_alive(worker, ticks)
    calls = [one for one in place.executions() if one.key == "slow"]
    assert [one.pid == worker for one in calls] == [True, False]
    assert place.overlaps() == []
    assert [one.outcome for one in place.ledger["kill"].attempts("slow 1.5")] == ["interrupted", "succeeded"]


# -- only workers die ---------------------------------------------------------------------------------------------------------


def test_a_killed_worker_costs_one_attempt_of_the_item_it_was_at(place, seed, scaled):
    """Workers killed at random are replaced and the run ends; an item whose worker was killed has a crashed attempt with signal 9, others one success."""
    rng = random.Random(seed)
    keys = [f"k{n}" for n in range(scaled(2000))]
    place.items(f"{key} 0.01" for key in keys)
    # An item that is tried again comes first, so the same one is hit many times.
    child = place.map(max_deaths=1000)
    kills = 0
    while kills < scaled(100):
        noted = place.noted()
        eventually(lambda noted=noted: place.has_begun(child, noted), "more work")
        if child.process.poll() is not None:
            break
        at_work = {one.pid for one in place.executions()[-4:]}
        victims = sorted(pid for pid in child.workers() if pid in at_work)
        if victims:
            os.kill(rng.choice(victims), signal.SIGKILL)
            kills += 1
        child.read_for(rng.uniform(0.0, 0.1))
    assert child.end() == 0, child.stderr()
    assert place.results() == dict.fromkeys(keys, "succeeded")
    assert sorted(line.split()[0] for line in child.lines()) == sorted(keys)
    attempts = {one.key: place.ledger["kill"].attempts(one.key) for one in place.ledger["kill"].results()}
    crashed = [one for tries in attempts.values() for one in tries[:-1]]
    assert {one.outcome for one in crashed} <= {"crashed"}
    assert all("signal 9" in one.error for one in crashed)
    assert kills / 2 <= len(crashed) <= kills
    assert {tries[-1].outcome for tries in attempts.values()} == {"succeeded"}
    assert place.overlaps() == []


@pytest.mark.parametrize(
    ("how", "error", "state"),
    [
        ("exits", "ended with status 0", "quarantined"),
        ("segfaults", "signal 11", "quarantined"),
        ("kills", "signal 9", "quarantined"),
        ("hoards", "MemoryError", "failed"),
        ("raises", "as told", "failed"),
    ],
)
def test_a_bad_item_harms_no_other(place, how, error, state):
    """An item that ends its worker by any means fails, or is quarantined, with the reason; all its neighbours, in the same dispatches, succeed."""
    keys = [f"k{n}" for n in range(200)]
    place.items([*(f"{key} 0" for key in keys[:100]), f"bad 0 {how}", *(f"{key} 0" for key in keys[100:])])
    child = place.map()
    assert child.end() == 0, child.stderr()
    assert place.results() == {**dict.fromkeys(keys, "succeeded"), "bad": state}
    (group,) = place.ledger["kill"].errors()
    assert error in f"{group.error_type}: {group.message}"
    again = [key for key, count in collections.Counter(one.key for one in place.executions()).items() if count > 1]
    assert len(again) <= 100


# -- late messages ------------------------------------------------------------------------------------------------------------


def faults_of_late_messages(folder, sabotage=lambda ledger: None):
    """Let results of a dispatch come late and twice, and return what that changed that it must not change."""
    ledger = open_ledger(folder / "late.db", create=True)
    sabotage(ledger)
    try:
        open_session(ledger, {}, now_us=now_us())
        with ledger.transaction():
            run_id = create_run(ledger, series="late", handler={}, source={}, fingerprint=None, settings={}, now_us=now_us())
            active = load(ledger, run_id)
            submit(ledger, active, [(f"k{n}", "1", n) for n in range(1, 11)], position=None, complete=True)
            active.write_tally(ledger)
        recorded = []
        for dispatch_id, sent in enumerate((False, True, True), 1):
            with ledger.transaction():
                made = claim(ledger, active, FixedBatches(100), limit=10, max_bytes=1 << 20, now_us=now_us()) if dispatch_id < 3 else None
                if made is not None and not sent:
                    release(ledger, active, made.dispatch_id, list(range(1, 11)))
                active.write_tally(ledger)
            for sender in (1, 2) if sent else ():
                rows = [(item_id, 1, 1, 1, 1, f'"by {sender}"') for item_id in range(1, 11)]
                with ledger.transaction():
                    returned = Returned(sender, inline=rows, batch_of=dict.fromkeys(range(1, 11), 1))
                    recorded.append(finish(ledger, active, returned, policy=RetryPolicy(), now_us=now_us()).recorded)
                    active.write_tally(ledger)
        values = {row[0] for row in ledger.raw.execute("SELECT value FROM result")}
    except LedgerError as error:
        return [str(error)]
    finally:
        ledger.close()
    problems = [] if recorded == [0, 10, 0, 0] else [f"recorded {recorded}"]
    return problems + [str(one) for one in Ledger(folder / "late.db").verify()] + ([] if values == {'"by 2"'} else [f"values {values}"])


def test_a_late_or_repeated_message_changes_nothing(tmp_path):
    """Results of a dispatch that was taken back, and results that come twice, are dropped whole."""
    assert faults_of_late_messages(tmp_path) == []


def test_a_missing_fence_is_found(tmp_path):
    """Sabotage: when the dispatch of an item is not looked at, the late message is recorded, and the check above reports it."""

    def open_the_fence(ledger):
        ledger.sql = {name: text.replace("dispatch_id = ?3", "?3 = ?3").replace("AND dispatch_id = ?2", "AND ?2 = ?2") for name, text in ledger.sql.items()}

    assert faults_of_late_messages(tmp_path, open_the_fence)


def test_a_missing_overlap_check_is_found(place):
    """Sabotage: two coordinators that do not know of each other, on two ledgers, run the same items at once, and the check of overlaps reports it."""
    place.items(f"k{n} 0 gated" for n in range(4))
    both = [place.map(workers=1, ledger=name) for name in ("one.db", "other.db")]
    eventually(lambda: len({one.pid for one in place.executions()}) == 2, "both at work")
    place.open_gate()
    assert [child.end() for child in both] == [0, 0]
    assert place.overlaps()
