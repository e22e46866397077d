from __future__ import annotations

import contextlib
import inspect
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading

import apsw
import pytest

from durabatch import errors
from durabatch.engine.start import open_session
from durabatch.ledger import connection as connections
from durabatch.ledger import event
from durabatch.ledger.executor import HARDENING, apply_pragma, translate
from durabatch.ledger.locks import Ownership
from durabatch.ledger.opening import open_ledger
from tests import factory


def write(ledger, kind="noted"):
    with ledger.transaction():
        event.record(ledger, kind, run_id=None, now_us=1)


def kinds(ledger):
    return [row[0] for row in ledger.raw.execute("SELECT kind FROM event ORDER BY event_id")]


# -- settings -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("journal_mode", "wal"),
        ("synchronous", 2),
        ("foreign_keys", 1),
        ("wal_autocheckpoint", 0),
        ("cell_size_check", 1),
        ("mmap_size", 0),
        ("cache_size", -8_000),
        ("temp_store", 2),
    ],
)
def test_each_setting_is_in_force(ledger, name, value):
    """What the connection asked for is what SQLite does, asked one by one."""
    assert ledger.raw.pragma(name) == value


def test_process_durability_syncs_at_checkpoints_only(path):
    """The weaker promise is one setting and nothing else."""
    with contextlib.closing(open_ledger(path, create=True, durability="process")) as ledger:
        assert ledger.raw.pragma("synchronous") == 1
        assert ledger.raw.pragma("journal_mode") == "wal"


@pytest.mark.parametrize(("option", "value"), HARDENING)
def test_nothing_in_a_schema_can_act(ledger, option, value):
    """Triggers, views, attached files and doubtful functions are off."""
    assert ledger.raw.config(option, -1) == value


def test_a_setting_that_does_not_hold_is_an_error(ledger):
    """SQLite ignores what it does not know; we do not."""
    with pytest.raises(errors.LedgerError, match="PRAGMA no_such_thing = 1"):
        apply_pragma(ledger.raw, "no_such_thing", 1)


# -- transactions -------------------------------------------------------------------------------------------------------------


def test_an_error_takes_the_whole_transaction_back(ledger):
    """Nothing of the body is kept, and the next transaction works."""
    with pytest.raises(ZeroDivisionError), ledger.transaction():
        event.record(ledger, "first", run_id=None, now_us=1)
        with ledger.transaction():
            event.record(ledger, "inner", run_id=None, now_us=1)
        _ = 1 / 0
    assert kinds(ledger) == []
    write(ledger)
    assert kinds(ledger) == ["noted"]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interruption_takes_the_transaction_back(ledger, interrupt):
    """Whatever ends the body, the turn is given back and nothing is half done."""
    with pytest.raises(interrupt), ledger.transaction():
        event.record(ledger, "first", run_id=None, now_us=1)
        raise interrupt
    assert (kinds(ledger), ledger.raw.in_transaction, ledger.depth) == ([], False, 0)


def test_a_failing_statement_takes_the_transaction_back(ledger):
    """An error of SQLite's leaves no open transaction behind."""
    with pytest.raises(errors.LedgerError), ledger.transaction():
        event.record(ledger, "first", run_id=None, now_us=1)
        event.record(ledger, "second", run_id=99, now_us=1)
    assert (kinds(ledger), ledger.raw.in_transaction) == ([], False)


def test_a_savepoint_takes_back_its_own_part_alone(ledger):
    """What was done before and after it in the transaction is kept."""
    with ledger.transaction():
        event.record(ledger, "before", run_id=None, now_us=1)
        with pytest.raises(ZeroDivisionError), ledger.savepoint():
            with ledger.savepoint():
                event.record(ledger, "inner", run_id=None, now_us=1)
            _ = 1 / 0
        event.record(ledger, "after", run_id=None, now_us=1)
    assert kinds(ledger) == ["before", "after"]


def test_a_snapshot_sees_one_state_and_joins_a_transaction(path, ledger):
    """Commits of others in between are not seen until it ends; inside a transaction our own changes are."""
    with contextlib.closing(open_ledger(path)) as other:
        with ledger.snapshot():
            assert kinds(ledger) == []
            write(other)
            assert kinds(ledger) == []
        assert kinds(ledger) == ["noted"]
    with ledger.transaction():
        event.record(ledger, "mine", run_id=None, now_us=1)
        with ledger.snapshot():
            assert kinds(ledger) == ["noted", "mine"]
    assert kinds(ledger) == ["noted", "mine"]


def test_a_forked_child_cannot_use_the_connection(ledger):
    """SQLite would let it write; we refuse before anything is executed."""
    child = os.fork()
    if child == 0:
        try:
            write(ledger, "child")
        except errors.ForkedConnectionError as error:
            os._exit(40 + error.exit_code)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 44
    assert kinds(ledger) == []


@pytest.mark.parametrize(
    "use", [write, lambda ledger: ledger.rows("run_list"), lambda ledger: ledger.executemany("batch_mark_published", []), lambda ledger: ledger.snapshot().__enter__()]
)
def test_another_thread_cannot_use_the_connection(ledger, use):
    """One thread owns it: every way in says so."""
    caught = []

    def try_it():
        try:
            use(ledger)
        except errors.ForkedConnectionError as error:
            caught.append(error)

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    assert len(caught) == 1


# -- another coordinator ------------------------------------------------------------------------------------------------------


def test_a_coordinator_that_was_replaced_stops(path, ledger):
    """The lock file was deleted and another coordinator opened the ledger: the first one records nothing more."""
    first = Ownership(ledger.files, {"pid": 1})
    open_session(ledger, {}, now_us=1)
    os.unlink(ledger.files.owner)
    second = Ownership(ledger.files, {"pid": 2})
    with contextlib.closing(open_ledger(path)) as other:
        open_session(other, {}, now_us=2)
        with pytest.raises(errors.LedgerTakenOverError) as caught:
            write(ledger)
        assert caught.value.exit_code == 4
        assert (ledger.raw.in_transaction, ledger.depth) == (False, 0)
        write(other)
        assert kinds(other) == ["opened", "opened", "noted"]
    first.release()
    second.release()


def test_other_writers_do_not_replace_a_coordinator(path, ledger):
    """Only a later session does; a process that adds rows does not."""
    open_session(ledger, {}, now_us=1)
    with contextlib.closing(open_ledger(path)) as other:
        write(other)
    write(ledger)
    assert kinds(ledger) == ["opened", "noted", "noted"]


# -- tripwire -----------------------------------------------------------------------------------------------------------------


def replace_ledger(files):
    shutil.copy(files.ledger, files.ledger + ".copy")
    os.replace(files.ledger + ".copy", files.ledger)


def replace_log(files):
    shutil.copy(files.wal, files.wal + ".copy")
    os.replace(files.wal + ".copy", files.wal)


LOSSES = {
    "ledger unlinked": (lambda files: os.unlink(files.ledger), "l.db has disappeared"),
    "ledger renamed": (lambda files: os.rename(files.ledger, files.ledger + ".old"), "l.db has disappeared"),
    "ledger replaced": (replace_ledger, "replaced by another"),
    "ledger cut": (lambda files: os.truncate(files.ledger, 4096), "was cut"),
    "ledger linked": (lambda files: os.link(files.ledger, files.ledger + ".second"), "second name"),
    "log unlinked": (lambda files: os.unlink(files.wal), "l.db-wal has disappeared"),
    "log replaced": (replace_log, "log was replaced"),
    "log cut": (lambda files: os.truncate(files.wal, 32), "was cut"),
    "directory removed": (lambda files: shutil.rmtree(os.path.dirname(files.ledger)), "has disappeared"),
}


@pytest.mark.parametrize(("lose", "message"), LOSSES.values(), ids=LOSSES)
def test_a_ledger_lost_while_open_stops_the_next_commit(tmp_path, lose, message):
    """SQLite says that all is well; we say within one commit that it is not, with exit code 4."""
    (tmp_path / "folder").mkdir()
    with contextlib.closing(open_ledger(tmp_path / "folder" / "l.db", create=True)) as ledger:
        write(ledger)
        lose(ledger.files)
        with pytest.raises(errors.LedgerLostError, match=message) as caught:
            write(ledger)
        assert caught.value.exit_code == 4


def test_our_own_checkpoints_do_not_trip_the_wire(ledger):
    """A log that we cut ourselves is no loss, however often."""
    for _ in range(3):
        write(ledger)
        assert ledger.checkpoint()
        write(ledger)
        assert ledger.checkpoint(truncate=True)
        assert os.path.getsize(ledger.files.wal) == 0
    write(ledger)
    assert len(kinds(ledger)) == 7


# -- checkpoints and others' locks ----------------------------------------------------------------------------------------------


def test_a_reader_keeps_a_checkpoint_back_without_an_error(path, ledger):
    """False says that a part of the log had to stay; when the reader has left, all of it goes."""
    write(ledger)
    with contextlib.closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as reader:
        cursor = reader.execute("SELECT * FROM sqlite_schema")
        cursor.fetchone()
        write(ledger)
        assert not ledger.checkpoint()
        assert not ledger.checkpoint(truncate=True)
        cursor.close(force=True)
    write(ledger)
    assert ledger.checkpoint(truncate=True)
    assert ledger.wal_frames == 0


def test_the_length_of_the_log_is_known(ledger):
    """Whoever decides on checkpoints counts frames and asks nobody."""
    before = ledger.wal_frames
    write(ledger)
    assert ledger.wal_frames > before


def test_a_foreign_lock_is_told_and_then_given_up(ledger, monkeypatch):
    """A program that holds the ledger is named after a while; when it never lets go the transaction was not begun."""
    told = []
    ledger.on_wait = told.append
    monkeypatch.setattr(connections, "BUSY_NOTICE_S", 0.02)
    monkeypatch.setattr(connections, "BUSY_LIMIT_S", 0.1)
    hold = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN IMMEDIATE'); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", hold, ledger.files.ledger], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(errors.LedgerBusyError, match="another program keeps it locked"):
            write(ledger)
        assert len(told) == 1
        other.stdin.close()
        other.wait()
        other.stdout.close()
    write(ledger)
    assert kinds(ledger) == ["noted"]


# -- the storage fails ----------------------------------------------------------------------------------------------------------


def test_a_full_disk_takes_back_one_transaction_alone(ledger):
    """Everything before it is there, and after room was made it goes on."""
    write(ledger)
    ledger.raw.pragma("max_page_count", ledger.raw.pragma("page_count"))
    with pytest.raises(errors.LedgerFullError, match="disk is full"), ledger.transaction():
        for _ in range(2000):
            event.record(ledger, "x" * 500, run_id=None, now_us=1)
    assert (kinds(ledger), ledger.raw.in_transaction) == (["noted"], False)
    ledger.raw.pragma("max_page_count", 1 << 30)
    write(ledger)
    assert kinds(ledger) == ["noted", "noted"]


def test_a_write_that_fails_says_that_the_outcome_is_unknown(ledger):
    """A file size limit makes the write of the log fail for real: exit code 4, and what was there before stays."""
    write(ledger)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(ledger.files.wal) + 1000, hard))
    try:
        with pytest.raises((errors.LedgerStorageError, errors.LedgerFullError)) as caught:
            write(ledger, "x" * 50_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.exit_code == 4
    assert kinds(ledger)[0] == "noted"


#: Which of apsw's classes becomes which of ours; a class that apsw adds must be put into one of the lists.
KNOWN = {
    errors.NotALedgerError: {"NotADBError"},
    errors.LedgerFullError: {"FullError"},
    errors.LedgerBusyError: {"BusyError", "LockedError"},
    errors.LedgerPathError: {"CantOpenError", "ReadOnlyError", "PermissionsError", "AuthError"},
    errors.LedgerStorageError: {"IOError", "NoMemError"},
    errors.LedgerDamagedError: {
        "CorruptError", "AbortError", "BindingsError", "ConnectionClosedError", "ConnectionNotClosedError", "ConstraintError", "CursorClosedError",
        "EmptyError", "Error", "ExecTraceAbort", "ExecutionCompleteError", "ExtensionLoadingError", "ForkingViolationError", "FormatError",
        "IncompleteExecutionError", "InternalError", "InterruptError", "InvalidContextError", "MismatchError", "MisuseError", "NoFTS5Error", "NoLFSError",
        "NotFoundError", "ProtocolError", "RangeError", "SQLError", "SchemaChangeError", "ThreadingViolationError", "TooBigError",
        "VFSFileClosedError", "VFSNotImplementedError", "JsonError", "ChangesetError",
    },
}  # fmt: skip
APSW_CLASSES = {name: kind for name, kind in vars(apsw).items() if inspect.isclass(kind) and issubclass(kind, apsw.Error)}


@pytest.mark.parametrize("name", APSW_CLASSES)
def test_every_error_of_apsw_becomes_one_of_ours(name):
    """None slips through: each has its place in the tree, exit code 4, and the path in its words."""
    error = translate(APSW_CLASSES[name]("why"), "/data/l.db")
    (expected,) = [ours for ours, theirs in KNOWN.items() if name in theirs]
    assert type(error) is expected
    assert error.exit_code == 4
    assert "/data/l.db" in str(error)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), errors.LedgerDamagedError),
        (MemoryError(), errors.LedgerStorageError),
        (OverflowError(), errors.LedgerDamagedError),
    ],
)
def test_what_is_no_error_of_apsw_is_mapped_too(raised, expected):
    """Damaged files make the binding raise these, and no user should see them."""
    assert type(translate(raised, "l.db")) is expected


def test_a_closed_ledger_can_be_opened_by_anyone(path, ledger):
    """Closing moves the log into the file and removes it: any SQLite reads the ledger then."""
    write(ledger)
    ledger.close()
    assert not os.path.exists(ledger.files.wal)
    with contextlib.closing(sqlite3.connect(path)) as stock:
        assert stock.execute("SELECT kind FROM event").fetchall() == [("noted",)]
    ledger.__init__(ledger.files)


def test_a_killed_writer_leaves_what_it_committed(path, scaled):
    """kill -9 between two commits, again and again: nothing that was acknowledged is missing, nothing is there twice."""
    script = """
import sys
from durabatch.ledger import event
from durabatch.ledger.opening import open_ledger
ledger = open_ledger(sys.argv[1], create=True, durability="process")
first = ledger.raw.execute("SELECT count(*) FROM event").fetchone()[0]
for number in range(first, first + 100_000):
    with ledger.transaction():
        event.record(ledger, "n", run_id=None, now_us=number)
    print(number, flush=True)
"""
    for _ in range(scaled(30)):
        with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE) as writer:
            for _ in range(20):
                acknowledged = int(writer.stdout.readline())
            writer.kill()
        found = [row[0] for row in factory.rows(path, "SELECT happened_at_us FROM event ORDER BY event_id")]
        assert found == list(range(len(found)))
        assert len(found) > acknowledged
