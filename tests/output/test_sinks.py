from __future__ import annotations

import gzip
import io
import json
import random
import subprocess
import tracemalloc
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from durabatch.errors import OutputError, UsageError
from durabatch.output import sinks, workbook_file
from durabatch.output.columns import ColumnFinder, Kind
from durabatch.output.rows import ExportRow
from durabatch.output.sinks import GrowingSink, Sink, SinkSettings, format_of, sink, sink_names, write_rows
from durabatch.output.text_file import CsvFile, JsonLinesFile
from tests.output.reading import read_back

ROWS = [
    ExportRow("a", "succeeded", '{"n":1,"t":"=1+1","key":true,"m":[1,{"x":2}],"big":9007199254740993}'),
    ExportRow("-b", "succeeded", '{"n":-2.5,"T":"#N/A\\u0007 _x0041_","m":"text"}'),
    ExportRow("c", "succeeded", '"+5"'),
    ExportRow("d\n", "succeeded", "null"),
]
NAMES = ["csv", "db", "json", "jsonl", "parquet", "xlsx"]


def found(rows=ROWS, **options):
    finder = ColumnFinder()
    for row in rows:
        finder.add(row.value_json)
    return finder.columns(**options)


def written(path, rows=ROWS, **settings):
    name, compression = format_of(path)
    write_rows(sink(name, SinkSettings(compression=compression, **settings)), path, found(rows), rows)
    return read_back(path)


def test_columns_hold_what_the_values_are():
    """One for the value itself and one for each field, in the order in which they were met; what is of several kinds is JSON."""
    assert [(column.heading, str(column.kind)) for column in found()] == [
        ("value", "text"), ("n", "number"), ("t", "text"), ("value.key", "truth"), ("m", "json"), ("big", "big"), ("T", "text"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "null"], Kind.WHOLE), (["1", "9007199254740993"], Kind.BIG), (["9007199254740993", "0.5"], Kind.JSON),
        (["1", "0.5"], Kind.NUMBER), (["18446744073709551616"], Kind.JSON), (["true", "1"], Kind.JSON), (["null"], Kind.EMPTY), ([], Kind.EMPTY),
    ],
)  # fmt: skip
def test_no_number_is_changed_by_its_column(values, kind):
    """A column of doubles takes only whole numbers that a double holds; text of JSON takes the others."""
    assert [column.kind for column in found([ExportRow("k", "succeeded", value) for value in values])] == [kind]


def test_fields_beyond_the_most_columns_stand_together(tmp_path):
    """However many different fields values have, a table has a bounded number of columns, and nothing is left out."""
    rows = [ExportRow(f"k{n}", "succeeded", json.dumps({f"f{n}": n, f"g{n}": n})) for n in range(600)]
    read = written(tmp_path / "x.csv", rows)
    assert len(read[0]) == 1 + 1000 + 1
    assert read[599][-1] == '{"f599":599,"g599":599}'


def test_each_format_holds_the_rows(tmp_path):
    """What stands in the file, as other programs read it: types where there are types, JSON where values are nested or mixed."""
    assert written(tmp_path / "x.jsonl") == [(row.key, json.loads(row.value_json)) for row in ROWS] == written(tmp_path / "x.json")
    assert written(tmp_path / "x.csv") == [
        ("a", "", "1", "'=1+1", "true", '[1,{"x":2}]', "9007199254740993", ""),
        ("'-b", "", "-2.5", "", "", "text", "", "#N/A\a _x0041_"),
        ("c", "+5", "", "", "", "", "", ""),
        ("d\n", "", "", "", "", "", "", ""),
    ]
    typed = [
        ("a", None, 1.0, "=1+1", True, '[1,{"x":2}]', 9007199254740993, None),
        ("-b", None, -2.5, None, None, '"text"', None, "#N/A\a _x0041_"),
        ("c", "+5", *[None] * 6),
        ("d\n", *[None] * 7),
    ]
    assert written(tmp_path / "x.parquet") == written(tmp_path / "x.db") == typed


def test_a_workbook_holds_texts_as_texts(tmp_path):
    """Nothing in it is a formula, an error or an escape, whatever it looks like; a number that a spreadsheet would round is a text."""
    first, second, *_ = written(tmp_path / "x.xlsx")
    assert first == ("a", None, 1, "'=1+1", True, '[1,{"x":2}]', "9007199254740993", None)
    assert second[:2] == ("'-b", None)
    assert second[-1] == "#N/A_x0007_ _x005F_x0041_"
    assert written(tmp_path / "y.xlsx", raw_formulas=True)[0][3] == "=1+1"
    import openpyxl

    assert openpyxl.load_workbook(tmp_path / "y.xlsx").active["D2"].data_type == "s"


def test_a_text_that_no_cell_holds_is_an_error_and_leaves_nothing(tmp_path):
    """A value is never cut: the item is named, with the formats that can hold it."""
    with pytest.raises(OutputError, match=r"item 'k' has a text of 32,768 characters, a cell holds 32,767. Choose .jsonl"):
        written(tmp_path / "x.xlsx", [ExportRow("k", "succeeded", json.dumps("x" * 32768))])
    assert list(tmp_path.iterdir()) == []


def test_a_sheet_that_is_full_is_followed_by_another(tmp_path, monkeypatch):
    """Each has the heading; no row is lost."""
    monkeypatch.setattr(workbook_file, "SHEET_ROWS", 3)
    rows = [ExportRow(f"k{n}", "succeeded", str(n)) for n in range(5)]
    assert written(tmp_path / "x.xlsx", rows) == [(f"k{n}", n) for n in range(5)]


@pytest.mark.parametrize("name", [*NAMES, "csv.gz", "jsonl.zst"])
def test_the_same_rows_make_the_same_bytes(tmp_path, name):
    """No time and no chance stands in a file."""
    made = []
    for index in range(2):
        path = tmp_path / f"{index}.{name}"
        kind, compression = format_of(path)
        write_rows(sink(kind, SinkSettings(compression=compression)), path, found(), ROWS)
        made.append(path.read_bytes())
    assert made[0] == made[1]


def test_other_programs_unpack_what_is_compressed(tmp_path):
    """gzip and zstd, as their own tools read them."""
    for name, tool in (("x.jsonl.gz", "gzip"), ("x.jsonl.zst", "zstd")):
        path = tmp_path / name
        kind, compression = format_of(path)
        write_rows(sink(kind, SinkSettings(compression=compression)), path, (), ROWS)
        with path.open("rb") as packed:
            unpacked = subprocess.run([tool, "-dc"], stdin=packed, capture_output=True, check=True).stdout
        assert [json.loads(line)["key"] for line in unpacked.splitlines()] == [row.key for row in ROWS]


@pytest.mark.parametrize("made", [CsvFile, JsonLinesFile])
@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
def test_a_text_is_continued_where_it_was_cut(tmp_path, seed, made, compression):
    """However often it is cut, thrown back and continued, the bytes are those of a file that was cut at the same rows and never interrupted."""
    rng, rows = random.Random(seed), [ExportRow(f"k{n}", "succeeded", json.dumps({"n": n, "t": "x" * (n % 7)})) for n in range(40)]
    columns = found(rows)
    plain, broken = (made(SinkSettings(compression=compression)) for _ in range(2))
    plain.open(tmp_path / "plain", columns)
    broken.open(tmp_path / "broken", columns)
    offset, done = broken.cut(), plain.cut() and 0
    while done < len(rows):
        count = rng.randrange(1, 9)
        for row in rows[done : done + count]:
            broken.write(row)
        if rng.random() < 0.4:
            broken.forget()
            with (tmp_path / "broken").open("ab") as file:
                file.write(b"half")
            broken.continue_at(tmp_path / "broken", offset, columns)
            continue
        offset = broken.cut()
        for row in rows[done : done + count]:
            plain.write(row)
        assert plain.cut() == offset
        done += count
    plain.close()
    broken.close()
    assert (tmp_path / "plain").read_bytes() == (tmp_path / "broken").read_bytes()


def test_a_big_value_is_not_copied_about(tmp_path):
    """A value is written as a piece: besides it only its bytes are in memory."""
    row = ExportRow("k", "succeeded", '"' + "x" * (8 << 20) + '"')
    tracemalloc.start()
    write_rows(sink("jsonl", SinkSettings()), tmp_path / "x.jsonl", (), [row])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * (8 << 20)
    assert (tmp_path / "x.jsonl").stat().st_size > 8 << 20


def test_a_stream_is_flushed_and_left_open():
    """Standard output is not ours to close."""
    stream = io.BytesIO()
    made = sink("json", SinkSettings(members=("key", "state", "value", "attempts")))
    made.attach(stream, ())
    for row in ROWS[:2]:
        made.write(row)
    made.close()
    assert [one["state"] for one in json.loads(stream.getvalue())] == ["succeeded", "succeeded"]


def test_a_suffix_says_which_format():
    """Compression stands behind the format of a text; whatever asks for no format is a directory."""
    from pathlib import Path

    asked = {"a.JSONL": ("jsonl", ""), "a.csv.gz": ("csv", "gzip"), "a.b.sqlite": ("db", ""), "a.json.zst": ("json", "zstd")}
    asked |= dict.fromkeys(["out", "out.d", "a.parquet.gz", "a.gz", ".zst", "gz"])
    assert {name: format_of(Path(name)) for name in asked} == asked


def test_names_that_nobody_has_are_told_apart(monkeypatch):
    """Unknown, not installed, and compressed though it cannot be: one line each, exit code 2."""
    with pytest.raises(UsageError, match=r"--format: 'jsnol' is not one of csv, db, .*Did you mean 'jsonl'\?"):
        sink("jsnol", SinkSettings())
    with pytest.raises(UsageError, match="xlsx is not compressed"):
        sink("xlsx", SinkSettings(compression="gzip"))
    monkeypatch.setattr(sinks.importlib.util, "find_spec", lambda _: None)
    for name, extra in (("parquet", "parquet"), ("xlsx", "excel")):
        with pytest.raises(UsageError, match=rf"pip install 'durabatch\[{extra}\]'"):
            sink(name, SinkSettings())


class Shouting(JsonLinesFile):
    """A sink of a package."""

    def pieces(self, row):
        yield f"{row.key}!\n"


def test_a_package_brings_a_sink_by_its_suffix(tmp_path, monkeypatch):
    """Its name is the suffix of its files; one that does not work is said to be the package's fault, and names of durabatch stay ours."""
    points = EntryPoints(
        [
            EntryPoint(name, value, sinks.ENTRY_POINTS)
            for name, value in (("shout", f"{__name__}:Shouting"), ("dud", "builtins:str"), ("csv", "builtins:str"))
        ]
    )
    monkeypatch.setattr(sinks, "brought_in", lambda: points)
    monkeypatch.setattr(EntryPoint, "load", lambda self: Shouting if self.name == "shout" else str)
    assert sink_names() == [*NAMES[:2], "dud", *NAMES[2:5], "shout", "xlsx"]
    made = sink("shout", SinkSettings())
    assert isinstance(made, GrowingSink)
    write_rows(made, tmp_path / "x.shout", (), ROWS[:1])
    assert ((tmp_path / "x.shout").read_text(), format_of(tmp_path / "x.shout")) == ("a!\n", ("shout", ""))
    with pytest.raises(UsageError, match=r"'dud' \(builtins:str\) cannot be used: str lacks"):
        sink("dud", SinkSettings())
    assert isinstance(sink("csv", SinkSettings()), CsvFile)


@pytest.mark.parametrize("name", NAMES)
def test_a_writer_that_fails_leaves_what_was_there(tmp_path, name):
    """An error in the middle of the rows comes through; the old file is whole and nothing lies beside it."""
    path = tmp_path / f"x.{name}"
    write_rows(sink(name, SinkSettings()), path, found(), ROWS)
    before = path.read_bytes()

    def broken():
        yield ROWS[0]
        raise KeyError("rows")

    made = sink(name, SinkSettings())
    assert isinstance(made, Sink)
    with pytest.raises(KeyError):
        write_rows(made, path, found(), broken())
    assert (path.read_bytes(), [one.name for one in tmp_path.iterdir()]) == (before, [path.name])


def test_gzip_reads_several_members(tmp_path):
    """A file that was cut is still one stream for whoever reads it."""
    made = JsonLinesFile(SinkSettings(compression="gzip"))
    made.open(tmp_path / "x.gz", ())
    for row in ROWS:
        made.write(row)
        made.cut()
    made.close()
    assert len(gzip.decompress((tmp_path / "x.gz").read_bytes()).splitlines()) == len(ROWS)
