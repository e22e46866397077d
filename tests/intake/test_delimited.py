import csv
import json
from random import Random

import pytest


def write(path, text):
    path.write_text(text, encoding="utf-8", newline="")


def test_rows_become_objects_of_text(tmp_path, read):
    """Values stay text as they are; the named column is the key, the position the line."""
    write(tmp_path / "servers.csv", "host,port\r\nalpha,22\r\n\r\nbeta, 0022 \r\n")
    got = read("servers.csv", key="host")
    assert got.rows == [("alpha", '{"host":"alpha","port":"22"}', 2), ("beta", '{"host":"beta","port":" 0022 "}', 4)]
    assert got.done


def test_quotes_hold_delimiters_quotes_and_newlines(tmp_path, read):
    """A quoted field may span lines; the next row's position is the line in which it begins."""
    write(tmp_path / "a.csv", 'id,note\n1,"a, ""b""\nc"\n2,d\n3,"e\\\r\n"\n')
    got = read("a.csv")
    assert got.values == [{"id": "1", "note": 'a, "b"\nc'}, {"id": "2", "note": "d"}, {"id": "3", "note": "e\\\r\n"}]
    assert got.positions == [2, 4, 5]
    assert got.keys == ["1", "2", "3"]
    assert got.source.key_note == "items are keyed by field 'id'"


@pytest.mark.parametrize("value", ["%s", "100%", "back\\slash", "tab\there", "\x01", "é😀", "'", "{}"])
def test_every_value_comes_through(tmp_path, read, value):
    """The quick way to JSON gives the same as the exact one, in names of columns too."""
    write(tmp_path / "a.csv", f"a,{value}\nx,{value}\n")
    assert read("a.csv").values == [{"a": "x", value: value}]


def test_tsv_is_split_at_tabs(tmp_path, read):
    """Empty fields at the end of a row count."""
    write(tmp_path / "a.tsv", "id\tb\tc\n1\ta,b\t\n\t\t\n")
    got = read("a.tsv", key="b")
    assert got.values == [{"id": "1", "b": "a,b", "c": ""}]
    assert str(got.problem) == "a.tsv:3: key 'b': a key must be text or a whole number of at most 512 bytes, not empty"


@pytest.mark.parametrize("delimiter", [";", None])
def test_a_delimiter_is_named_or_found_out(tmp_path, read, read_with_crashes, delimiter):
    """Files of other customs are read with their own delimiter, and reading goes on with the one that was found out."""
    write(tmp_path / "a.csv", 'id;b\n1;x,y\n2;"a;b"\n3;x,y,z\n')
    got = read("a.csv", delimiter=delimiter)
    assert got.values == [{"id": "1", "b": "x,y"}, {"id": "2", "b": "a;b"}, {"id": "3", "b": "x,y,z"}]
    assert read_with_crashes("a.csv", delimiter=delimiter, max_items=1).rows == got.rows


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("a,b\n1,2\n", ","),
        ("\n\na;b\n1;2\n", ";"),
        ("a\tb\n", "\t"),
        ("a|b|c\n1|2|3\n", "|"),
        ("name;price\nx;1,50\ny;2,75\n", ";"),
        ('"a;b;c",d\n"1;2;3",4\n', ","),
        ("host\nx;y\n", ","),
        ("a;b,c\n1;2\n3;4\n", ";"),
    ],
)
def test_the_delimiter_is_the_one_that_makes_rows_as_wide_as_the_header(tmp_path, read, text, delimiter):
    """Delimiters in quotes and in single rows do not count, and a header of one column has none."""
    write(tmp_path / "a.csv", text)
    page = next(read("a.csv").source.pages(None, max_items=1, max_bytes=1 << 20))
    assert json.loads(page.position)["state"]["delimiter"] == delimiter if page.rows else page.done


def test_a_header_that_does_not_fit_the_named_delimiter_says_what_would(tmp_path, read):
    """A delimiter that was named is not doubted, but the error names the likely one."""
    sentence = "a.csv:3: the header has one column, 'a;b'; columns must be separated by ','. Use --delimiter ';'."
    write(tmp_path / "a.csv", "\n\na;b\n1;2\n")
    assert str(read("a.csv", delimiter=",").problem) == sentence
    write(tmp_path / "a.csv", "a\tb\n")
    assert read("a.csv", delimiter=",").problem.hint == "Use --format tsv."


ROWS = ("2", '2,"b"c', "2,b\0", ",b", "2,b\udcff", "x" * 30 + ",b", '2,"b\n\udcff"', '2,"b\n\0"')


@pytest.mark.parametrize("max_items", [1, 3, 1000])
@pytest.mark.parametrize("first", ["1,a", '1,"a"'])
def test_bad_rows_are_left_out_on_demand(tmp_path, read, read_with_crashes, first, max_items):
    """Each row that cannot be an item is told of once, the ones about it are read; so it is with a crash behind every page."""
    content = f"id,b\n{first}\n" + "".join(f"{row}\n{n},z\n" for n, row in enumerate(ROWS, 3))
    (tmp_path / "a.csv").write_bytes(content.encode(errors="surrogateescape"))
    bad = []
    got = read("a.csv", max_item_bytes=25, skip_bad=lambda error: not bad.append(str(error)))
    assert got.done
    assert got.keys == ["1", *map(str, range(3, 3 + len(ROWS)))]
    assert sorted(int(error.split(":")[1]) for error in bad) == [3, 5, 7, 9, 11, 13, 16, 19]
    assert read_with_crashes("a.csv", max_item_bytes=25, max_items=max_items, skip_bad=lambda _: True).rows == got.rows


def test_a_quote_that_is_never_closed_stops_always(tmp_path, read):
    """Nobody knows where the next row would begin, so nothing is left out quietly, also behind a line that cannot be read."""
    for content in (b'id,b\n1,a\n2,"b\n3,c\n', b'id,b\n1,a\n2,"\xff\n3,c\n'):
        (tmp_path / "a.csv").write_bytes(content)
        got = read("a.csv", skip_bad=lambda _: True)
        assert got.keys == ["1"]
        assert str(got.problem) == "a.csv:3: the quote that opens in this row is never closed"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,b,a\n", "a.csv:1: the header has two columns named 'a'"),
        ("a,,c\n", "a.csv:1: column 2 of the header has no name"),
        ('a,"b\n', "a.csv:1: the quote that opens in this row is never closed"),
        ("a,\0\n", "a.csv:1: it holds a NUL byte; is this a text file?"),
    ],
)
def test_a_wrong_header_is_refused(tmp_path, read, text, sentence):
    """Nothing is read below a header that cannot be right."""
    write(tmp_path / "a.csv", text)
    got = read("a.csv")
    assert got.rows == []
    assert str(got.problem) == sentence


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("2", "a.csv:3: 1 field, the header has 2"),
        ("2,b,c", "a.csv:3: 3 fields, the header has 2"),
        ('2,"b', "a.csv:3: the quote that opens in this row is never closed"),
        ('2,"b"c', "a.csv:3: text after a closing quote; a quote inside a field must be doubled"),
        ("2,b\0", "a.csv:3: it holds a NUL byte; is this a text file?"),
        ("2,b\rc", "a.csv:3: a bare carriage return; rows must end with LF or CRLF"),
        (",b", "a.csv:3: key 'id': a key must be text or a whole number of at most 512 bytes, not empty"),
        ("x" * 513 + ",b", "a.csv:3: key 'id': a key must be text or a whole number of at most 512 bytes, not 513 bytes"),
    ],
)
@pytest.mark.parametrize("first", ["1,a", '1,"a"'])
def test_a_bad_row_is_named_and_reading_goes_on_there(tmp_path, read, first, row, sentence):
    """Rows before it are read; once it is mended, reading goes on at the start of its line."""
    path = tmp_path / "a.csv"
    write(path, f"id,b\n{first}\n{row}\n9,z\n")
    got = read("a.csv")
    page = next(got.source.pages(None, max_items=10, max_bytes=1 << 20))
    assert str(page.problem) == sentence
    assert [key for key, _, _ in page.rows] == ["1"]
    write(path, f"id,b\n{first}\n2,b\n9,z\n")
    rest = next(got.source.pages(page.position, max_items=10, max_bytes=1 << 20))
    assert [key for key, _, _ in page.rows + rest.rows] == ["1", "2", "9"]


def test_an_unknown_key_column_names_those_there_are(tmp_path, read):
    """A header is enough to know, rows or not."""
    write(tmp_path / "servers.csv", "host,port\n")
    got = read("servers.csv", key="hots")
    assert str(got.problem) == "key column 'hots' is missing from servers.csv; available: host, port. Did you mean 'host'?"


def test_a_second_file_must_have_the_chosen_column(tmp_path, read):
    """One decision about keys holds for all files of a source."""
    write(tmp_path / "a.csv", "id,x\n1,a\n")
    write(tmp_path / "b.csv", "nr,x\n1,a\n")
    got = read("a.csv", "b.csv")
    assert got.keys == ["1"]
    assert str(got.problem) == "b.csv:2: key 'id' is missing; columns: nr, x"


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_row_that_is_not_utf8_is_named(tmp_path, read, quote):
    """Also inside quotes; rows before it are read."""
    (tmp_path / "a.csv").write_bytes(f"id,b\n1,{quote}a{quote}\n".encode() + b"2,b\xff\n")
    got = read("a.csv")
    assert got.keys == ["1"]
    assert str(got.problem) == "a.csv:3: not UTF-8 (byte 0xff at column 4). Use --encoding."


def test_a_broken_byte_inside_an_open_quote_stops_before_the_row(tmp_path, read):
    """The error names the broken line, the place to go on is the start of its row."""
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,b\n1,a\n2,"b\n\xff"\n')
    got = read("a.csv")
    assert got.keys == ["1"]
    assert got.problem.where == "a.csv:4"
    page = next(got.source.pages(None, max_items=10, max_bytes=1 << 20))
    path.write_bytes(b'id,b\n1,a\n2,"b\nc"\n')
    assert next(got.source.pages(page.position, max_items=10, max_bytes=1 << 20)).rows == [("2", '{"id":"2","b":"b\\nc"}', 3)]


def test_an_open_quote_does_not_swallow_the_file(tmp_path, read):
    """A quote that is never closed stops at the size of an item."""
    write(tmp_path / "a.csv", 'id,b\n1,a\n2,"b\n' + "x" * 99 + "\n" * 5000)
    got = read("a.csv", max_item_bytes=1000)
    page = next(got.source.pages(None, max_items=2, max_bytes=1 << 20))
    assert [key for key, _, _ in page.rows] == ["1"]
    assert str(page.problem) == "a.csv:3: a row larger than 1,000 bytes (--max-item-bytes); is a quote never closed?"


@pytest.mark.parametrize("max_items", [1, 2, 7])
def test_reading_goes_on_from_every_page(tmp_path, read, read_with_crashes, max_items):
    """Rows that span lines are never cut; the header is read again each time."""
    with open(tmp_path / "a.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "note"])
        writer.writerows([n, "x\ny\n" * (n % 3) + "z" * n] for n in range(20))
    got = read_with_crashes("a.csv", max_items=max_items)
    assert got.rows == read("a.csv").rows
    assert got.keys == [str(n) for n in range(20)]


def test_large_fields_are_read(tmp_path, read):
    """The limit is that of an item, not the one of the csv module."""
    write(tmp_path / "a.csv", 'id,b\n1,"' + "x" * 300_000 + '"\n')
    assert len(read("a.csv").values[0]["b"]) == 300_000


@pytest.mark.parametrize("text", ["", "\n\n", "id,b\n", "id,b\n\n  \n"])
def test_a_file_without_rows_is_read_to_its_end(tmp_path, read, text):
    """No rows, and done, so that the caller can say so."""
    write(tmp_path / "a.csv", text)
    got = read("a.csv")
    assert got.rows == []
    assert got.done


def test_one_column_is_a_table_too(tmp_path, read):
    """A single column needs no delimiter; blank lines are left out."""
    write(tmp_path / "a.csv", "host\nalpha\n\nbeta\n")
    assert read("a.csv", key="host").rows == [("alpha", '{"host":"alpha"}', 2), ("beta", '{"host":"beta"}', 4)]


def test_a_row_too_large_behind_the_header_is_met_in_its_turn(tmp_path, read, read_with_crashes):
    """Reading the header again forgets what was found further down."""
    write(tmp_path / "a.csv", "a\nx\n\n\ny\n" + "z" * 9 + "\n")
    got = read_with_crashes("a.csv", max_items=1, max_item_bytes=7)
    assert got.rows == read("a.csv", max_item_bytes=7).rows
    assert got.positions == [2, 5]
    assert str(got.problem) == "a.csv:6: item larger than 7 bytes (--max-item-bytes)"


@pytest.mark.parametrize("seed", range(60))
def test_what_the_csv_module_writes_is_what_is_read(tmp_path, read, read_with_crashes, seed):
    """Random tables come back value for value, in one go and with crashes."""
    random = Random(seed)
    columns = random.randint(2, 4)
    table = [
        ["".join(random.choices('ab,"\n\ré;\\%\t x', k=random.randint(0, 5))) for _ in range(columns)] for _ in range(random.randint(0, 12))
    ]
    with open(tmp_path / "a.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow([f"c{n}" for n in range(columns)])
        writer.writerows(table)
    got = read("a.csv")
    assert got.problem is None
    assert [list(value.values()) for value in got.values] == table
    assert read_with_crashes("a.csv", max_items=random.randint(1, 5), max_bytes=random.choice([1, 20, 1 << 20])).rows == got.rows
