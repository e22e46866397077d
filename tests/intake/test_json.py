import json
import tracemalloc
from random import Random

import pytest

from durabatch.errors import InputError


def test_elements_are_items_known_by_number_and_key(tmp_path, read):
    """Payloads are canonical, positions count the elements, whatever lines they stand on."""
    (tmp_path / "a.json").write_text('\ufeff [\n {"id": "a",\n  "n": 1.50}, {"id": 7, "s": "],[{\\"}"},\n\n{"id":"c"}]\n', encoding="utf-8")
    got = read("a.json")
    assert got.rows == [("a", '{"id":"a","n":1.5}', 1), ("7", '{"id":7,"s":"],[{\\"}"}', 2), ("c", '{"id":"c"}', 3)]
    assert got.done
    assert got.source.key_note == "items are keyed by field 'id'"


@pytest.mark.parametrize("text", ["", " \n", "[]", " [ \n ] \n"])
def test_a_file_without_elements_is_read_to_its_end(tmp_path, read, text):
    """Nothing, or an empty array: no rows, and done, so that the caller can say so."""
    (tmp_path / "a.json").write_text(text)
    got = read("a.json")
    assert (got.rows, got.done) == ([], True)


@pytest.mark.parametrize(
    ("text", "count", "sentence"),
    [
        ('{"id": 1}\n', 0, "a.json:1: the top level is an object, not an array of items"),
        ("\n 5", 0, "a.json:2: the top level is a single value, not an array of items"),
        ('[1, 2, {"a": 1', 2, "a.json: ends in the middle (item 3)"),
        ("[1, 2", 1, "a.json: ends in the middle (item 2)"),
        ("[1, 2,", 2, "a.json: ends in the middle (item 3)"),
        ("[1,\n 2,\n]", 2, "a.json:3: an element is missing before ']' at column 1"),
        ("[1,,2]", 1, "a.json:1: an element is missing before ',' at column 4"),
        ("[,1]", 0, "a.json:1: an element is missing before ',' at column 2"),
        ('[{"a":1}\n{"b":2}]', 0, "a.json:2: a comma is missing at column 1"),
        ("[1, 2}", 1, "a.json:1: not JSON: expected ',' or ']', found '}' at column 6"),
        ("[1]\n x", 1, "a.json:2: more text after the end of the array: 'x' at column 2"),
        ('[1,\n 2, {"a":\n x}]', 2, "a.json:3: not JSON: expected value, found 'x' at column 2"),
        ('[1, {"a": 1e999}]', 1, "a.json:1: 1e999 is too large for a number at column 11. Use --numbers text to keep its text."),
        ('[{"a":1,"a":2}]', 0, 'a.json:1: key "a" stands twice in one object at column 9'),
        ('[1, "' + "x" * 999 + '"]', 1, "a.json:1: item larger than 99 bytes (--max-item-bytes)"),
        ('[1,\n "\udcff"]', 1, "a.json:2: not UTF-8 (byte 0xff at column 3). Use --encoding."),
    ],
)
def test_a_fault_is_named_with_its_place_and_what_stands_before_it_is_read(tmp_path, read, text, count, sentence):
    """Also when the array is mended elsewhere, reading goes on where it stopped."""
    path = tmp_path / "a.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    got = read("a.json", max_item_bytes=99)
    assert len(got.rows) == count
    assert isinstance(got.problem, InputError)
    assert str(got.problem).startswith(sentence)
    assert not got.done
    page = next(got.source.pages(None, max_items=100, max_bytes=1 << 20))
    again = next(got.source.pages(page.position, max_items=100, max_bytes=1 << 20))
    assert (again.rows, str(again.problem)) == ([], str(got.problem))


def test_an_object_at_the_top_points_to_the_other_format(tmp_path, read):
    """JSON lines are often called .json."""
    (tmp_path / "a.json").write_text('{"id": 1}\n{"id": 2}\n')
    assert "--format jsonl" in read("a.json").problem.hint
    assert read("a.json", format="jsonl").keys == ["1", "2"]


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_reading_goes_on_from_every_page(tmp_path, read, read_with_crashes, encoding, seed):
    """Whatever the elements, the layout, the encoding and the pages: rows are those of a whole reading."""
    random = Random(seed)
    scalars = [None, -1, 1.5, 'q"\\', "\\", "é😀", "[{,}]", [], {}, [[{"a": "]"}], {"b": {"c": [1]}}]]
    records = [{"id": n, "v": random.choices(scalars, k=random.randint(0, 4))} for n in range(random.randint(1, 30))]
    layout = random.choice([{}, {"indent": 2}, {"separators": (",", ":")}, {"ensure_ascii": False}])
    (tmp_path / "a.json").write_text(json.dumps(records, **layout), encoding=encoding)
    bounds = {"max_items": random.randint(1, 5), "max_bytes": random.choice([1, 50, 1 << 20])}
    got = read_with_crashes("a.json", encoding=encoding, **bounds)
    assert got.values == records
    assert got.keys == [str(n) for n in range(len(records))]
    assert got.rows == read("a.json", encoding=encoding).rows


@pytest.mark.parametrize("block", [1, 2, 3, 7])
def test_elements_may_be_cut_anywhere_between_two_reads(tmp_path, read, monkeypatch, block):
    """Strings, escapes and brackets that lie in two pieces are one, and an element that is too large ends where it ends."""
    monkeypatch.setattr("durabatch.intake.array_text.BLOCK_BYTES", block)
    long = {"id": 9, "s": '\\"]},' * 20, "t": [["x" * 50]], "u": "\\"}
    values = [{"id": 1, "s": 'a"\\]'}, long, {"id": 2, "v": [[], {"w": "}"}]}, long, {"id": 3}]
    (tmp_path / "a.json").write_text(json.dumps(values, indent=1))
    got = read("a.json", max_item_bytes=99, skip_bad=lambda _: True)
    assert got.problem is None
    assert list(zip(got.keys, got.positions, strict=True)) == [("1", 1), ("2", 3), ("3", 5)]


@pytest.mark.parametrize("max_items", [1, 2, 1000])
def test_bad_elements_are_left_out_on_demand(tmp_path, read, read_with_crashes, max_items):
    """Each is told of once with its place, and the ones about it are read; so it is with a crash behind every page."""
    (tmp_path / "a.json").write_text(
        '[{"id": 1}, {"id": nul},\n{"no": 1}, {"id": 2}, {"id": "%s"}, 5, {"id": 3, "id": 3}, {"id": 4}]' % ("x" * 200)
    )
    bad = []
    got = read("a.json", max_item_bytes=150, skip_bad=lambda error: not bad.append(str(error)))
    assert got.done
    assert got.keys == ["1", "2", "4"]
    assert got.positions == [1, 4, 8]
    assert bad == [
        "a.json:1: not JSON: expected ident, found '}' at column 23",
        "a.json:2: key 'id' is missing",
        "a.json:2: item larger than 150 bytes (--max-item-bytes)",
        "a.json:2: key 'id' is missing",
        'a.json:2: key "id" stands twice in one object at column 248',
    ]
    assert read_with_crashes("a.json", max_item_bytes=150, max_items=max_items, skip_bad=lambda _: True).rows == got.rows


def test_a_long_array_is_never_in_memory(tmp_path, read):
    """Megabytes on one line cost a few pieces of them, and an endless element costs its limit."""
    with open(tmp_path / "a.json", "w") as file:
        file.write("[0" + "".join(f',{{"v":"{"x" * 900}"}}' for _ in range(10_000)) + ', "' + "y" * (10 << 20))
    (tmp_path / "empty.json").write_text("[]")
    source = read("empty.json", max_item_bytes=1 << 20).source
    (tmp_path / "a.json").rename(tmp_path / "empty.json")
    tracemalloc.start()
    count = sum(len(page.rows) for page in source.pages(None, max_items=1000, max_bytes=1 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 10_001
    assert peak < 8 << 20
