"""
The machine loses power at every instant of a run, by five models of damage; and every call to the disk fails once, or from then on.

Each sweep has its sabotages: with one protection taken away it must find something. ``--long`` visits every event and every call.
"""

from __future__ import annotations

import collections
import gc
import os
import random
import tempfile
from unittest import mock

import apsw
import pytest

from durabatch.api import Ledger
from durabatch.errors import DurabatchError, LedgerError
from durabatch.ledger.connection import Connection
from durabatch.ledger.reader import Reader
from durabatch.runner import opening
from durabatch.runner.request import RunRequest
from tests.crash.lives import faults_of_end, live
from tests.crash.vfs import MODELS, CrashVFS, Disk, Fault, Recorder, disk_after, moved, put

#: Power loss after which nothing that was not synced is there: the hardest on what was acknowledged.
LOSSES = ("none", "random", "garbage")


@pytest.fixture(autouse=True)
def quick_collections():
    """Have garbage collections look at nothing but what is made from here on: each failed life is followed by one."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def shm(tmp_path_factory):
    """Give a directory in memory, where there is one: a sweep writes thousands of small ledgers."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None, prefix="durabatch-sweep-") as folder:
        yield folder


def record(folder, **options):
    """Return the events of one undisturbed run in *folder*."""
    os.makedirs(folder)
    recorder = Recorder()
    with CrashVFS(recorder) as vfs:
        life = live(f"{folder}/ledger.db", vfs=vfs.name, recorder=recorder, **options)
    assert life.error is None
    assert faults_of_end(f"{folder}/ledger.db", life.told) == []
    return recorder.events


def faults_of_image(folder, told, *, life=2):
    """
    Return what is wrong with the ledger found in *folder* after power came back: as it is, and after the run went on to its end.

    Every item must end once, and what was *told* must stand as it was told.
    """
    path = f"{folder}/ledger.db"
    try:
        problems = [f"verify after the loss: {finding}" for finding in Ledger(path).verify()]
    except LedgerError as error:
        # Only a ledger that told nothing may not be one yet.
        problems = [f"cannot be read: {error}"] if told else []
    went_on = live(path, life=life)
    if went_on.error is not None:
        return [*problems, f"cannot go on: {type(went_on.error).__name__}: {went_on.error}"]
    return problems + faults_of_end(path, told | went_on.told)


def sweep(folder, events, *, seed, step=1, models=MODELS, start=None, told=None, check=faults_of_image, stop_at=None):
    """
    Cut the power before every *step*-th of *events*, by each model; return how many images were made and what was wrong with which.

    Args:
        models: None draws one for each event.
        start: What was on the disk before.
        told: What had been told before.
        stop_at: Enough problems.
    """
    rng = random.Random(seed)
    disk, told = Disk(start), dict(told or {})
    offset = rng.randrange(step)
    images, problems = 0, []
    for number, event in enumerate([*events, ("mark", {})]):
        if number % step == offset or number == len(events):
            for model in models or [rng.choice(MODELS)]:
                images += 1
                put(disk.after_power_loss(model, rng), f"{folder}/life1", f"{folder}/image")
                problems += [f"before event {number}, {model}: {problem}" for problem in check(f"{folder}/image", told)]
        if stop_at is not None and len(problems) >= stop_at:
            break
        if event[0] == "mark":
            told |= event[1]
        disk.happen(event)
    return images, problems


def test_power_loss_at_any_instant_loses_and_doubles_nothing(shm, seed, long, unmeasured):
    """Whatever a power cut leaves on the disk: the ledger opens and is sound, what was told is there, and the run ends with every item once."""
    events = record(f"{shm}/life1")
    assert len(events) > 600
    images, problems = sweep(shm, events, seed=seed, step=1 if long else 10, models=MODELS if long else None)
    assert problems == []
    assert images >= len(events) // 10 * (10 * len(MODELS) if long else 1)


def test_power_loss_while_a_crashed_run_is_taken_up_again_loses_nothing(shm, seed, long, unmeasured):
    """A second power cut, at any instant of the recovery from a first one and of the work after it, is survived like the first."""
    rng = random.Random(seed)
    events = record(f"{shm}/life1")
    for _ in range(30 if long else 2):
        cut = rng.randrange(len(events) // 4, len(events))
        start = disk_after(events[:cut]).after_power_loss(rng.choice(MODELS), rng)
        told = {key: value for event in events[:cut] if event[0] == "mark" for key, value in event[1].items()}
        put(start, f"{shm}/life1", f"{shm}/life2")
        recorder = Recorder()
        with CrashVFS(recorder) as vfs:
            assert live(f"{shm}/life2/ledger.db", life=2, vfs=vfs.name, recorder=recorder).error is None
        again = [moved(event, f"{shm}/life2", f"{shm}/life1") for event in recorder.events]
        how = {"step": 7} if long else {"step": 20, "models": None}
        _, problems = sweep(shm, again, seed=seed, start=start, told=told, check=lambda *args: faults_of_image(*args, life=3), **how)
        assert (cut, problems) == (cut, [])


def faults_of_told(folder, told):
    """Return what of *told* is not in the ledger as it was found, and what is unsound in it; does not go on with the run."""
    try:
        ledger = Ledger(f"{folder}/ledger.db")
        problems = [str(finding) for finding in ledger.verify()]
        found = {one.key: (one.state, one.value_json) for one in ledger["sweep"].results()}
    except DurabatchError as error:
        return [str(error)] if told else []
    return problems + [f"lost: {key}" for key, was in told.items() if found.get(key) != was]


def test_durability_process_may_lose_the_newest_work_and_nothing_else(shm, seed, long):
    """With ``durability="process"`` the death of processes loses nothing; power loss may, but never leaves an unsound ledger."""
    events = record(f"{shm}/life1", durability="process")
    step = 3 if long else 40
    assert sweep(shm, events, seed=seed, step=step, models=("all",), check=faults_of_told)[1] == []
    _, problems = sweep(shm, events, seed=seed, step=step, models=("none", "random"), check=faults_of_told)
    assert problems
    assert [problem for problem in problems if ": lost: " not in problem and "no run 'sweep'" not in problem] == []


# -- the sweep has teeth ------------------------------------------------------------------------------------------------------


def test_the_sweep_finds_a_disk_that_lies_about_syncs(shm, seed):
    """Sabotage: with all syncs forgotten, as by a lying disk, the sweep reports lost results or damage."""
    events = [event for event in record(f"{shm}/life1") if event[0] != "sync"]
    assert sweep(shm, events, seed=seed, step=40, models=LOSSES, check=faults_of_told, stop_at=1)[1]


def test_the_sweep_finds_a_ledger_that_does_not_sync(shm, seed, monkeypatch):
    """Sabotage: with ``synchronous=off`` the sweep reports lost results or damage."""
    apply_pragmas = Connection.apply_pragmas

    def careless(self, durability):
        apply_pragmas(self, durability)
        self.raw.pragma("synchronous", "off")

    monkeypatch.setattr(Connection, "apply_pragmas", careless)
    events = record(f"{shm}/life1")
    assert sweep(shm, events, seed=seed, step=40, models=LOSSES, check=faults_of_told, stop_at=1)[1]


def test_the_sweep_finds_results_that_are_told_before_they_are_on_disk(shm, seed):
    """Sabotage: with every report moved ten events forward, before the commit that holds it, the sweep reports lost results."""
    events = record(f"{shm}/life1")
    for place in [number for number, event in enumerate(events) if event[0] == "mark" and number > 100]:
        events.insert(place - 10, events.pop(place))
    assert sweep(shm, events, seed=seed, step=3, models=("none",), check=faults_of_told, stop_at=1)[1]


# -- seen and then lost -------------------------------------------------------------------------------------------------------


def seen_then_lost(shm, events, *, step, seed, stop_at=None):
    """
    Kill the process (its writes stay in the system's memory), let a second one take the ledger and look, and then cut the power.

    Returns:
        How often this was done, and where something that the second process saw was gone.
    """
    rng = random.Random(seed)
    done, lost = 0, []
    for cut in range(rng.randrange(step), len(events), step):
        if not any(event[0] == "mark" for event in events[:cut]):
            continue
        first = disk_after(events[:cut])
        put(first.after_power_loss("all", rng), f"{shm}/life1", f"{shm}/life2")
        # What the first process had not synced is not synced for the second one either.
        recorder = Recorder([moved(event, f"{shm}/life1", f"{shm}/life2") for event in events[:cut]])
        with CrashVFS(recorder) as vfs:
            request = RunRequest(verb="resume", ledger=f"{shm}/life2/ledger.db", vfs=vfs.name)
            with opening.owned_ledger(request) as owned:
                seen = dict(owned.connection.raw.execute("SELECT item_id, value FROM result"))
                found_at = len(recorder.events)
        done += 1
        put(disk_after(recorder.events[:found_at]).after_power_loss("none", rng), f"{shm}/life2", f"{shm}/image")
        with Reader(f"{shm}/image/ledger.db") as reader:
            left = dict(reader.raw.execute("SELECT item_id, value FROM result"))
        lost += [(cut, item_id) for item_id in seen if seen[item_id] != left.get(item_id)]
        if stop_at is not None and len(lost) >= stop_at:
            break
    return done, lost


def test_what_a_resume_has_seen_is_never_lost_again(shm, seed, long, monkeypatch):
    """After kill -9 at any instant the next coordinator's first commit makes durable what it goes on from, before it acts on or shows it."""
    # Recovery commits too; the barrier must be enough by itself.
    monkeypatch.setattr(opening, "recover", lambda *_, **__: (0, 0))
    done, lost = seen_then_lost(shm, record(f"{shm}/life1"), step=1 if long else 11, seed=seed)
    assert (done > 50, lost) == (True, [])


def test_the_missing_barrier_is_found(shm, seed, monkeypatch):
    """Sabotage: without the commit at the start, something that the second process saw is lost with the power."""
    monkeypatch.setattr(opening, "recover", lambda *_, **__: (0, 0))
    monkeypatch.setattr(opening, "open_session", lambda *_, **__: 0)
    _, lost = seen_then_lost(shm, record(f"{shm}/life1"), step=3, seed=seed, stop_at=1)
    assert lost


# -- calls that fail ----------------------------------------------------------------------------------------------------------

FAULTS = {
    "write-error": {"op": "xWrite", "code": apsw.SQLITE_IOERR_WRITE},
    "write-error-torn-for-ever": {"op": "xWrite", "code": apsw.SQLITE_IOERR_WRITE, "persist": True, "torn": True},
    "disk-full": {"op": "xWrite", "code": apsw.SQLITE_FULL},
    "disk-full-torn-for-ever": {"op": "xWrite", "code": apsw.SQLITE_FULL, "persist": True, "torn": True},
    "checkpoint-write-error": {"op": "xWrite", "code": apsw.SQLITE_IOERR_WRITE, "only": ".db", "persist": True},
    "sync-error": {"op": "xSync", "code": apsw.SQLITE_IOERR_FSYNC},
    "sync-error-for-ever": {"op": "xSync", "code": apsw.SQLITE_IOERR_FSYNC, "persist": True},
    "truncate-error": {"op": "xTruncate", "code": apsw.SQLITE_IOERR_TRUNCATE},
    "read-error": {"op": "xRead", "code": apsw.SQLITE_IOERR_READ},
    "read-error-for-ever": {"op": "xRead", "code": apsw.SQLITE_IOERR_READ, "persist": True},
    "open-error": {"op": "xOpen", "code": apsw.SQLITE_CANTOPEN},
    "open-error-for-ever": {"op": "xOpen", "code": apsw.SQLITE_IOERR, "persist": True},
    "delete-error": {"op": "xDelete", "code": apsw.SQLITE_IOERR_DELETE},
}


def live_with_fault(folder, fault):
    """Run until the storage fails, or to the end when the fault is met too late."""
    # What fails while SQLite closes a file, it tells nobody; of a Python VFS the unraisable hook hears.
    with CrashVFS(Recorder(), fault) as vfs, mock.patch("sys.unraisablehook", lambda _: None):
        life = live(f"{folder}/ledger.db", vfs=vfs.name)
        gc.collect()
        return life


@pytest.mark.parametrize("kind", FAULTS)
def test_a_failing_disk_ends_the_run_cleanly_and_loses_nothing(shm, seed, long, kind):
    """Whichever call fails: the run ends with a LedgerError or goes on, what it told is there, and once the disk is well it ends with every item once."""
    counting = Fault(n=0, **{name: value for name, value in FAULTS[kind].items() if name != "persist"})
    os.makedirs(f"{shm}/count")
    live_with_fault(f"{shm}/count", counting)
    rng = random.Random(seed)
    places = range(1, counting.seen + 1)
    stopped = 0
    for n in places if long else sorted(rng.sample(places, min(len(places), 6))):
        folder = f"{shm}/fault{n}"
        os.makedirs(folder)
        fault = Fault(n=n, **FAULTS[kind])
        life = live_with_fault(folder, fault)
        assert (n, fault.fired > 0) == (n, True)
        assert life.error is None or isinstance(life.error, LedgerError), (n, life.error)
        stopped += life.error is not None
        assert (n, faults_of_image(folder, life.told)) == (n, [])
    # The one file that is deleted is the empty log, after the last commit; a disk that is full for a moment is waited for.
    assert stopped or kind in ("delete-error", "disk-full")


@pytest.mark.parametrize("kind", ["write-error", "sync-error"])
def test_death_right_after_a_failed_commit_leaves_the_outcome_to_the_ledger(shm, seed, long, kind):
    """A commit that failed may be there or not after the process dies; either way nothing told is lost and no item ends twice."""
    rng = random.Random(seed)
    outcomes = collections.Counter()
    for n in range(2, 60, 1 if long else 12):
        folder = f"{shm}/life1"
        put({}, folder, folder)
        recorder = Recorder()
        fault = Fault(n=n, only="-wal", **FAULTS[kind])
        with CrashVFS(recorder, fault) as vfs, mock.patch("sys.unraisablehook", lambda _: None):
            life = live(f"{folder}/ledger.db", vfs=vfs.name, recorder=recorder)
            gc.collect()
        if life.error is None:
            continue
        for model in MODELS if long else ("all", rng.choice([one for one in MODELS if one != "all"])):
            put(disk_after(recorder.events).after_power_loss(model, rng), folder, f"{shm}/image")
            outcomes[model] += 1
            assert (n, model, faults_of_image(f"{shm}/image", life.told)) == (n, model, [])
    assert outcomes["all"] > 3
