import json
from random import Random

import pytest

from durabatch.errors import InputError


def write(path, *lines):
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def test_records_are_keyed_by_the_named_field(tmp_path, read):
    """Payloads are canonical: compact, whatever blanks the line has. Positions are line numbers."""
    write(tmp_path / "a.jsonl", '{ "host" : "h1", "n": 1.50 }', "", '{"host": 42}')
    got = read("a.jsonl", key="host")
    assert got.rows == [("h1", '{"host":"h1","n":1.5}', 1), ("42", '{"host":42}', 3)]
    assert got.source.key_note is None


@pytest.mark.parametrize(("record", "field"), [('{"id": 1, "key": "k"}', "key"), ('{"id": 1}', "id"), ('{"key": null, "id": 1}', "id")])
def test_a_key_field_is_chosen_by_the_first_record(tmp_path, read, record, field):
    """key goes before id, a field that cannot be a key is passed over, and a sentence says what was chosen."""
    write(tmp_path / "a.jsonl", record)
    got = read("a.jsonl")
    assert got.keys == ["k" if field == "key" else "1"]
    assert got.source.key_note == f"items are keyed by field '{field}'"


@pytest.mark.parametrize("first", ['{"name": 1}', "3", '"text"', "null", "[]"])
def test_other_items_are_known_by_content(tmp_path, read, first):
    """Without a key field the engine gives the key, also when later records have an id."""
    write(tmp_path / "a.jsonl", first, '{"id": 7}')
    got = read("a.jsonl")
    assert got.keys == [None, None]
    assert got.source.key_note is None


def test_the_chosen_field_outlives_a_crash(tmp_path, read_with_crashes):
    """Going on in the middle keeps the choice that the first record made, for a field and for none."""
    write(tmp_path / "a.jsonl", '{"id": 1}', '{"key": "k", "id": 2}', '{"key": "k", "id": 3}')
    got = read_with_crashes("a.jsonl", max_items=1)
    assert got.keys == ["1", "2", "3"]
    assert got.source.key_note == "items are keyed by field 'id'"
    write(tmp_path / "b.jsonl", "{}", '{"id": 2}')
    assert read_with_crashes("b.jsonl", max_items=1).keys == [None, None]


def test_a_dotted_key_reaches_into_objects(tmp_path, read):
    """A dot goes one object deeper, but a field with a dot in its name comes first."""
    write(tmp_path / "a.jsonl", '{"a": {"b": {"c": "deep"}}}', '{"a.b.c": "flat", "a": {"b": {"c": 1}}}')
    assert read("a.jsonl", key="a.b.c").keys == ["deep", "flat"]


def test_an_unknown_key_field_names_those_there_are(tmp_path, read):
    """The first record tells which fields there are, and which was probably meant."""
    write(tmp_path / "a.jsonl", '{"host": "h", "port": 22}')
    got = read("a.jsonl", key="hots")
    assert str(got.problem) == "key field 'hots' is missing from a.jsonl; available: host, port. Did you mean 'host'?"
    assert got.rows == []


def test_a_key_of_no_object_is_refused(tmp_path, read):
    """Values without fields cannot have a named key."""
    write(tmp_path / "a.jsonl", "5")
    assert str(read("a.jsonl", key="id").problem) == "key field 'id' is missing from a.jsonl: its first item is no object with fields"


@pytest.mark.parametrize("line", ['{"host": "x"}', "7", "[1]"])
def test_a_missing_key_is_named_with_its_line(tmp_path, read, line):
    """Later records without the key stop the reading before them."""
    write(tmp_path / "a.jsonl", '{"id": 1}', line)
    got = read("a.jsonl")
    assert got.keys == ["1"]
    assert str(got.problem) == "a.jsonl:2: key 'id' is missing"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("null", "null"),
        ('""', "empty"),
        ("true", "true"),
        ("1.5", "1.5"),
        ("[1]", "a list"),
        ('{"a": 1}', "an object"),
        (f'"{"x" * 10_000}"', "10,000 bytes"),
        ("9" * 600, "a number this long"),
    ],
)
def test_a_key_is_text_or_a_whole_number(tmp_path, read, value, kind):
    """Everything else is refused with line and kind."""
    write(tmp_path / "a.jsonl", '{"id": "é"}', f'{{"id": {value}}}')
    got = read("a.jsonl")
    assert got.keys == ["é"]
    assert str(got.problem) == f"a.jsonl:2: key 'id': a key must be text or a whole number of at most 512 bytes, not {kind}"


def test_long_and_strange_keys_within_the_rules_are_kept(tmp_path, read):
    """512 bytes, control characters, negative and big numbers are keys."""
    write(tmp_path / "a.jsonl", f'{{"id": "{"x" * 512}"}}', '{"id": "a\\nb"}', '{"id": -5}', f'{{"id": {10**30}}}')
    assert read("a.jsonl").keys == ["x" * 512, "a\nb", "-5", str(10**30)]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b'{"id": 1x}', "at column 9"),
        (b'{"id": 2', "column"),
        (b'{"id": 2, "a": NaN}', "NaN"),
        (b'{"id": 2, "a": 1e999}', "column"),
        (b'{"id": 2, "a": 1, "a": 2}', "column"),
        (b'{"id": 2, "a": "\\ud800"}', "surrogate"),
        (b'{"id": 2, "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "column"),
        (b'{"id": 2, "a": "\xff"}', "not UTF-8 (byte 0xff at column 17). Use --encoding."),
    ],
)
def test_a_bad_line_is_named_with_its_place(tmp_path, read, line, sentence):
    """Items before it are read, the error is one line, and reading goes on there once it is mended."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id":1}\n\n' + line + b'\n{"id":3}\n')
    got = read("a.jsonl")
    assert got.keys == ["1"]
    assert isinstance(got.problem, InputError)
    assert got.problem.where == "a.jsonl:3"
    assert sentence in str(got.problem)
    assert "\n" not in str(got.problem)
    page = next(got.source.pages(None, max_items=10, max_bytes=1 << 20))
    path.write_bytes(b'{"id":1}\n\n{"id":2}\n{"id":3}\n')
    assert [row[0] for row in next(got.source.pages(page.position, max_items=9, max_bytes=999)).rows] == ["2", "3"]


def test_a_last_line_cut_in_the_middle_is_an_error_there(tmp_path, read):
    """A file that ends inside a value names its last line; one that only lacks the newline is fine."""
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n{"id": 2}')
    assert read("a.jsonl").keys == ["1", "2"]
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n{"id": ')
    assert read("a.jsonl").problem.where == "a.jsonl:2"


@pytest.mark.parametrize("max_items", [1, 3])
def test_reading_goes_on_from_every_page(tmp_path, read, read_with_crashes, max_items):
    """A reading that is cut after every page gives the same rows as one in one go."""
    (tmp_path / "a.ndjson").write_bytes(b'\xef\xbb\xbf{"id":"\xc3\xa9"}\r\n\r\n' + b"".join(b'{"id":%d}\n' % n for n in range(10)))
    assert read_with_crashes("a.ndjson", max_items=max_items).rows == read("a.ndjson").rows
    assert len(read("a.ndjson").rows) == 11


@pytest.mark.parametrize("max_items", [1, 3, 1000])
def test_bad_lines_are_left_out_on_demand(tmp_path, read, read_with_crashes, max_items):
    """Also the first: the key field is then that of the first good one. So it is with a crash behind every page."""
    lines = [
        '{"no": 1}',
        '{"id": 1}',
        "{oops",
        "",
        '{"id": 2}',
        '{"id": null}',
        '{"id": 3, "a": 1e999}',
        '{"id": 4}',
        "9" * 200,
        '{"id": 5}',
    ]
    write(tmp_path / "a.jsonl", *lines)
    bad = []
    got = read("a.jsonl", key="id", max_item_bytes=150, skip_bad=lambda error: not bad.append(error.where))
    assert got.done
    assert list(zip(got.keys, got.positions, strict=True)) == [("1", 2), ("2", 5), ("4", 8), ("5", 10)]
    assert bad == ["key field 'id' is missing from a.jsonl; available", "a.jsonl:3", "a.jsonl:6", "a.jsonl:7", "a.jsonl:9"]
    again = read_with_crashes("a.jsonl", key="id", max_item_bytes=150, max_items=max_items, skip_bad=lambda _: True)
    assert again.rows == got.rows


def test_unwieldy_numbers_become_their_text_on_demand(tmp_path, read):
    """What 64 bits and doubles cannot hold is kept letter by letter; other numbers, texts and names of fields stay what they are."""
    digits = "9" * 5000
    start = '{"id": 9223372036854775808, "a": [1e999, -1e400, NaN, -Infinity, '
    line = start + digits + '], "b": 1.50, "c": -9223372036854775808, "d": "1e999"}'
    write(tmp_path / "a.jsonl", line, '{"id": "x", "1e999": 2}')
    got = read("a.jsonl", numbers="text")
    assert got.problem is None
    assert got.keys == ["9223372036854775808", "x"]
    assert got.values[0]["a"] == ["1e999", "-1e400", "NaN", "-Infinity", digits]
    assert (got.values[0]["b"], got.values[0]["c"], got.values[0]["d"]) == (1.5, -(2**63), "1e999")


@pytest.mark.parametrize("number", ["1e999", "NaN", "9" * 5000])
def test_a_number_that_cannot_be_kept_names_the_option(tmp_path, read, number):
    """The error says what would keep it."""
    write(tmp_path / "a.jsonl", f'{{"v": {number}}}')
    assert read("a.jsonl").problem.hint == "Use --numbers text to keep its text."


def test_faults_behind_numbers_that_became_text_stand_where_they_stood(tmp_path, read):
    """Columns are those of the file."""
    write(tmp_path / "a.jsonl", '{"v": [1e999, NaN], "w": x}')
    assert str(read("a.jsonl", numbers="text").problem) == "a.jsonl:1: not JSON: expected value, found 'x' at column 26"


@pytest.mark.parametrize("lines", [('{"a":[{}', "{}]}", "{},{}"), ("1,[2", "3]", "4"), ('"a', 'b"', "1"), ("1", "2,3", "[4")])
def test_lines_cannot_make_up_for_one_another(tmp_path, read, lines):
    """Lines that are JSON only together are no items, however many values they make together."""
    write(tmp_path / "a.jsonl", "0", *lines)
    got = read("a.jsonl")
    assert got.problem.where == f"a.jsonl:{3 if lines[0] == '1' else 2}"


@pytest.mark.parametrize("seed", range(20))
def test_values_read_together_are_as_read_alone(tmp_path, read, read_with_crashes, seed):
    """Random records, canonical or not, give the same rows in one page and one by one."""
    random = Random(seed)
    scalars = [None, True, 0, -1, 1.5, 1e22, 2**70, "", "a,b", 'q"\\', "é😀\u2028", "Infinity", ":", {}, [], {"k": [1, {"z": None}]}]
    records = [{"id": f"k{n}", "v": random.choices(scalars, k=random.randint(0, 4))} for n in range(60)]
    styles = [{}, {"separators": (",", ":")}, {"ensure_ascii": False}, {"ensure_ascii": False, "separators": (",", ":")}]
    write(tmp_path / "a.jsonl", *(json.dumps(record, **random.choice(styles)) for record in records))
    got = read("a.jsonl")
    assert got.values == records
    assert got.keys == [record["id"] for record in records]
    assert read_with_crashes("a.jsonl", max_items=1).rows == got.rows
