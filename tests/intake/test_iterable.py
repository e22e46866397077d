import dataclasses
import datetime
import enum
import json
import uuid

import pydantic
import pytest

from durabatch.errors import InputError, UsageError
from durabatch.intake.open import open_items


def read(items, *, position=None, max_items=1000, max_bytes=1 << 20, **options):
    source = open_items(items, **options)
    pages = list(source.pages(position, max_items=max_items, max_bytes=max_bytes))
    return source, [row for page in pages for row in page.rows], pages[-1]


def test_text_and_whole_numbers_are_their_own_key():
    """Other plain values are known by content; positions count from 1."""
    _, rows, last = read(["a", 7, True, None, 1.5, [1], -3])
    assert rows == [
        ("a", '"a"', 1),
        ("7", "7", 2),
        (None, "true", 3),
        (None, "null", 4),
        (None, "1.5", 5),
        (None, "[1]", 6),
        ("-3", "-3", 7),
    ]
    assert last.done


class Colour(enum.StrEnum):
    RED = "red"


class Server(pydantic.BaseModel):
    id: uuid.UUID
    since: datetime.date


@dataclasses.dataclass
class Host:
    key: str
    port: int


def test_records_are_dicts_models_and_dataclasses():
    """Payloads are encoded strictly; keys are what is stored, so that a UUID is a key."""
    number = uuid.UUID(int=5)
    source, rows, _ = read([Server(id=number, since=datetime.date(2024, 1, 2)), {"id": number}, {"id": 4}])
    assert [row[0] for row in rows] == [str(number), str(number), "4"]
    assert rows[0][1] == f'{{"id":"{number}","since":"2024-01-02"}}'
    assert source.key_note == "items are keyed by field 'id'"
    assert read([Host("h", 1)])[1] == [("h", '{"key":"h","port":1}', 1)]
    assert read([{"a": {"b": 1}}], key="a.b")[1][0][0] == "1"
    assert read([Colour.RED])[1] == [("red", '"red"', 1)]


@pytest.mark.parametrize(
    ("items", "where", "sentence"),
    [
        ([1, {2}], "item 2", "set"),
        ([1, b"x"], "item 2", "bytes"),
        ([1, {"a": float("nan")}], "item 2", "$.a"),
        ([1, "\ud800"], "item 2", "surrogate"),
        ([1, ""], "item 2", "empty"),
        ([1, "x" * 513], "item 2", "513 bytes"),
        ([1, "a\0b"], "item 2", "NUL"),
        ([{"id": 1}, {"name": 2}], "item 2", "key 'id' is missing"),
        ([{"id": 1}, {"id": None}], "item 2", "null"),
        ([1, lambda: 1], "item 2", "<lambda> at $"),
    ],
)
def test_an_item_that_cannot_be_stored_is_named(items, where, sentence):
    """Items before it are read, reading stops before it."""
    _, rows, last = read(items)
    assert len(rows) == 1
    assert last.problem.where == where
    assert sentence in str(last.problem)
    assert json.loads(last.position)["count"] == 1


def test_an_item_over_the_limit_is_refused():
    """Items have a size."""
    _, _, last = read(["x" * 100], max_item_bytes=50)
    assert last.problem.where == "item 1"


def test_reading_goes_on_behind_a_count():
    """A position is the number of items to pass over, with the key field that was chosen."""
    items = [{"id": 1}, {"key": "x", "id": 2}, {"key": "y", "id": 3}]
    first = next(open_items(items).pages(None, max_items=1, max_bytes=1 << 20))
    assert json.loads(first.position) == {"count": 1, "key": "id"}
    _, rows, last = read(items, position=first.position)
    assert [(row[0], row[2]) for row in rows] == [("2", 2), ("3", 3)]
    assert read(items, position=last.position)[1] == []


def test_a_shorter_iterable_ends_early():
    """Fewer items than were read before are the caller's business, not an error here."""
    _, rows, last = read([1], position='{"count": 5}')
    assert (rows, last.done) == ([], True)


def test_an_iterator_is_read_once():
    """A second reading of a generator would silently be empty."""
    source = open_items(n for n in range(3))
    assert [len(page.rows) for page in source.pages(None, max_items=9, max_bytes=99)] == [3]
    with pytest.raises(UsageError, match="can be read only once"):
        list(source.pages(None, max_items=9, max_bytes=99))


def test_an_iterable_is_not_read_ahead():
    """Nothing is taken before it is wanted: an endless one works."""
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield len(taken)

    pages = open_items(endless()).pages(None, max_items=10_000, max_bytes=1 << 20)
    assert 1 <= len(next(pages).rows) <= 200
    assert len(taken) <= 200


def test_an_iterable_that_fails_is_a_problem():
    """What it gave before counts; its own error is the cause."""

    def failing():
        yield 1
        raise ValueError("no more")

    _, rows, last = read(failing())
    assert len(rows) == 1
    assert str(last.problem) == "generator: ended by ValueError: no more after 1 items"
    assert isinstance(last.problem.__cause__, ValueError)
    _, rows, last = read(failing(), position='{"count": 3}')
    assert isinstance(last.problem, InputError)


@pytest.mark.parametrize("items", ["items.txt", b"x", 5, None])
def test_what_is_no_collection_is_refused(items):
    """Text is surely meant as a path, and the sentence shows how to say so."""
    with pytest.raises(UsageError, match="is not a collection of items") as caught:
        open_items(items)
    assert ("durabatch.lines('items.txt')" in str(caught.value)) == (items == "items.txt")


def test_an_asynchronous_iterable_is_refused_with_a_hint():
    """Those belong to programs that await."""

    async def numbers():
        yield 1

    with pytest.raises(UsageError, match="Collect its items first"):
        open_items(numbers())


def test_pages_keep_to_their_bytes():
    """max_bytes bounds pages of values."""
    assert {len(page.rows) for page in open_items(range(5)).pages(None, max_items=9, max_bytes=1)} == {1, 0}


def test_an_iterable_has_no_fingerprint():
    """It is read again and compared."""
    source = open_items([])
    assert source.fingerprint() is None
    assert source.ready()
    assert source.description == "list"
