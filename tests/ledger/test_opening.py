from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import stat
import zipfile

import pytest

from durabatch import errors
from durabatch.ledger import event, paths
from durabatch.ledger.executor import APPLICATION_ID
from durabatch.ledger.opening import open_ledger
from durabatch.ledger.reader import Reader
from durabatch.ledger.schema import SCHEMA_VERSION, expected_schema
from tests import factory

HEADER = bytes.fromhex("53514c69746520666f726d6174203300")


def fifo(folder):
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def unix_socket(folder):
    here = os.getcwd()
    os.chdir(folder)  # a socket's path has 108 bytes at most
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as made:
        made.bind("sock")
    os.chdir(here)
    return folder / "sock"


def links_in_a_ring(folder):
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    return folder / "a"


def link_to_nothing(folder):
    (folder / "link").symlink_to(folder / "gone.db")
    return folder / "link"


def inside_a_file(folder):
    (folder / "file").write_text("x")
    return folder / "file" / "l.db"


#: What no ledger can be at: how it comes about, and what must be said.
NO_PLACE = {
    "empty": (lambda _: "", "empty path"),
    "in memory": (lambda _: ":memory:", "cannot be resumed"),
    "uri": (lambda _: "file:x?mode=memory", "cannot be resumed"),
    "device": (lambda _: "/dev/null", "is a device, not a file"),
    "endless device": (lambda _: "/dev/zero", "is a device, not a file"),
    "fifo": (fifo, "is a pipe, not a file"),
    "socket": (unix_socket, "is a socket, not a file"),
    "directory": (lambda folder: folder, "is a directory. Give a file, e.g."),
    "no parent": (lambda folder: folder / "such" / "l.db", "directory .*such does not exist"),
    "parent is a file": (inside_a_file, "[Nn]ot a directory"),
    "nul": (lambda folder: f"{folder}/a\0b", "not a usable path"),
    "not utf-8": (lambda folder: f"{folder}/a\udcff.db", "not a usable path"),
    "300 characters": (lambda folder: folder / ("n" * 300), "File name too long"),
    "links in a ring": (links_in_a_ring, "symbolic link that leads nowhere"),
    "link to nothing": (link_to_nothing, "symbolic link that leads nowhere"),
}


def content(folder):
    """Return every file below *folder* with its bytes, except the side files that any look at a ledger may leave."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(("-shm", "-wal")))
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("opener", [lambda path: open_ledger(path, create=True), open_ledger, Reader], ids=["create", "write", "read"])
@pytest.mark.parametrize(("make", "message"), NO_PLACE.values(), ids=NO_PLACE)
def test_a_path_that_cannot_hold_a_ledger_is_wrong_use(tmp_path, opener, make, message):
    """Exit code 2, one line that says what it is instead, and nothing is made there."""
    path = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(errors.UsageError, match=message) as caught:
        opener(path)
    assert caught.value.exit_code == 2
    assert str(caught.value).isprintable()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_ledger_is_named_with_those_that_are_there(tmp_path):
    """Exit code 4, and the hint names what to give instead."""
    (tmp_path / "other.db").write_text("")
    for opener in (open_ledger, Reader):
        with pytest.raises(errors.LedgerMissingError, match=r"there is no such ledger. There is other.db") as caught:
            opener(tmp_path / "l.db")
        assert caught.value.exit_code == 4
    assert not (tmp_path / "l.db").exists()


def test_an_odd_name_is_printed_escaped(tmp_path):
    """A newline or an escape sequence in a path never reaches the terminal as it is."""
    with pytest.raises(errors.LedgerMissingError) as caught:
        open_ledger(tmp_path / "a\nb\x1b[2J.db")
    assert str(caught.value).isprintable()
    with contextlib.closing(open_ledger(tmp_path / "a\nb\x1b[2J.db", create=True)) as ledger:
        assert ledger.value("item_last_id") == 0


# -- files that are no ledger -----------------------------------------------------------------------------------------------------


def written(text):
    return lambda path: path.write_bytes(text)


def zip_file(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello" * 100)


def foreign(*texts):
    def make(path):
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            for text in ("CREATE TABLE t (a)", "INSERT INTO t VALUES (1)", *texts):
                other.execute(text)

    return make


def cut(size):
    def make(path):
        factory.worked_ledger(path)
        os.truncate(path, size)

    return make


def patched(offset, data):
    def make(path):
        factory.worked_ledger(path)
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(data)

    return make


def changed(*texts):
    def make(path):
        factory.worked_ledger(path)
        factory.sabotage(path, *texts)

    return make


def loosely_typed(path):
    factory.worked_ledger(path)
    factory.sabotage(
        path, "PRAGMA writable_schema = 1", "UPDATE sqlite_schema SET sql = replace(sql, ') STRICT', ')') WHERE name = 'event'"
    )


def two_names(path):
    factory.worked_ledger(path)
    os.link(path, path.with_name("second.db"))


def without_a_column(path):
    factory.worked_ledger(path)
    factory.sabotage(path, "ALTER TABLE event DROP COLUMN detail")


NOT_OURS = errors.NotALedgerError
DAMAGED = errors.LedgerDamagedError
VERSION = errors.LedgerVersionError
#: Files that are refused: how they come about, as what, and with which words.
NO_LEDGER = {
    "empty": (written(b""), NOT_OURS, "is empty"),
    "text": (written(b"host,port\n" * 500), NOT_OURS, "not a SQLite database"),
    "short text": (written(b"x"), NOT_OURS, "not a SQLite database"),
    "zip": (zip_file, NOT_OURS, "not a SQLite database"),
    "png": (written(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8), NOT_OURS, "not a SQLite database"),
    "other program": (foreign(), NOT_OURS, r"another program \(application id 0x0\)"),
    "other program in wal": (foreign("PRAGMA journal_mode = wal"), NOT_OURS, "another program"),
    "other application id": (foreign("PRAGMA application_id = 7"), NOT_OURS, "application id 0x7"),
    "our id alone": (foreign(f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {SCHEMA_VERSION}"), DAMAGED, "unexpected schema"),
    "cut to 3 pages": (cut(3 * 4096), DAMAGED, "is damaged"),
    "cut to 1 page": (cut(4096), DAMAGED, "is damaged"),
    "cut to 5000 bytes": (cut(5000), DAMAGED, "is damaged"),
    "cut to 100 bytes": (cut(100), DAMAGED, "is damaged"),
    "cut to 17 bytes": (cut(17), NOT_OURS, "not a SQLite database"),
    "page size 0": (patched(16, b"\0\0"), NOT_OURS, "not a SQLite database"),
    "reserved bytes 255": (patched(20, b"\xff"), DAMAGED, "is damaged"),
    "text in utf-16": (patched(56, b"\0\0\0\x02"), DAMAGED, "is damaged|refused|unexpected"),
    "schema format 99": (patched(44, b"\0\0\0\x63"), DAMAGED, "is damaged|refused"),
    "newer": (changed(f"PRAGMA user_version = {SCHEMA_VERSION + 1}"), VERSION, f"schema {SCHEMA_VERSION + 1}, this durabatch knows {SCHEMA_VERSION}"),
    "far newer": (changed("PRAGMA user_version = 2147483647"), VERSION, "schema 2147483647"),
    "version 0": (changed("PRAGMA user_version = 0"), VERSION, "impossible schema version 0"),
    "negative version": (changed("PRAGMA user_version = -5"), VERSION, "impossible schema version -5"),
    "extra table": (changed("CREATE TABLE extra (a)"), DAMAGED, r"unexpected schema \(table 'extra'\)"),
    "extra view": (changed("CREATE VIEW v_x AS SELECT 1"), DAMAGED, r"unexpected schema \(view 'v_x'\)"),
    "extra index": (changed("CREATE INDEX extra ON event (kind)"), DAMAGED, r"unexpected schema \(index 'extra'\)"),
    "trigger": (changed("CREATE TRIGGER t1 AFTER UPDATE ON item BEGIN DELETE FROM result; END"), DAMAGED, r"unexpected schema \(trigger 't1'\)"),
    "column missing": (without_a_column, DAMAGED, r"unexpected schema \(table 'event'\)"),
    "column added": (changed("ALTER TABLE event ADD COLUMN extra TEXT"), DAMAGED, r"unexpected schema \(table 'event'\)"),
    "table missing": (changed("DROP TABLE event"), DAMAGED, r"unexpected schema \(table 'event'\)"),
    "view changed": (changed("DROP VIEW v_run", "CREATE VIEW v_run AS SELECT 1 AS a"), DAMAGED, r"unexpected schema \(view 'v_run'\)"),
    "not strict": (loosely_typed, DAMAGED, r"unexpected schema \(table 'event'\)"),
    "two names": (two_names, errors.LedgerPathError, r"has 2 names \(hard links\)"),
}


@pytest.mark.parametrize("opener", [open_ledger, Reader], ids=["write", "read"])
@pytest.mark.parametrize(("make", "kind", "message"), NO_LEDGER.values(), ids=NO_LEDGER)
def test_a_file_that_is_no_ledger_of_ours_is_refused_and_unchanged(path, opener, make, kind, message):
    """Exit code 4, one line, and not a byte of any file is different afterwards."""
    make(path)
    before = content(path.parent)
    with pytest.raises(kind, match=message) as caught:
        opener(path)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    assert content(path.parent) == before


def test_damaged_text_in_a_row_is_a_damaged_ledger(worked):
    """SQLite gives text out as it finds it; ours is an error of the tree and never a UnicodeDecodeError."""
    factory.sabotage(worked, "UPDATE item SET key = CAST(x'6bff' AS TEXT) WHERE item_id = 2")
    with Reader(worked) as reader, pytest.raises(errors.LedgerDamagedError, match="not UTF-8"):
        reader.rows("item_list_page", {"first_item_id": 1, "last_item_id": 9, "limit": 9})


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_garbage_in_a_side_file_is_ignored(worked, suffix):
    """What does not belong to the ledger is not taken for a part of it."""
    worked.with_name(f"l.db{suffix}").write_bytes(os.urandom(40_000))
    with contextlib.closing(open_ledger(worked)) as ledger:
        assert ledger.value("item_last_id") == 37


def test_a_directory_in_place_of_a_side_file_stops_the_first_commit(worked):
    """Reading works; what cannot be shared with other processes is not written."""
    worked.with_name("l.db-shm").mkdir()
    with contextlib.closing(open_ledger(worked)) as ledger, pytest.raises(errors.LedgerPathError, match="cannot be opened"), ledger.transaction():
        event.record(ledger, "opened", run_id=None, now_us=1)
    assert len(factory.rows(worked, "SELECT * FROM event WHERE kind = 'opened'")) == 0


def test_a_link_to_a_ledger_is_that_ledger(worked, tmp_path):
    """Both names lead to the same side files, so that there is one lock and one log."""
    (tmp_path / "link.db").symlink_to(worked)
    with contextlib.closing(open_ledger(tmp_path / "link.db")) as ledger:
        assert ledger.files.ledger == str(worked)
        assert ledger.files.owner == f"{worked}.lock"


def test_a_ledger_from_the_future_is_accepted(worked):
    """Instants in 2099 are no damage."""
    factory.sabotage(worked, "UPDATE run SET created_at_us = 4100000000000000")
    with contextlib.closing(open_ledger(worked)) as ledger:
        assert ledger.value("item_last_id") == 37


def test_a_sparse_terabyte_behind_a_ledger_is_no_obstacle(worked, not_run):
    """Opening reads what the ledger says that it has, and not what the file has room for."""
    try:
        os.truncate(worked, 1 << 40)
    except OSError:
        not_run("the file system takes no sparse files of 1 TiB")
    with contextlib.closing(open_ledger(worked)) as ledger:
        assert ledger.value("item_last_id") == 37


@pytest.mark.parametrize("kind", sorted(paths.NETWORK_FILE_SYSTEMS))
def test_a_network_file_system_is_refused_unless_allowed(path, monkeypatch, kind):
    """Shared memory does not reach other hosts; whoever knows that there is only one may say so."""
    monkeypatch.setattr(paths, "file_system", lambda folder: kind)
    with pytest.raises(errors.LedgerPathError, match=rf"network file system \({kind}\)"):
        open_ledger(path, create=True)
    assert not path.exists()
    open_ledger(path, create=True, allow_network_fs=True).close()


def test_the_file_system_of_a_folder_is_known(tmp_path):
    """The deepest mount decides; /proc is one that is always there."""
    assert paths.file_system("/proc/self") == "proc"
    assert paths.file_system(str(tmp_path)) not in ("", "proc")


def test_too_little_room_is_said_before_anything_is_made(path, monkeypatch):
    """No ledger is begun that could not hold its first items."""
    real = os.statvfs(path.parent)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*real[:4], 10, *real[5:])))
    with pytest.raises(errors.LedgerPathError, match="MiB to start, 0 MiB are free"):
        open_ledger(path, create=True)
    assert not path.exists()


def test_a_folder_in_which_everybody_may_replace_files_is_refused(path):
    """Another user could swap the ledger; with the sticky bit, as in /tmp, nobody can."""
    path.parent.chmod(0o777)
    with pytest.raises(errors.LedgerPathError, match="everybody may replace files"):
        open_ledger(path, create=True)
    path.parent.chmod(0o1777)
    open_ledger(path, create=True).close()


def test_an_old_sqlite_is_refused(path, monkeypatch):
    """Before 3.53.4 a log can be corrupted: better no run than that."""
    monkeypatch.setattr("apsw.sqlite_lib_version", lambda: "3.51.2")
    with pytest.raises(errors.LedgerError, match=r"its SQLite is 3.51.2"):
        open_ledger(path, create=True)
    assert not path.exists()


# -- the ledgers of others, as another user ---------------------------------------------------------------------------------------


def as_nobody(work):
    """Run *work* in a child process that has no rights, and return its answer."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            answer = str(work())
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent compares it
            answer = f"{type(error).__name__}: {error}"
        os.write(writing, answer.encode()[:4000])
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:
        text = answer.read().decode()
    os.waitpid(child, 0)
    return text


@pytest.fixture
def common(worked, tmp_path_factory):
    """Give a worked ledger in a folder that a user without rights can reach, and may not write to."""
    folder = tmp_path_factory.getbasetemp() / "common"
    folder.mkdir(exist_ok=True)
    for step in (folder, *folder.parents):
        if step.stat().st_uid == os.geteuid() and not step.stat().st_mode & stat.S_IXOTH:
            step.chmod(step.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    copy = folder / "l.db"
    shutil.copy(worked, copy)
    copy.chmod(0o444)
    folder.chmod(0o555)
    yield copy
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_ledger_that_may_only_be_read_can_be_read(common):
    """Neither the file nor its folder can be written: reading works, running is refused in one line."""
    assert as_nobody(lambda: Reader(common).value("item_last_id")) == "37"
    refusal = as_nobody(lambda: open_ledger(common))
    assert refusal.startswith("LedgerPathError: ")
    assert "belongs to another user" in refusal or "is read-only" in refusal
    assert common.read_bytes()[:16] == HEADER


def test_a_folder_without_rights_is_refused(common):
    """No ledger is made where this user may not write."""
    assert "no permission to write" in as_nobody(lambda: open_ledger(common.with_name("new.db"), create=True))


# -- what is made -----------------------------------------------------------------------------------------------------------------


def test_a_new_ledger_is_private_and_ours(path):
    """Only its owner can read it, its header says whose it is, and its schema is the one in schema/."""
    with contextlib.closing(open_ledger(path, create=True)) as ledger:
        found = {name: stat.S_IMODE(os.stat(name).st_mode) for name in (ledger.files.ledger, ledger.files.wal, ledger.files.turn)}
        assert set(found.values()) == {0o600}
        assert (ledger.raw.pragma("application_id"), ledger.raw.pragma("user_version")) == (APPLICATION_ID, SCHEMA_VERSION)
    assert path.read_bytes()[:16] == HEADER
    assert len(expected_schema()) == len(factory.rows(path, "SELECT * FROM sqlite_schema"))


def test_an_empty_file_becomes_a_ledger_only_for_those_who_create(path):
    """What `touch` or mktemp left is taken, by a verb that may make one."""
    path.touch()
    open_ledger(path, create=True).close()
    with contextlib.closing(open_ledger(path)) as ledger:
        assert ledger.value("item_last_id") == 0


def test_opening_changes_nothing_of_a_ledger(worked):
    """Opening and closing by the writer and by a reader leaves every row as it was."""
    before = factory.tables(worked)
    open_ledger(worked).close()
    Reader(worked).close()
    assert factory.tables(worked) == before
