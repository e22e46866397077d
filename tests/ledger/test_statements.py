from __future__ import annotations

import contextlib
import re

import apsw
import pytest

from durabatch.ledger import statements
from tests import factory

#: Statements that look at a whole table, because they are asked for by people or by `verify`.
WHOLE_TABLE = re.compile(r"^schema_|_(recount|broken|gaps|counters|digests|inline|not_json|impossible|open|mismatch|outside_\w+|passed_by|bounds|dispatch|sum_spent|misplaced)$")
ASKED_BY_PEOPLE = {"item_list_where", "run_list", "run_list_transactions", "run_list_open_transactions", "run_id_latest", "segment_list_ids", "event_first_opened", "run_id_newest_of_series", "run_count_of_series", "control_list", "control_last"}
#: What a session with a cache asks once, and what it asks before it removes as much.
OF_THE_CACHE = {"cache_sum", "cache_list_oldest"}
#: What a coordinator asks once, when it opens a ledger.
AT_OPENING = {"undo_recover"}
#: Indexes that hold only the rows that a statement is about: to read all of one is no look at a whole table.
SMALL = re.compile(r"USING INDEX (attempt_explained|suspect_group)\b")
NAMES = sorted(statements.named())
#: Files of statements about tables that they make themselves, in databases other than a ledger.
ELSEWHERE = sorted({name.partition("_")[0] for name, text in statements.named().items() if text.startswith("CREATE TABLE")})
IN_LEDGER = [name for name in NAMES if name.partition("_")[0] not in {"schema", *ELSEWHERE}]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Give a plain connection to a ledger, for looking at plans."""
    path = tmp_path_factory.mktemp("plans") / "l.db"
    factory.worked_ledger(path)
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        yield connection


def plan_of(connection, name):
    text = statements.named()[name].replace(":where", "1")
    count = max([int(number) for number in re.findall(r"\?(\d+)", text)], default=0)
    bindings = dict.fromkeys(re.findall(r":(\w+)", text)) if ":" in text and "?1" not in text else [None] * count
    if "carray" in text:
        bindings[0] = apsw.carray(memoryview(b"\0" * 8).cast("q"))
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", bindings)]


@pytest.mark.parametrize("name", IN_LEDGER)
def test_every_statement_prepares_and_the_hot_ones_search(prepared, name):
    """A statement fits the schema, and no verb on the way of every item reads a whole table."""
    plan = plan_of(prepared, name)
    scans = [step for step in plan if re.match(r"SCAN (run|span|batch|item|attempt|suspect|segment|result|result_history|control|event|cache|cache_scope|export|exported|undo|undo_blob|undoing)\b(?! .*COVERING)", step) and not SMALL.search(step)]
    assert not scans or WHOLE_TABLE.search(name) or name in ASKED_BY_PEOPLE | OF_THE_CACHE | AT_OPENING


@pytest.mark.parametrize("stem", [stem for stem in ELSEWHERE if stem != "outfile"])
def test_every_statement_of_another_database_prepares(stem):
    """It fits the tables that are made beside it; those of an outfile follow from what is exported."""
    texts = {name: text for name, text in statements.named().items() if name.startswith(f"{stem}_")}
    with contextlib.closing(apsw.Connection(":memory:")) as connection:
        for text in sorted(texts.values(), key=lambda text: not text.startswith("CREATE TABLE")):
            if text.startswith("CREATE"):
                connection.execute(text)
        assert [plan_of(connection, name) for name, text in texts.items() if not text.startswith("CREATE")]


def test_a_statement_ends_where_the_comment_of_the_next_begins():
    """SQLite would take the rest for one more statement."""
    assert [name for name in NAMES if not statements.named()[name].endswith(";") or statements.named()[name].startswith("--")] == []


def test_statements_are_found_beside_the_package_and_inside_it(monkeypatch, tmp_path):
    """A wheel carries schema/ inside the package, a checkout beside it."""
    assert (statements.schema_dir() / "ledger.sql").exists()
    assert "CREATE TABLE run" in statements.schema_text()
    assert "CREATE VIEW v_item" in statements.schema_text()
