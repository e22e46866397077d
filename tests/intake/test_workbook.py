"""Workbooks as input: written by a library, saved by a spreadsheet program, and damaged."""

import datetime
import shutil
import struct
import subprocess
import sys

import openpyxl
import pytest

import durabatch
from durabatch.errors import InputError, UsageError
from durabatch.intake import workbook
from durabatch.intake.open import open_source
from tests.intake.conftest import read_all

DAY = datetime.datetime(2026, 3, 4)


def save(path, *sheets, title="Servers"):
    """Write a workbook of one sheet for each list of rows, with formulas as text where a cell begins with =."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets):
        sheet = book.create_sheet(title if not number else f"{title} {number + 1}")
        for row in rows:
            sheet.append(row)
    book.save(path)


@pytest.fixture
def book(tmp_path, monkeypatch):
    """Give a function that writes ``book.xlsx``, in whose directory the test stands."""
    monkeypatch.chdir(tmp_path)
    return lambda *sheets: save("book.xlsx", *sheets)


def test_rows_become_objects_with_typed_values(book, read):
    """Text, numbers, booleans, dates and nothing are what they were; the source position is the row as shown by the program."""
    book(
        [
            [],
            ["host", "n", "x", "on", "day", "at", "time", "took", 2024],
            ["alpha", 3, 1.5, True, DAY, DAY.replace(hour=7, second=9), datetime.time(6, 30), datetime.timedelta(hours=30), None],
            [],
            ["beta", 2**53, 1e300, False, None, None, None, None, " b "],
        ]
    )
    got = read("book.xlsx", key="host")
    assert (got.problem, got.done, got.keys, got.positions) == (None, True, ["alpha", "beta"], [3, 5])
    assert got.values == [
        {
            "host": "alpha", "n": 3, "x": 1.5, "on": True, "day": "2026-03-04", "at": "2026-03-04T07:00:09", "time": "06:30:00",
            "took": "P1DT6H", "2024": None,
        },
        {"host": "beta", "n": 2**53, "x": 1e300, "on": False, "day": None, "at": None, "time": None, "took": None, "2024": " b "},
    ]  # fmt: skip
    assert [type(value["n"]) for value in got.values] == [int, int]


def test_keys_are_chosen_as_for_other_records(book, read):
    """A column named key or id, whole numbers included; else the content."""
    book([["n", "id"], [1, 10], [2, 20]])
    got = read("book.xlsx")
    assert (got.keys, got.source.key_note) == (["10", "20"], "items are keyed by field 'id'")
    book([["n"], [1], [2]])
    assert read("book.xlsx").keys == [None, None]


def test_a_table_that_begins_elsewhere(read, tmp_path, monkeypatch):
    """Empty rows above and columns to the left are not part of it; merged cells have their value in the first one."""
    monkeypatch.chdir(tmp_path)
    made = openpyxl.Workbook()
    for cell, value in {"C5": "host", "D5": "n", "C6": "a", "D6": 1, "C9": "both", "C11": "b", "F30": ""}.items():
        made.active[cell] = value
    made.active.merge_cells("C9:D9")
    made.active["A1"].font = openpyxl.styles.Font(bold=True)
    made.save("book.xlsx")
    got = read("book.xlsx", key="host")
    assert got.values == [{"host": "a", "n": 1}, {"host": "both", "n": None}, {"host": "b", "n": None}]
    assert got.positions == [6, 9, 11]


def test_a_sheet_by_its_name_else_the_first(book, read):
    """Sheets without cells, such as charts, do not count."""
    book([["id"], [1]], [["id"], [2]])
    assert read("book.xlsx").keys == ["1"]
    assert read("book.xlsx", sheet="Servers 2").keys == ["2"]
    made = openpyxl.load_workbook("book.xlsx")
    made.create_chartsheet("Chart", 0)
    made.save("book.xlsx")
    assert read("book.xlsx").keys == ["1"]
    assert str(read("book.xlsx", sheet="servers 2").problem) == (
        "book.xlsx has no sheet 'servers 2'; sheets: Servers, Servers 2. Did you mean 'Servers 2'?"
    )


def test_a_workbook_without_rows_gives_no_items(book, read):
    """An empty sheet, and one with a header alone."""
    for rows in ([], [["a", "b"]]):
        book(rows)
        assert (read("book.xlsx").rows, read("book.xlsx").done) == ([], True)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([[], ["a", "b", "a"], [1, 2, 3]], "book.xlsx:2: the header has two columns named 'a'"),
        ([["a", None, "b"], [1, 2, 3]], "book.xlsx:1: column B of the header has no name"),
        ([["a", " "], [1, None], [2, 5]], "book.xlsx:3: a value in column B, which has no name in the header"),
        ([["id"], [1], [1.5]], "book.xlsx:3: key 'id': a key must be text or a whole number of at most 512 bytes, not 1.5"),
        ([["id", "x"], [1, 1], [None, 2]], "book.xlsx:3: key 'id': a key must be text or a whole number of at most 512 bytes, not null"),
        ([["id", "x"], [1, 1], [2, "y" * 200]], "book.xlsx:3: item larger than 100 bytes (--max-item-bytes)"),
    ],
)
def test_what_cannot_be_an_item_is_named_with_its_row(book, read, rows, sentence):
    """The rows before it are kept, and reading stops there."""
    book(rows)
    got = read("book.xlsx", max_item_bytes=100)
    assert str(got.problem).startswith(sentence)
    assert len(got.rows) == len(rows) - 2 if rows[0] and rows[0][1:] != [None, "b"] else not got.rows
    assert not got.done


def test_a_column_that_is_not_there_is_said_with_those_that_are(book, read):
    """A misspelt key is told before any item."""
    book([["host", "os"], ["a", "b"]])
    assert str(read("book.xlsx", key="hots").problem) == (
        "key column 'hots' is missing from book.xlsx; available: host, os. Did you mean 'host'?"
    )


def test_rows_that_cannot_be_items_can_be_left_out(book, read):
    """Each is told of, and the others are read."""
    book([["id", "x"], [1, "a"], [None, "b"], [3, "y" * 200], [4, "d"]])
    errors = []
    got = read("book.xlsx", max_item_bytes=100, skip_bad=lambda error: errors.append(str(error)) or True)
    assert (got.keys, got.done, [error.split(": ")[0] for error in errors]) == (["1", "4"], True, ["book.xlsx:3", "book.xlsx:4"])


def test_reading_goes_on_behind_any_row(book, read, read_with_crashes):
    """Each row once, whatever the size of the pages, with a list behind the workbook."""
    book([["id"], *([n] if n % 3 else [] for n in range(20))])
    with open("more.txt", "w") as file:
        file.write("x\ny\n")
    whole = read("book.xlsx", "more.txt")
    assert whole.positions[-2:] == [22, 23]
    for size in (1, 7):
        assert read_with_crashes("book.xlsx", "more.txt", max_items=size).rows == whole.rows


def test_a_workbook_has_a_fingerprint_and_can_be_read_again(book):
    """So an unchanged one starts at once."""
    book([["id"], [1]])
    source = open_source(durabatch.xlsx("book.xlsx", sheet="Servers", key="id"))
    assert source.repeatable
    assert source.fingerprint()[0]["path"].endswith("book.xlsx")
    assert [read_all(source).keys, read_all(source).keys] == [["1"], ["1"]]


# -- files that are no good ---------------------------------------------------------------------------------------------------


def protected() -> bytes:
    """Return the container in which programs store a workbook that they encrypted: the names of its streams are all that counts."""
    fat = struct.pack("<128I", 0xFFFFFFFD, 0xFFFFFFFE, *[0xFFFFFFFF] * 126)
    head = struct.pack(
        "<8s16xHHHHH6xIII4xIIIII", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 0x3E, 3, 0xFFFE, 9, 6, 0, 1, 1, 4096, 0xFFFFFFFE, 0, 0xFFFFFFFE, 0
    )
    entries = b"".join(
        struct.pack(
            "<64sHBBIII16xIQQIQ",
            name.encode("utf-16-le"),
            2 * len(name) + 2,
            kind,
            1,
            0xFFFFFFFF,
            0xFFFFFFFF,
            child,
            0,
            0,
            0,
            0xFFFFFFFE,
            0,
        )
        for name, kind, child in (("Root Entry", 5, 1), ("EncryptedPackage", 2, 0xFFFFFFFF))
    )
    return (head + struct.pack("<109I", 0, *[0xFFFFFFFF] * 108)).ljust(512, b"\0") + fat + entries.ljust(512, b"\0")


def test_files_that_are_no_workbooks_are_said_to_be_none(book, read):
    """Text, a cut file, an archive of something else, one that is encrypted: one line each, and never a crash."""
    book([["id"], *([n] for n in range(100))])
    with open("book.xlsx", "rb") as file:
        whole = file.read()
    for content in (b"", b"id\n1\n", whole[:-200], whole[: len(whole) // 2], b"PK\x05\x06" + b"\0" * 18):
        with open("book.xlsx", "wb") as file:
            file.write(content)
        got = read("book.xlsx")
        assert str(got.problem).startswith("book.xlsx: is no workbook, or is damaged (")
        assert "\n" not in str(got.problem)
        assert not got.rows
    with open("book.xlsx", "wb") as file:
        file.write(protected())
    assert str(read("book.xlsx").problem) == "book.xlsx: is protected by a password. Save it without one."


def test_damage_anywhere_is_an_error_or_harmless(book, read, seed):
    """Random bytes of a real workbook changed: never anything but items or a clear error."""
    import random

    book([["id", "text"], *([n, f"text {n}"] for n in range(200))])
    with open("book.xlsx", "rb") as file:
        whole = bytearray(file.read())
    dice = random.Random(seed)
    for _ in range(40):
        broken = bytearray(whole)
        for _ in range(dice.randrange(1, 20)):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        with open("book.xlsx", "wb") as file:
            file.write(broken)
        got = read("book.xlsx")
        assert got.done or isinstance(got.problem, InputError)


def test_what_cannot_be_a_workbook_is_refused_before_anything_is_read(book, tmp_path):
    """Standard input, and a compressed one; the sheet of something else."""
    book([["id"], [1]])
    shutil.copy("book.xlsx", "book.xlsx.gz")
    (tmp_path / "list.csv").write_text("id\n1\n")
    for inputs, fields, sentence in (
        (["-"], {"format": "xlsx", "stdin": sys.stdin}, "standard input cannot be read as xlsx"),
        (["book.xlsx.gz"], {}, "book.xlsx.gz is compressed, it cannot be read as xlsx"),
        (["list.csv"], {"sheet": "x"}, "--sheet is for xlsx, the input is csv"),
    ):
        with pytest.raises(UsageError, match=sentence):
            open_source(inputs, **fields)


def test_without_the_package_one_line_says_what_to_install(book, read, monkeypatch):
    """The extra is named."""
    book([["id"], [1]])
    workbook.reader_of_workbooks.cache_clear()
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    with pytest.raises(UsageError, match=r"xlsx: the package that reads workbooks is missing. pip install 'durabatch\[excel\]'"):
        read("book.xlsx")
    workbook.reader_of_workbooks.cache_clear()


# -- a workbook saved by a spreadsheet program --------------------------------------------------------------------------------


def test_a_workbook_saved_by_libreoffice(book, read, tmp_path, not_run):
    """What it computes for formulas, and how it stores text, dates and booleans, arrives; a cell that shows an error has no value."""
    office = shutil.which("soffice")
    if office is None:
        not_run("LibreOffice is not installed")
    book([["id", "sum", "text", "day", "on", "bad"], *([n, f"=A{n + 1}*2.5", f"ä {n}", DAY, True, "=1/0"] for n in (1, 2))])
    command = [
        office,
        f"-env:UserInstallation=file://{tmp_path}/profile",
        "--headless",
        "--convert-to",
        "xlsx",
        "--outdir",
        "saved",
        "book.xlsx",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    got = read("saved/book.xlsx")
    assert (got.problem, got.keys, got.positions) == (None, ["1", "2"], [2, 3])
    values = [{name: value for name, value in row.items() if name != "bad"} for row in got.values]
    assert values == [
        {"id": 1, "sum": 2.5, "text": "ä 1", "day": "2026-03-04", "on": True},
        {"id": 2, "sum": 5, "text": "ä 2", "day": "2026-03-04", "on": True},
    ]
    assert {row["bad"] for row in got.values} == {None}
