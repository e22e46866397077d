from __future__ import annotations

import contextlib
import re
import shutil
import subprocess

import pytest

from durabatch import errors
from durabatch.ledger import event
from durabatch.ledger.reader import Reader
from durabatch.ledger.statements import schema_text
from tests import factory

VIEWS = re.findall(r"^CREATE VIEW (\w+)", schema_text(), re.M)
TABLES = re.findall(r"^CREATE TABLE (\w+)", schema_text(), re.M)


@pytest.fixture
def reader(worked):
    """Give a reader of a worked ledger."""
    with Reader(worked) as opened:
        yield opened


def ask(reader, text, timeout_s=10.0):
    names, rows = reader.query(text, timeout_s=timeout_s)
    return names, list(rows)


def test_a_query_has_names_and_rows(reader):
    """Columns come by name, rows in order."""
    assert ask(reader, "SELECT key, state AS standing FROM v_item WHERE run = 'jobs' ORDER BY item_id LIMIT 2 OFFSET 2") == (
        ["key", "standing"],
        [("k3", "succeeded"), ("k4", "failed")],
    )


def test_a_query_without_rows_has_names(reader):
    """An empty answer is still a table."""
    assert ask(reader, "SELECT key FROM item WHERE 0") == (["key"], [])


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_can_be_asked(reader, view):
    """Views are on, since their text was found to be ours."""
    names, rows = ask(reader, f"SELECT * FROM {view}")
    assert rows
    assert len(names) == len(rows[0])


@pytest.mark.parametrize(
    "text",
    [
        "DELETE FROM item",
        "UPDATE run SET name = 'x'",
        "INSERT INTO event (kind, happened_at_us) VALUES ('x', 1)",
        "DROP TABLE item",
        "CREATE TABLE t (a)",
        "CREATE TEMP TABLE t (a)",
        "ATTACH 'other.db' AS other",
        "VACUUM",
        "VACUUM INTO 'copy.db'",
        "PRAGMA user_version = 7",
        "PRAGMA query_only = 0",
        "PRAGMA journal_mode = delete",
        "PRAGMA wal_checkpoint",
        "BEGIN IMMEDIATE",
        "SELECT load_extension('x')",
        "SELECT 1; DELETE FROM item",
        "SELECT key FROM item; DELETE FROM item",
    ],
)
def test_a_query_that_would_change_something_is_refused(reader, worked, text):
    """Exit code 2, and the ledger is as it was."""
    before = worked.read_bytes()
    with pytest.raises(errors.SqlError, match=r"read-only|sql: ") as caught:
        ask(reader, text)
    assert caught.value.exit_code == 2
    assert worked.read_bytes() == before
    assert ask(reader, "SELECT count(*) FROM item")[1] == [(37,)]


@pytest.mark.parametrize("text", ["SELEC", "SELECT no_such FROM item", "SELECT * FROM nowhere", "SELECT ?", "SELECT 'a", 'SELECT "\udcff"', "SELECT zeroblob(9999999999)"])
def test_a_wrong_query_is_an_error_of_the_users(reader, text):
    """It is the query that is wrong, not the ledger that is damaged."""
    with pytest.raises(errors.SqlError) as caught:
        ask(reader, text)
    assert caught.value.exit_code == 2


def test_a_query_that_never_ends_is_stopped(reader):
    """The deadline counts for the whole of it, also once rows have come."""
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    with pytest.raises(errors.SqlError, match=r"stopped after 0.1 s"):
        ask(reader, f"{endless} SELECT max(i) FROM n", 0.1)
    with pytest.raises(errors.SqlError, match=r"stopped after 0.1 s"):
        ask(reader, f"{endless} SELECT i FROM n WHERE i < 3 OR i < 0", 0.1)


def test_our_own_questions_are_not_held_to_the_query_before(reader):
    """A deadline that has passed, and what an ad-hoc query may not do, end with that query."""
    reader.query("SELECT key FROM item", timeout_s=0.0)
    with pytest.raises(errors.SqlError):
        ask(reader, "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n", 0.05)
    assert reader.rows("schema_integrity") == [("ok",)]
    with reader.snapshot():
        assert len(reader.rows("run_list")) == 2


def test_a_query_may_be_left_in_the_middle(reader):
    """The cursor goes with the iterator; nothing keeps the log back."""
    _, rows = reader.query("SELECT item_id FROM item ORDER BY item_id", timeout_s=5.0)
    assert next(rows) == (1,)
    rows.close()
    assert not reader.raw.in_transaction
    with reader.snapshot():
        assert reader.value("item_last_id") == 37


def test_catalogue_questions_are_allowed(reader):
    """Whoever writes a query may look at the columns."""
    assert ("key",) in ask(reader, "SELECT name FROM pragma_table_info('item')")[1]
    assert ask(reader, "PRAGMA user_version")[0] == ["user_version"]


def test_a_function_of_ours_can_be_called(reader):
    """Packed values are read through one."""
    reader.add_function("twice", lambda value: value * 2)
    assert ask(reader, "SELECT twice(21)")[1] == [(42,)]


def test_the_reader_sees_commits_of_a_writer_and_never_stops_it(path, ledger):
    """A reader that is open, and even in the middle of a query, keeps no transaction waiting."""
    with Reader(path) as reader:
        _, rows = reader.query("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 9) SELECT i FROM n, (SELECT count(*) FROM run)", timeout_s=5.0)
        next(rows)
        with ledger.transaction():
            event.record(ledger, "noted", run_id=None, now_us=1)
        assert len(list(rows)) == 8
        assert reader.raw.execute("SELECT kind FROM event").fetchall() == [("noted",)]


@pytest.mark.parametrize("state", ["at rest", "at work"])
def test_the_stock_shell_reads_tables_and_views(state, path, not_run):
    """Nothing in a ledger is newer than the SQLite of a stable Linux."""
    if shutil.which("sqlite3") is None:
        not_run("there is no sqlite3 shell on this machine")
    factory.worked_ledger(path)
    with Reader(path) if state == "at work" else contextlib.nullcontext():
        for name in (*TABLES, *VIEWS):
            done = subprocess.run(["sqlite3", "-readonly", path, f"SELECT count(*) FROM {name}"], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")
            assert int(done.stdout) > 0 or name in {"suspect", "cache", "cache_scope", "export", "exported", "undo_blob", "undoing", "mark"}
        query = "SELECT key, state, batch, attempts, value, error_type FROM v_item WHERE run = 'jobs' AND item_id IN (1, 2, 4)"
        done = subprocess.run(["sqlite3", "-readonly", path, query], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ['k1|succeeded|1|1|"k1!"|', "k2|succeeded|1|1||", "k4|failed|1|1||ValueError"]
