from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import random
import sqlite3
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import zstandard

from durabatch import errors
from durabatch.api import Ledger
from durabatch.engine.retry import Chosen, retry
from durabatch.ledger.opening import open_ledger
from tests import factory

#: What the handlers of these tests return, by key; those of other keys fail.
VALUES = {
    "a": '{"host":"web","n":1,"more":[1,{"x":null}]}',
    "b": '{"host":"=cmd|\' /C calc\'!A0","n":-2.5,"late":"-3"}',
    "c": '"@text"',
    "d": "null",
    "ü\t": '{"n":12345678901234567890,"host":"a,\\"b\\"\\n\\tc"}',
}


def answered(ledger, run, values, *, limit=100):
    """Have the next items end: with their value, or as failed where they have none."""
    made = factory.take(ledger, run, limit)
    found = [key for _, works in made.groups for _, _, key, _ in works]
    back = factory.answer(made, failing={key for key in found if key not in values})
    by_id = {item_id: key for _, works in made.groups for item_id, _, key, _ in works}
    back.inline = [(*one[:-1], values[by_id[one[0]]]) for one in back.inline]
    factory.give_back(ledger, run, back)


@pytest.fixture
def ledger(tmp_path):
    """Give an open ledger in the directory of the test."""
    with contextlib.closing(open_ledger(tmp_path / "l.db", create=True, durability="process")) as connection:
        yield connection


@pytest.fixture
def run(ledger, tmp_path):
    """Give a run of seven items, of which ``e`` has failed and ``f`` waits; the payload of each is an object."""
    made = factory.new_run(ledger)
    factory.add(ledger, made, [*VALUES, "e", "f"], complete=True, payload=lambda key: json.dumps({"id": key, "é": 1}, ensure_ascii=False))
    answered(ledger, made, VALUES, limit=6)
    return Ledger(tmp_path / "l.db")["jobs"]


def exported(run, path, **rest):
    """Export into a file and return its bytes."""
    run.export(path, **rest)
    return path.read_bytes()


def lines(data):
    return [json.loads(line) for line in data.splitlines()]


# -- formats ------------------------------------------------------------------------------------------------------------------


def test_json_lines_hold_the_stored_values_in_input_order(run, tmp_path):
    """A line is what `results` prints, byte for byte; a stream and a file get the same, and the JSON array holds the same objects."""
    data = exported(run, tmp_path / "r.jsonl")
    assert data.decode().splitlines() == [
        f'{{"key":{json.dumps(key, ensure_ascii=False)},"value":{value}}}' for key, value in VALUES.items()
    ]
    stream = io.BytesIO()
    assert run.export(stream).count == 5
    assert stream.getvalue() == data
    assert json.loads(exported(run, tmp_path / "r.json")) == lines(data)


def test_a_table_has_the_columns_of_all_values(run, tmp_path):
    """Fields of every object have a column in the order of their first sight, other values one of their own; what looks like a formula is made harmless, numbers are left."""
    rows = list(csv.reader(io.StringIO(exported(run, tmp_path / "r.csv").decode(), newline="")))
    assert rows == [
        ["key", "value", "host", "n", "more", "late"],
        ["a", "", "web", "1", '[1,{"x":null}]', ""],
        ["b", "", "'=cmd|' /C calc'!A0", "-2.5", "", "-3"],
        ["c", "'@text", "", "", "", ""],
        ["d", "", "", "", "", ""],
        ["ü\t", "", 'a,"b"\n\tc', "12345678901234567890", "", ""],
    ]
    assert b"\nb,,=cmd|' /C calc'!A0,-2.5,,-3\nc,@text" in exported(run, tmp_path / "r.csv", raw_formulas=True)


@pytest.mark.parametrize("name", ["r.json", "r.jsonl", "r.csv", "r.xlsx", "r.parquet", "r.db", "r.csv.gz", "r.json.gz", "r.jsonl.zst"])
def test_a_repeated_export_is_byte_identical(run, tmp_path, name):
    """Nothing of the time, the place or the process of writing stands in a file."""
    first = exported(run, tmp_path / name)
    (tmp_path / "other").mkdir()
    assert exported(run, tmp_path / "other" / name) == first == exported(run, tmp_path / name)


def test_other_programs_read_what_is_written(run, tmp_path):
    """Compressed text, a workbook, a parquet file and a database hold the same rows as the plain table."""
    plain = exported(run, tmp_path / "r.csv")
    assert gzip.decompress(exported(run, tmp_path / "r.csv.gz")) == plain
    assert zstandard.ZstdDecompressor().decompressobj().decompress(exported(run, tmp_path / "plain.zst", format="csv")) == plain
    with contextlib.closing(sqlite3.connect(run.export(tmp_path / "r.sqlite").output)) as other:
        table = other.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchone()[0]
        assert other.execute(f'SELECT "key", host FROM "{table}"').fetchall() == [
            ("a", "web"), ("b", "=cmd|' /C calc'!A0"), ("c", None), ("d", None), ("ü\t", 'a,"b"\n\tc')
        ]  # fmt: skip
    parquet = pytest.importorskip("pyarrow.parquet").read_table(run.export(tmp_path / "r.parquet").output)
    assert parquet.column("host").to_pylist() == ["web", "=cmd|' /C calc'!A0", None, None, 'a,"b"\n\tc']
    sheet = pytest.importorskip("openpyxl").load_workbook(run.export(tmp_path / "r.xlsx").output).active
    assert [[cell.value for cell in row][:4] for row in sheet.iter_rows(max_row=4)] == [
        ["key", "value", "host", "n"], ["a", None, "web", 1], ["b", None, "'=cmd|' /C calc'!A0", -2.5], ["c", "'@text", None, None]
    ]  # fmt: skip
    assert {cell.data_type for row in sheet.iter_rows() for cell in row} <= {"s", "n"}


# -- which items --------------------------------------------------------------------------------------------------------------


def test_other_states_are_shown_with_what_became_of_them(run, tmp_path):
    """Whoever asks for more than what succeeded gets state, error and attempts of each item; what has not ended is there, too."""
    found = lines(exported(run, tmp_path / "r.jsonl", state=("failed", "pending", "succeeded"), where="key >= 'd' AND key < 'z'"))
    assert found == [
        {"key": "d", "state": "succeeded", "value": None, "error": None, "attempts": 1},
        {"key": "e", "state": "failed", "value": None, "error": "ValueError: no", "attempts": 1},
        {"key": "f", "state": "pending", "value": None, "error": None, "attempts": 0},
    ]
    assert not (tmp_path / "r.jsonl.failures.jsonl").exists()


def test_failures_are_input_again(run, ledger, tmp_path):
    """The file beside the output holds the payloads of the failed items alone, and a run over it meets the same items; it goes away with them."""
    done = run.export(tmp_path / "r.csv")
    assert (done.count, done.failed_count, done.failures) == (5, 1, tmp_path / "r.csv.failures.jsonl")
    assert done.failures.read_text() == '{"id":"e","é":1}\n'.replace(",", ", ").replace(":", ": ")
    again = Ledger(tmp_path / "again.db")
    assert again.run(keyed, str(done.failures), name="again", workers=0).exit_code == 0
    assert [(one.key, one.value) for one in again["again"].results()] == [("e", {"id": "e", "é": 1})]
    with pytest.raises(errors.UsageError, match="output and input are the same file"):
        again["again"].export(done.failures)
    retry(ledger, run.run_id, Chosen(), now_us=factory.NOW)
    answered(ledger, factory.actives.load(ledger, run.run_id), {"e": "1", "f": "2"})
    assert (run.export(tmp_path / "r.csv").count, done.failures.exists()) == (7, False)
    assert exported(run, tmp_path / "r.csv", failures=tmp_path / "none.jsonl")
    assert (tmp_path / "none.jsonl").read_bytes() == b""


def keyed(item):
    """Return the item."""
    return item


def test_incremental_exports_hold_what_is_new(run, ledger, tmp_path):
    """The first holds everything, the next what has come since, and with nothing new the file stays as it is; failures have a memory of their own."""
    path, failures = tmp_path / "new.jsonl", tmp_path / "new.jsonl.failures.jsonl"
    assert run.export(path, incremental=True).count == 5
    before = (path.read_bytes(), path.stat().st_ino, failures.read_bytes(), failures.stat().st_ino)
    done = run.export(path, incremental=True)
    assert (done.count, done.output, done.failures) == (0, None, None)
    assert (path.read_bytes(), path.stat().st_ino, failures.read_bytes(), failures.stat().st_ino) == before
    answered(ledger, factory.actives.load(ledger, run.run_id), {"f": '"late"'})
    assert lines(exported(run, path, incremental=True)) == [{"key": "f", "value": "late"}]
    assert len(lines(exported(run, path))) == 6
    assert len(lines(exported(run, tmp_path / "other.jsonl", incremental=True))) == 6
    assert run.ledger.verify() == []


def test_a_crash_before_the_ledger_knows_loses_nothing(run, tmp_path, monkeypatch):
    """An incremental export that ends between the file and the ledger is made again, whole."""
    path = tmp_path / "new.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr("durabatch.output.export.record", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run.export(path, incremental=True)
    first = path.read_bytes()
    assert exported(run, path, incremental=True) == first


def test_an_incremental_export_brings_an_older_ledger_up_to_date(tmp_path):
    """A ledger of an earlier version remembers what was exported, like one of today; a plain export does not touch it."""
    old = tmp_path / "old.db"
    old.write_bytes((Path(__file__).parents[1] / "data" / "ledger_v2.db").read_bytes())
    before = old.read_bytes()
    newest = Ledger(old).latest()
    count = newest.export(tmp_path / "r.jsonl").count
    assert old.read_bytes() == before
    assert newest.export(tmp_path / "r.jsonl", incremental=True).count == count
    assert newest.export(tmp_path / "r.jsonl", incremental=True).output is None


# -- what goes wrong ----------------------------------------------------------------------------------------------------------


def test_damaged_values_are_left_out_and_told(tmp_path):
    """The others are exported; with states the item stands there with the error; and it counts as new until it could be read."""
    factory.worked_ledger(tmp_path / "l.db")
    factory.sabotage(tmp_path / "l.db", "UPDATE segment SET data = zeroblob(length(data)) WHERE segment_id = 1")
    run, told = Ledger(tmp_path / "l.db")["jobs"], []
    done = run.export(tmp_path / "r.jsonl", on_damage=told.append, incremental=True)
    assert (done.count, done.damaged_count, len(told)) == (22, 2, 2)
    done = run.export(tmp_path / "r.jsonl", on_damage=told.append, incremental=True)
    assert (done.count, done.damaged_count) == (0, 2)
    found = lines(exported(run, tmp_path / "all.jsonl", on_damage=told.append, state=("succeeded", "failed")))
    assert [row["key"] for row in found if "damaged" in (row["error"] or "")] == ["k2", "k3"]
    before = (tmp_path / "all.jsonl").read_bytes()
    with pytest.raises(errors.LedgerDamagedError, match="k2"):
        run.export(tmp_path / "all.jsonl")
    assert (tmp_path / "all.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "rest", "sentence"),
    [
        ("r.docx", {}, "the suffix of r.docx names no format"),
        ("r.csv", {"format": "cvs"}, "--format: 'cvs' is not one of .*Did you mean"),
        ("r.gz", {"format": "xlsx"}, "xlsx is not compressed"),
        ("l.db", {}, "l.db is the ledger"),
        ("l.db-wal", {"format": "csv"}, "l.db-wal is the ledger"),
        ("no/r.csv", {}, "its directory is not there"),
        ("", {"format": "csv"}, "is a directory"),
        ("r.csv", {"failures": "r.csv"}, "are the same file"),
        ("r.csv", {"state": "sucseeded"}, "'sucseeded' is not one of"),
        ("r.csv", {"state": ()}, "no state is named"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(run, tmp_path, monkeypatch, name, rest, sentence):
    """One line says what to do, and no file is made."""
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(errors.UsageError, match=sentence):
        run.export(tmp_path / name if name != "r.csv" else name, **rest)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_no_room_leaves_the_file_of_before(run, tmp_path, monkeypatch):
    """Whatever fails in writing: what stood there stands there still, and nothing is left beside it."""
    path = tmp_path / "r.csv"
    path.write_text("before")
    monkeypatch.setattr("durabatch.output.text_file.CsvFile.tail", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.export(path)
    assert (path.read_text(), sorted(one.name for one in tmp_path.glob(".*"))) == ("before", [])


def big(item):
    """Return 100 kB that do not compress."""
    return {"n": item, "text": random.Random(item).randbytes(50_000).hex()}


def test_values_are_never_all_in_memory(tmp_path):
    """Fifteen megabytes of results leave through a few: those of one packed frame, and a buffer."""
    ledger = Ledger(tmp_path / "l.db", durability="process")
    assert ledger.run(big, range(150), name="big", workers=0, batch_size=10).exit_code == 0
    ledger["big"].export(tmp_path / "warm.jsonl.zst")
    for name in ("r.jsonl.zst", "r.csv"):
        tracemalloc.start()
        assert ledger["big"].export(tmp_path / name).count == 150
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 6 << 20


#: The high water mark is that of this program alone: the one of getrusage knows the size of whoever started it.
EXPORTS = """
import sys
from durabatch.api import Ledger
count = Ledger("l.db").latest().export(sys.argv[1]).count
print(count, next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_memory_does_not_grow_with_the_number_of_results(ledger, tmp_path, long, plain_environ):
    """A million results (here: ten thousand) leave with less than 150 MiB at the most, the interpreter included."""
    count = 1_000_000 if long else 10_000
    made = factory.new_run(ledger)
    for start in range(0, count, 5000):
        factory.add(ledger, made, [f"k{number}" for number in range(start, start + 5000)], complete=start + 5000 >= count)
    while taken := factory.take(ledger, made, 5000, size=5000):
        factory.give_back(ledger, made, factory.answer(taken))
    environ = {**plain_environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for name in ("r.csv", "r.parquet", *(("r.jsonl", "r.db", "r.json.gz") if long else ())):
        done = subprocess.run([sys.executable, "-c", EXPORTS, name], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
        exported_count, peak_kib = map(int, done.stdout.split())
        assert (exported_count, peak_kib < 150 << 10) == (count, True), name
