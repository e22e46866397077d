"""
Several coordinators want one ledger: one gets it, the others are told who has it.
"""

from __future__ import annotations

import os
import signal

from tests.crash.processes import eventually, is_alive


def test_a_second_coordinator_is_refused_with_pid_and_run(place):
    """While one coordinator works, another ends at once with status 4 and says who has the ledger and for which run; the first goes on."""
    place.items(f"k{n} 0 gated" for n in range(60))
    first = place.run()
    eventually(place.noted, "the first at work")
    second = place.run()
    assert second.end(timeout_s=10) == 4
    assert f"in use by pid {first.pid}" in second.stderr()
    assert "run kill" in second.stderr()
    place.open_gate()
    assert first.end() == 0, first.stderr()
    assert len(place.results()) == 60


def test_after_kill_9_the_next_coordinator_starts_at_once(place):
    """The death of a coordinator frees the ledger without any waiting for a clock."""
    place.items(f"k{n} 0.01" for n in range(60))
    first = place.run()
    eventually(place.executions, "the first at work")
    first.signal(signal.SIGKILL)
    first.process.wait()
    assert place.ledger["kill"].status().state == "interrupted"
    second = place.run()
    assert second.end(timeout_s=10) == 0, second.stderr()
    assert place.results() == {f"k{n}": "succeeded" for n in range(60)}
    assert place.overlaps() == []


def test_of_ten_coordinators_started_at_once_one_runs(place):
    """However many start in the same moment: one makes the ledger and runs all items, the others end with status 4."""
    place.items(f"k{n} 0 gated" for n in range(100))
    children = [place.run() for _ in range(10)]
    left = eventually(lambda: [one for one in children if one.process.poll() is None][1:] == [] and children, "the end of nine")
    place.open_gate()
    statuses = sorted(child.end() for child in left)
    assert statuses == [0] + [4] * 9, [child.stderr() for child in children]
    assert sorted(one.key for one in place.executions()) == sorted(f"k{n}" for n in range(100))
    assert set(place.results().values()) == {"succeeded"}


def test_a_coordinator_whose_lock_file_was_deleted_stops_for_the_next_one(place):
    """When somebody deletes the lock file, a second coordinator can take over: the first notices at its next commit, records nothing more, and ends with 4."""
    keys = [f"k{n}" for n in range(150)]
    place.items(f"{key} 0.03" for key in keys)
    first = place.run()
    eventually(lambda: len(place.executions()) > 4, "the first at work")
    old = first.workers()
    os.unlink(f"{place.ledger_path}.lock")
    second = place.run()
    assert first.end(timeout_s=10) == 4
    assert "taken over" in first.stderr() or "taken it over" in first.stderr()
    assert not any(is_alive(*worker) for worker in old.items())
    assert second.end() == 0, second.stderr()
    assert place.results() == dict.fromkeys(keys, "succeeded")
    assert place.overlaps() == []


def test_a_directory_in_which_everybody_may_replace_files_is_refused(place):
    """Where other users could swap the ledger, nothing is started; with the sticky bit they cannot."""
    place.items(["k 0"])
    os.chmod(place.folder, 0o777)
    refused = place.run()
    assert refused.end() == 4
    assert "chmod o-w" in refused.stderr()
    assert not place.ledger_path.exists()
    os.chmod(place.folder, 0o1777)
    assert place.run().end() == 0
