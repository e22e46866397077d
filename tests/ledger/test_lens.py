"""
An old ledger as the statements and views of today see it. ``tests/test_old_ledgers.py`` has the verbs.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path

import apsw
import pytest

from durabatch import errors
from durabatch.engine.verify import verify
from durabatch.ledger import statements
from durabatch.ledger.opening import open_ledger
from durabatch.ledger.reader import Reader
from durabatch.ledger.schema import SCHEMA_VERSION, expected_schema, folded, schema_of
from tests import factory

OLD = sorted(path for path in (Path(__file__).parents[1] / "data").glob("ledger_v*.db") if int(path.stem[8:]) < SCHEMA_VERSION)
VIEWS = re.findall(r"^CREATE VIEW (\w+)", statements.schema_text(), re.M)
TABLES = re.findall(r"^CREATE TABLE (\w+)", statements.schema_text(), re.M)
#: Files of statements about tables that they make themselves, in databases other than a ledger.
ELSEWHERE = {name.partition("_")[0] for name, text in statements.named().items() if text.startswith("CREATE TABLE")}
READING = [
    name for name, text in statements.named().items() if text.startswith(("SELECT", "WITH")) and name.partition("_")[0] not in {"schema", *ELSEWHERE}
]


@pytest.fixture(params=OLD, ids=lambda path: path.stem)
def old(request, tmp_path):
    """Give a copy of an old ledger."""
    return Path(shutil.copyfile(request.param, tmp_path / "l.db"))


@pytest.fixture(scope="module", params=OLD, ids=lambda path: path.stem)
def reader(request, tmp_path_factory):
    """Give a reader of a copy of an old ledger, which no test changes."""
    with Reader(shutil.copyfile(request.param, tmp_path_factory.mktemp("lens") / "l.db")) as opened:
        yield opened


def bindings_of(name):
    """Return an empty binding for every parameter of a statement."""
    text = statements.named()[name]
    count = max([int(number) for number in re.findall(r"\?(\d+)", text)], default=0)
    given = [0] * count if count else dict.fromkeys(re.findall(r":(\w+)", text), 0)
    if "carray" in text:
        given[0] = apsw.carray(memoryview(b"\0" * 8).cast("q"))
    return given | dict.fromkeys(("item_ids", "states"), "[]") if isinstance(given, dict) else given


@pytest.mark.parametrize("table", TABLES)
def test_every_table_has_the_columns_of_today(reader, table):
    """Those that came later have their defaults, tables that came later are empty; what was there is there."""
    names, rows = reader.query(f"SELECT * FROM {table}", timeout_s=10)
    now = apsw.Connection(":memory:")
    now.execute(statements.schema_text())
    assert names == [row[1] for row in now.execute(f"PRAGMA table_info({table})")]
    found = list(rows)
    before = {name for (name,) in factory.rows(reader.files.ledger, "SELECT name FROM sqlite_schema")}
    if table in before:
        width = len(factory.rows(reader.files.ledger, f"SELECT name FROM pragma_table_info('{table}')"))
        assert [row[:width] for row in found] == factory.rows(reader.files.ledger, f"SELECT * FROM {table}")
    else:
        assert found == []


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_can_be_asked(reader, view):
    """Also those that came later, and with the columns that came later."""
    names, rows = reader.query(f"SELECT * FROM {view}", timeout_s=10)
    now = apsw.Connection(":memory:")
    now.execute(statements.schema_text())
    assert names == [row[1] for row in now.execute(f"PRAGMA table_info({view})")]
    assert len(list(rows)) >= (view not in {"v_control", "v_result_history", "v_undo"})


@pytest.mark.parametrize("name", READING)
def test_every_statement_that_reads_runs(reader, name, monkeypatch):
    """No verb needs to know of versions."""
    text = reader.sql[name].replace(":where", "1")
    monkeypatch.setattr(reader, "sql", {**reader.sql, name: text})
    given = bindings_of(name)
    assert isinstance(reader.rows(name, {} if ":" not in text and isinstance(given, dict) else given), list)


def test_looking_changes_nothing(old):
    """Not a byte, and nobody can."""
    before = old.read_bytes()
    with Reader(old) as reader:
        assert verify(reader) == []
        with pytest.raises(errors.SqlError):
            reader.query("DELETE FROM suspect", timeout_s=10)
        with pytest.raises(errors.LedgerError):
            reader.execute("suspect_add_death", (1, 1))
    assert old.read_bytes() == before


def test_it_becomes_what_a_new_one_is(old):
    """Opened for writing it is migrated: the same schema to the word, the rows of before, every rule holds, and a copy is beside it."""
    before = factory.tables(old)
    version = factory.rows(old, "PRAGMA user_version")[0][0]
    with contextlib.closing(open_ledger(old)) as ledger:
        assert folded(schema_of(ledger.raw)) == folded(expected_schema())
        assert verify(ledger) == []
    after = factory.tables(old)
    for name, rows in before.items():
        assert [row[: len(rows[0])] for row in after[name]] == rows
    assert factory.tables(f"{old}.v{version}.bak") == before


@pytest.mark.parametrize(
    "change",
    [
        ["CREATE TRIGGER t AFTER INSERT ON item BEGIN DELETE FROM result; END"],
        ["CREATE VIEW v_odd AS SELECT 1"],
        ["CREATE TABLE odd (a)"],
        ["DROP VIEW v_item"],
        ["DROP INDEX item_due"],
        ["ALTER TABLE run ADD COLUMN undo_count TEXT"],
        ["ALTER TABLE item ADD COLUMN odd TEXT"],
        ["CREATE VIRTUAL TABLE odd USING fts5(a)"],
        ["PRAGMA writable_schema = 1", "UPDATE sqlite_schema SET sql = sql || '; ATTACH ''x.db'' AS x' WHERE name = 'span'"],
        ["PRAGMA writable_schema = 1", "UPDATE sqlite_schema SET sql = replace(sql, 'UNIQUE', '/* UNIQUE */') WHERE name = 'span'"],
        ["PRAGMA writable_schema = 1", "UPDATE sqlite_schema SET sql = x'00ff' WHERE name = 'v_item'"],
    ],
    ids=lambda change: change[-1][:40],
)
def test_an_old_ledger_that_is_not_ours_is_refused(old, change):
    """What its schema says is known before it is touched, for reading and for writing."""
    factory.sabotage(old, *change)
    before = old.read_bytes()
    for opening in (Reader, open_ledger):
        with pytest.raises(errors.LedgerDamagedError):
            opening(old)
    assert old.read_bytes() == before
    assert not [path for path in old.parent.iterdir() if path.suffix == ".bak"]


def test_a_view_of_an_old_ledger_is_never_used(old):
    """Those of the file are off, whatever they say; the one that answers is ours."""
    factory.sabotage(old, "DROP VIEW v_run", "CREATE VIEW v_run AS SELECT 'odd' AS name")
    with Reader(old) as reader:
        _, rows = reader.query("SELECT name FROM v_run", timeout_s=10)
        assert "odd" not in [row[0] for row in rows]
        with pytest.raises(errors.SqlError):
            reader.query("SELECT name FROM main.v_run", timeout_s=10)
    with contextlib.closing(open_ledger(old)) as ledger:
        assert folded(schema_of(ledger.raw)) == folded(expected_schema())


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("CREATE TABLE t (a INTEGER, -- why\n    b TEXT)", "CREATE TABLE t(a INTEGER,b TEXT)", True),
        ("CREATE TABLE t (a /* x */ TEXT)", "CREATE TABLE t (a TEXT)", True),
        ("CREATE TABLE t (a DEFAULT '-- no comment')", "CREATE TABLE t (a DEFAULT '--  no comment')", False),
        ("CREATE TABLE t (a DEFAULT 'it''s')", "CREATE TABLE t (a DEFAULT 'it' 's')", False),
        ('CREATE TABLE t (a "b c")', "CREATE TABLE t (a b c)", False),
        ("CREATE TABLE t (a b)", "CREATE TABLE t (ab)", False),
        ("CREATE TABLE t (a CHECK (a < -1))", "CREATE TABLE t (a CHECK (a < - 1))", True),
        ("CREATE TABLE t ([a--b] TEXT)", "CREATE TABLE t ([a", False),
    ],
)
def test_texts_are_compared_by_their_words(one, other, same):
    """Comments and white space do not count, everything in quotes does."""
    assert (folded({"t": one}) == folded({"t": other})) is same
