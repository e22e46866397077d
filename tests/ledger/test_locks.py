from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from durabatch import errors
from durabatch.ledger import locks
from durabatch.ledger.locks import Ownership, TurnLock, WorkersLock, holder_of
from durabatch.ledger.opening import open_ledger
from durabatch.ledger.paths import ledger_files

OWNER = """
import os, sys
from durabatch.ledger.locks import Ownership, WorkersLock
from durabatch.ledger.paths import ledger_files
files = ledger_files(sys.argv[1])
held = Ownership(files, {"pid": os.getpid(), "host": "h", "since": "12:01", "run": "nightly"})
print("held", flush=True)
sys.stdin.read()
"""
WRITER = """
import sys
from durabatch.ledger import event
from durabatch.ledger.opening import open_ledger
ledger = open_ledger(sys.argv[1], durability="process")
print("writing", flush=True)
for number in range(1_000_000):
    with ledger.transaction():
        event.record(ledger, "storm", run_id=None, now_us=number)
"""


@pytest.fixture
def start(path):
    """Give a function that starts a script with the ledger as its argument and waits for its first line."""
    with contextlib.ExitStack() as stack:

        def started(script):
            child = stack.enter_context(subprocess.Popen([sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            stack.callback(child.kill)
            child.stdout.readline()
            return child

        yield started


@pytest.fixture
def quick(monkeypatch):
    """Let a refusal come without looking ten times."""
    monkeypatch.setattr(locks, "LOOKS", 1)


def test_a_second_coordinator_is_refused_with_the_pid_of_the_first(path, start):
    """Exit code 4 within a second, naming who holds the ledger, since when and for which run."""
    child = start(OWNER)
    began = time.monotonic()
    with pytest.raises(errors.LedgerInUseError, match=rf"in use by pid {child.pid} \(h, run nightly, since 12:01\)") as caught:
        Ownership(ledger_files(path), {})
    assert time.monotonic() - began < 1
    assert caught.value.exit_code == 4
    assert holder_of(ledger_files(path))["run"] == "nightly"


def test_the_lock_is_free_after_kill_9(path, start):
    """No clock and no clean-up: the kernel frees it with the process."""
    child = start(OWNER)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert holder_of(ledger_files(path)) is None
    Ownership(ledger_files(path), {}).release()


def test_the_lock_is_free_after_release(path, quick):
    """The file stays for the next one; who held it is forgotten."""
    files = ledger_files(path)
    first = Ownership(files, {"pid": 1})
    with pytest.raises(errors.LedgerInUseError, match="pid 1"):
        Ownership(files, {"pid": 2})
    first.release()
    first.release()
    assert os.path.getsize(files.owner) == 0
    second = Ownership(files, {"pid": 2})
    assert holder_of(files) == {"pid": 2}
    second.release()


def test_asking_who_holds_a_ledger_never_refuses_a_coordinator(path, monkeypatch):
    """`status` takes the lock for microseconds; a coordinator that meets it looks again."""
    import fcntl

    files = ledger_files(path)
    looking = locks.open_side_file(files.owner)
    fcntl.flock(looking, fcntl.LOCK_SH)
    monkeypatch.setattr(locks.time, "sleep", lambda _: fcntl.flock(looking, fcntl.LOCK_UN))
    Ownership(files, {}).release()
    os.close(looking)
    assert holder_of(files) is None


def test_a_lock_file_swapped_between_open_and_lock_is_not_trusted(path, monkeypatch):
    """The lock must be on the file that has the name, or two would hold it."""
    files = ledger_files(path)
    answers = iter([False, True])
    monkeypatch.setattr(locks, "is_current", lambda descriptor, name: next(answers))
    Ownership(files, {}).release()
    assert list(answers) == []


def test_a_link_in_place_of_a_side_file_is_refused(path, tmp_path):
    """Nobody makes us write into a file of their choice."""
    (tmp_path / "l.db.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(errors.LedgerPathError, match=r"l.db.lock"):
        Ownership(ledger_files(path), {})
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"[1]", b'{"pid": 3'])
def test_a_holder_that_says_nothing_sensible_is_still_a_holder(path, quick, text):
    """What stands in the lock file is for people only."""
    files = ledger_files(path)
    held = Ownership(files, {})
    os.ftruncate(held.descriptor, 0)
    os.pwrite(held.descriptor, text, 0)
    assert holder_of(files) == {}
    with pytest.raises(errors.LedgerInUseError, match=r"pid \?"):
        Ownership(files, {})
    held.release()


def test_everybody_gets_a_turn_to_write(path, start):
    """Three processes that commit as fast as they can hold a fourth up for moments, not seconds."""
    with contextlib.closing(open_ledger(path, create=True, durability="process")) as ledger:
        children = [start(WRITER) for _ in range(3)]
        waits = []
        for _ in range(40):
            began = time.monotonic()
            with ledger.transaction():
                waits.append(time.monotonic() - began)
        for child in children:
            child.kill()
            child.wait()
    assert max(waits) < 1


def test_a_turn_taken_is_given_back_after_an_error(path):
    """An exception in the body does not keep others from writing."""
    turn, other = TurnLock(ledger_files(path)), TurnLock(ledger_files(path))
    with pytest.raises(ZeroDivisionError), turn.held():
        _ = 1 / 0
    with other.held():
        assert os.path.exists(f"{path}.turn")
    turn.close()
    other.close()


def test_workers_keep_the_lock_that_they_share_until_the_last_is_gone(path):
    """A descriptor that a worker inherited holds the lock when the coordinator has closed its own."""
    files = ledger_files(path)
    coordinator = WorkersLock(files)
    assert coordinator.is_free()
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=[coordinator.share()]) as worker:
        coordinator.close()
        following = WorkersLock(files)
        assert not following.is_free()
        worker.kill()
        worker.wait()
    assert following.is_free()
    following.close()
