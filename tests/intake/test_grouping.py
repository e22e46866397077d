"""``--group-by``: one item for each value of a field."""

import io
import json
import random
import subprocess
import sys
from collections import defaultdict

import pytest

import durabatch
from durabatch.errors import UsageError
from durabatch.intake.open import open_source
from tests.intake.conftest import read_all


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Give a function that writes rows to ``rows.jsonl``, where the test stands."""
    monkeypatch.chdir(tmp_path)
    return lambda *values: (tmp_path / "rows.jsonl").write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))


def read_in_pieces(inputs, *, max_items, **fields):
    """Read one page with rows at a time, each with a source that was opened anew at the position before."""
    rows, position, done = [], None, False
    while not done:
        pages = open_source(inputs, **fields).pages(position, max_items=max_items, max_bytes=1 << 20)
        page = next(page for page in pages if page.rows or page.done)
        rows, position, done = rows + page.rows, page.position, page.done
    return rows


def test_groups_come_as_their_first_members_do(rows, read):
    """The key is the value's text, the items are the payloads in input order, the position that of the first."""
    rows({"r": "north", "n": 1}, {"r": 7, "n": 2}, {"r": "north", "n": 3}, {"r": "ö", "n": 4}, {"r": "7", "n": 5}, {"r": "north", "n": 6})
    got = read("rows.jsonl", group_by="r")
    assert (got.keys, got.positions, got.done) == (["north", "7", "ö"], [1, 2, 4], True)
    assert got.values == [
        {"key": "north", "items": [{"r": "north", "n": 1}, {"r": "north", "n": 3}, {"r": "north", "n": 6}]},
        {"key": 7, "items": [{"r": 7, "n": 2}, {"r": "7", "n": 5}]},
        {"key": "ö", "items": [{"r": "ö", "n": 4}]},
    ]
    assert got.rows[1][1] == '{"key":7,"items":[{"r":7,"n":2},{"r":"7","n":5}]}'


def test_any_source_can_be_grouped(rows, read, tmp_path):
    """By a field inside a field, over several inputs, and from standard input."""
    rows({"a": {"b": "x"}}, {"a": {"b": "y"}})
    (tmp_path / "more.csv").write_text("a.b,n\nx,1\n")
    assert [len(value["items"]) for value in read("rows.jsonl", "more.csv", group_by="a.b").values] == [2, 1]
    assert read("-", format="csv", stdin=io.BytesIO(b"k,n\nx,1\nx,2\n"), group_by="k").values[0]["items"][1] == {"k": "x", "n": "2"}
    spec = durabatch.jsonl("rows.jsonl", group_by="a.b")
    assert read_all(open_source(spec)).keys == ["x", "y"]


def test_many_groups_in_any_order_are_those_of_a_dict(rows, read, seed):
    """Whatever the size of the pages, and going on behind any group."""
    dice = random.Random(seed)
    values = [{"g": dice.choice(["a", "b", f"only {n}", dice.randrange(30)]), "n": n} for n in range(1500)]
    rows(*values)
    model = defaultdict(list)
    for value in values:
        model[str(value["g"])].append(value)
    whole = read("rows.jsonl", group_by="g")
    assert dict(zip(whole.keys, (value["items"] for value in whole.values), strict=True)) == model
    assert whole.positions == sorted(whole.positions)
    assert read_in_pieces(["rows.jsonl"], max_items=97, group_by="g") == whole.rows
    pages = [page for page in open_source(["rows.jsonl"], group_by="g").pages(None, max_items=50, max_bytes=2000) if page.rows]
    assert all(sum(len(row[1]) for row in page.rows[:-1]) < 2000 for page in pages)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"n": 1}, "rows.jsonl:3: field 'r' of --group-by is missing"),
        ([1], "rows.jsonl:3: field 'r' of --group-by is missing"),
        ({"r": None}, "rows.jsonl:3: --group-by 'r': a key must be text or a whole number of at most 512 bytes, not null"),
        ({"r": 1.5}, "rows.jsonl:3: --group-by 'r': a key must be text or a whole number of at most 512 bytes, not 1.5"),
        ({"r": "x" * 600}, "rows.jsonl:3: --group-by 'r': a key must be text or a whole number of at most 512 bytes, not 600 bytes"),
    ],
)
def test_a_row_that_is_in_no_group_is_named(rows, read, value, sentence):
    """Nothing is handed out, since a group might lack members; or it is left out."""
    rows({"r": "a"}, {"r": "b"}, value, {"r": "a"})
    got = read("rows.jsonl", group_by="r")
    assert (got.rows, str(got.problem)) == ([], sentence)
    errors = []
    assert read("rows.jsonl", group_by="r", skip_bad=lambda error: errors.append(str(error)) or True).keys == ["a", "b"]
    assert errors == [sentence]


def test_bad_lines_below_are_told_before_any_group(rows, read, tmp_path):
    """The problem is that of the input."""
    (tmp_path / "rows.jsonl").write_text('{"r": 1}\n{"r": x}\n')
    got = read("rows.jsonl", group_by="r")
    assert got.rows == []
    assert got.problem.where == "rows.jsonl:2"


def test_a_group_that_is_too_large_is_named(rows, read):
    """Those before it are there; it can be left out."""
    rows({"r": "a"}, *[{"r": "b", "n": n} for n in range(20)], {"r": "c"})
    got = read("rows.jsonl", group_by="r", max_item_bytes=100)
    assert (got.keys, str(got.problem)) == (["a"], "rows.jsonl: group 'b': item larger than 100 bytes (--max-item-bytes)")
    assert read("rows.jsonl", group_by="r", max_item_bytes=100, skip_bad=lambda error: True).keys == ["a", "c"]
    size = len(read("rows.jsonl", group_by="r").rows[1][1])
    assert read("rows.jsonl", group_by="r", max_item_bytes=size).done
    assert not read("rows.jsonl", group_by="r", max_item_bytes=size - 1).done


def test_what_is_known_of_the_source_is_known_of_its_groups(rows, read):
    """Fingerprint, description, and whether it can be read again; an empty one has no groups."""
    rows({"r": "a"})
    source = open_source(["rows.jsonl"], group_by="r")
    assert source.fingerprint() == open_source(["rows.jsonl"]).fingerprint()
    assert (source.description, source.repeatable, source.ready(), source.key_note) == ("rows.jsonl", True, True, None)
    assert not open_source(["-"], stdin=io.BytesIO(), group_by="r").repeatable
    rows()
    assert (read("rows.jsonl", group_by="r").rows, read("rows.jsonl", group_by="r").done) == ([], True)
    with pytest.raises(UsageError, match="differs in kind"):
        next(source.pages('{"input": 0, "base": 0}', max_items=1, max_bytes=1))


def test_memory_does_not_grow_with_the_number_of_items(rows, tmp_path, scaled, plain_environ):
    """As many groups as items, in a process of its own."""
    count = scaled(1_000_000)
    with open(tmp_path / "big.jsonl", "w") as file:
        file.writelines(f'{{"r": {n * 7919 % count}, "text": "{"x" * 100}"}}\n' for n in range(count))
    script = """
import resource, sys
from durabatch.intake.open import open_source
for page in open_source(["small.jsonl"], group_by="r").pages(None, max_items=1000, max_bytes=1 << 20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
groups = sum(len(page.rows) for page in open_source(["big.jsonl"], group_by="r").pages(None, max_items=1000, max_bytes=1 << 20))
print(groups, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    (tmp_path / "small.jsonl").write_text('{"r": 1}\n')
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=plain_environ, capture_output=True, text=True, check=True)
    groups, grown_kib = map(int, done.stdout.split())
    assert groups == count
    assert grown_kib * 1024 < 60 << 20
