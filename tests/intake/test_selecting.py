import json
import random

import pytest

from durabatch.errors import UsageError
from durabatch.intake.open import open_items, open_source
from durabatch.intake.selecting import Selected, parse_range


@pytest.fixture
def numbers(tmp_path, monkeypatch):
    """A list of 1,000 lines, 1 to 1,000, with a blank line behind each, and functions that read some of them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "n.txt").write_text("".join(f"{number}\n\n" for number in range(1, 1001)))


def chosen(read, **choice):
    return [int(key) for key in read("n.txt", **choice).keys]


# -- what is taken ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parsed"), [("3:5", (3, 5)), (":5", (1, 5)), ("3:", (3, None)), ("7:7", (7, 7)), ("1:1000000000000", (1, 10**12))]
)
def test_a_range_counts_from_one(text, parsed):
    """Both ends are in it, each may be left out."""
    assert parse_range(text) == parsed


@pytest.mark.parametrize("text", ["", ":", "5", "0:3", "5:3", "a:b", "1:2:3", "-1:3", "1.5:2"])
def test_what_is_no_range_is_refused(text):
    """One line that names the option."""
    with pytest.raises(UsageError, match="--range"):
        parse_range(text)


def test_ranges_and_limits_count_items(read, numbers):
    """Not lines; beyond the end there is nothing, and what is not needed is not read."""
    assert chosen(read, range="3:5") == [3, 4, 5]
    assert chosen(read, range="999:") == [999, 1000]
    assert chosen(read, range=":2") == [1, 2]
    assert chosen(read, limit=3) == [1, 2, 3]
    assert chosen(read, range="300:", limit=2) == [300, 301]
    assert chosen(read, range="2000:3000") == []
    assert read("n.txt", range="3:5").positions == [5, 7, 9]
    with open("n.txt", "ab") as file:
        file.write(b"\xff\n")
    assert read("n.txt", limit=1000).done
    assert read("n.txt", range="1:1000").problem is None
    assert "not UTF-8" in str(read("n.txt", range="1:1001").problem)


def test_keys_are_chosen_in_the_order_of_the_source(read, numbers):
    """Every item that has one of the keys; keys that no item has are named at the end, when all others were handed on."""
    assert chosen(read, select=("700", "3", "3")) == [3, 700]
    assert read("n.txt", select=("700", "3")).done
    got = read("n.txt", select=("700", "x", "y", "3"))
    assert (got.keys, got.done) == (["3", "700"], False)
    assert str(got.problem) == "--select: no item has the key x, y"
    got = read("n.txt", select=("700",), range="1:10")
    assert str(got.problem) == "--select: no item has the key 700. Is it outside --range?"
    assert read("n.txt", select=("3", "x"), limit=1).done


def test_items_known_by_content_cannot_be_selected(tmp_path, read):
    """Their numbers are made while they are taken in."""
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n')
    assert str(read("a.jsonl", select=("1",)).problem).startswith("--select: items without a key are known by their content")


def test_a_sample_is_the_same_each_time(read, numbers):
    """In the order of the source, of what range and keys leave, before the limit; the same rows stay in it wherever they stand."""
    sample = chosen(read, sample=50)
    assert len(sample) == 50
    assert sample == sorted(sample) == chosen(read, sample=50)
    assert sample != list(range(1, 51))
    assert 300 < sum(sample) / 50 < 700
    assert set(chosen(read, sample=10)) < set(sample)
    assert chosen(read, sample=5000) == list(range(1, 1001))
    assert chosen(read, sample=50, limit=7) == sample[:7]
    assert chosen(read, sample=3, range="11:20") == [n for n in range(11, 21) if n in chosen(read, sample=3, range="11:20")]
    assert chosen(read, sample=2, select=("5", "6", "7")) == sorted(chosen(read, sample=2, select=("5", "6", "7")))
    lines = [str(number) for number in range(1, 1001)]
    random.Random(1).shuffle(lines)
    with open("n.txt", "w") as file:
        file.write("\n".join(lines))
    assert set(chosen(read, sample=50)) == set(sample)


def test_a_sample_of_bad_input_is_none(read, numbers):
    """The whole source is needed, so nothing is handed on of one that cannot be read to its end."""
    with open("n.txt", "ab") as file:
        file.write(b"\xff\n")
    got = read("n.txt", sample=3)
    assert (got.rows, got.done) == ([], False)
    assert "not UTF-8" in str(got.problem)
    assert read("n.txt", sample=1, select=("3", "x")).rows == []


# -- a source like any other --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_items", "choice"),
    [
        (1, {"range": "20:60", "select": ("50", "21")}),
        (7, {"range": "250:630", "limit": 300}),
        (300, {"select": tuple(map(str, range(5, 900, 90)))}),
    ],
)
def test_reading_goes_on_in_the_middle_of_a_choice(read, read_with_crashes, numbers, max_items, choice):
    """A crash after every page changes nothing."""
    got, again = read("n.txt", **choice), read_with_crashes("n.txt", max_items=max_items, **choice)
    assert got.rows == again.rows != []
    assert got.done
    assert again.done


def test_a_sample_is_gone_on_with(read, numbers):
    """It is drawn again, and the rows that were handed on are not handed on again."""
    rows, position, is_done = [], None, False
    while not is_done:
        pages = open_source("n.txt", sample=20, limit=15).pages(position, max_items=4, max_bytes=1 << 20)
        page = next(page for page in pages if page.rows or page.done)
        rows, position, is_done = [*rows, *page.rows], page.position, page.done
    assert rows == read("n.txt", sample=20, limit=15).rows
    assert len(rows) == 15


def test_the_end_is_a_place(read, numbers):
    """Gone on with behind the last page, there is nothing, and keys that were not met still are not."""
    for choice, problem in (
        ({"limit": 3}, None),
        ({"range": "1:3"}, None),
        ({"sample": 3}, None),
        ({"select": ("3", "x")}, "--select: no item has the key x"),
        ({"select": ("3", "700"), "range": ":10"}, "--select: no item has the key 700. Is it outside --range?"),
    ):
        source = open_source("n.txt", **choice)
        *_, last = source.pages(None, max_items=100, max_bytes=1 << 20)
        again = list(source.pages(last.position, max_items=100, max_bytes=1 << 20))
        assert [row for page in again for row in page.rows] == []
        assert (again[-1].done, again[-1].problem and str(again[-1].problem)) == (problem is None, problem)


def test_another_choice_is_another_input(read, numbers):
    """Positions and fingerprints tell; those of the same choice are the same."""
    whole, some, other = (open_source("n.txt", **choice) for choice in ({}, {"limit": 3}, {"select": ("3", "4")}))
    assert some.fingerprint() == open_source("n.txt", limit=3).fingerprint()
    assert len({json.dumps(source.fingerprint()) for source in (whole, some, other)}) == 3
    position = next(some.pages(None, max_items=2, max_bytes=1 << 20)).position
    for source in (whole, other, open_source("n.txt", limit=4)):
        with pytest.raises(UsageError):
            next(source.pages(position, max_items=2, max_bytes=1 << 20))
    position = next(whole.pages(None, max_items=2, max_bytes=1 << 20)).position
    with pytest.raises(UsageError, match="another choice of items"):
        next(some.pages(position, max_items=2, max_bytes=1 << 20))


def test_the_rest_is_that_of_the_source(tmp_path, read):
    """Description, note about keys, and whether it can be read twice."""
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n{"id": 2}\n')
    got = read("a.jsonl", limit=1)
    assert (got.source.description, got.source.key_note) == ("a.jsonl", "items are keyed by field 'id'")
    assert got.source.repeatable
    assert got.source.ready()
    once = Selected(open_items(iter(["a", "b", "c"])), range=(2, 2))
    assert not once.repeatable
    assert once.fingerprint() is None
    assert [row[0] for page in once.pages(None, max_items=9, max_bytes=99) for row in page.rows] == ["b"]


def test_who_reads_is_not_held_up(read, numbers, monkeypatch):
    """While nothing is chosen, time passes in pages without rows."""
    monkeypatch.setattr("durabatch.intake.selecting.PAGE_SECONDS", -1.0)
    pages = list(open_source("n.txt", range="999:").pages(None, max_items=100, max_bytes=1 << 20))
    assert [len(page.rows) for page in pages].count(0) >= 8
    assert sum(len(page.rows) for page in pages) == 2
    assert not any(page.done for page in pages[:-1])
