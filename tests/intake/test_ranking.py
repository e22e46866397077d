from __future__ import annotations

import json
import random
import time

import pytest

from durabatch.errors import InputError, UsageError
from durabatch.intake.open import open_source
from durabatch.intake.ranking import ORDERS, place_of
from durabatch.settings import RunSettings


def placed(payload, **settings):
    """Return the place of one item."""
    return place_of(RunSettings(**settings))(payload if isinstance(payload, str) else json.dumps(payload))


def file(path="a.py", size=10, mtime=1.7e9):
    return {"path": path, "bytes": size, "mtime": mtime}


def ordered(items, order):
    """Return *items* as the ledger claims them: by rank, then by input order."""
    place = place_of(RunSettings(order=order))
    return [item for _, _, item in sorted((place(json.dumps(item))[1], number, item) for number, item in enumerate(items))]


def test_plain_input_order_needs_no_places():
    """Without priority and order nothing is read from the payloads at all."""
    assert place_of(RunSettings()) is None


@pytest.mark.parametrize(
    ("item", "place"),
    [
        ({"rank": 7}, (7, 0)),
        ({"rank": -3}, (-3, 0)),
        ({"rank": "12"}, (12, 0)),
        ({"rank": " -5 "}, (-5, 0)),
        ({"rank": 5.0}, (5, 0)),
        ({"rank": 10**9}, (10**9, 0)),
        ({"rank": 0}, (0, None)),
        ({"rank": None}, (0, None)),
        ({"rank": ""}, (0, None)),
        ({"other": 1}, (0, None)),
        ({}, (0, None)),
    ],
)
def test_a_priority_is_a_whole_number_and_missing_is_0(item, place):
    """Whoever has one stands outside the input order; whoever has none stays in it."""
    assert placed(item, priority="rank") == place


def test_a_priority_may_lie_inside_another_field():
    """A dotted path leads there; a field of that very name comes first."""
    assert placed({"meta": {"rank": 4}}, priority="meta.rank") == (4, 0)
    assert placed({"meta": {"rank": 4}, "meta.rank": 9}, priority="meta.rank") == (9, 0)
    assert placed({"meta": 4}, priority="meta.rank") == (0, None)


@pytest.mark.parametrize("value", ["high", "1.5", 1.5, True, [1], {"a": 1}, 10**9 + 1, -(10**9) - 1, "10000000001", "x" * 200, "\x1b[31m", "٣"])
def test_a_wrong_priority_is_named(value):
    """One line with the field, the value, harmless and cut, and what is allowed."""
    with pytest.raises(InputError, match=r"^--priority rank: .* is no priority\. Use whole numbers from -1,000,000,000 to 1,000,000,000") as caught:
        placed({"rank": value}, priority="rank")
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("payload", ['"text"', "7", "[1]", "null"])
def test_an_item_without_fields_has_no_priority(payload):
    """A priority asked of plain lines is a mistake, and not 0 for all of them."""
    with pytest.raises(InputError, match="--priority rank: the item is no object with fields"):
        placed(payload, priority="rank")


def test_files_go_by_their_own_size_and_others_by_that_of_their_payload():
    """A file item tells the bytes of the file; a record is as large as its JSON in UTF-8."""
    assert placed(file(size=12), order="smallest") == (0, 12)
    assert placed('"abc"', order="smallest") == (0, 5)
    assert placed('"é"', order="smallest") == (0, 4)
    assert placed('{"bytes":"12","path":"a"}', order="smallest") == (0, 25)
    assert placed(file(size=12), order="largest") == (0, (1 << 40) - 12)


def test_each_order_is_the_order_that_it_says():
    """Size both ways, age both ways, and files of one suffix together, whatever its case."""
    files = [file("b.PY", 5, 1.5e9), file("c.txt", 9, 1.6e9), file("d.py", 1, 1.4e9), file("e", 7, 1.5e9 + 1e-4), file("f.txt", 9, 0)]
    assert [one["path"][0] for one in ordered(files, "smallest")] == list("dbecf")
    assert [one["path"][0] for one in ordered(files, "largest")] == list("cfebd")
    assert [one["path"][0] for one in ordered(files, "oldest")] == list("fdbec")
    assert [one["path"][0] for one in ordered(files, "newest")] == list("cebdf")
    assert "".join(one["path"][0] for one in ordered(files, "kind")) in {a + b + c for a in ("bd", "cf", "e") for b in ("bd", "cf", "e") for c in ("bd", "cf", "e")}


@pytest.mark.parametrize("order", [order for order in ORDERS if order != "input"])
def test_a_rank_is_always_a_time_that_has_passed(order, seed):
    """Whatever size and time a file claims to have, it can be claimed at once, and not before what was given back."""
    rng = random.Random(seed)
    place = place_of(RunSettings(order=order))
    odd = [0, -1, -1e300, 1e300, 1 << 70, 0.5, time.time(), time.time() + 1e9]
    for _ in range(500):
        one = file(f"x.{rng.choice('abc')}", rng.choice([*odd, rng.randrange(1 << 41)]), rng.choice([*odd, rng.uniform(0, 4e9)]))
        priority, due_at_us = place(json.dumps(one))
        assert (priority, 0 <= due_at_us <= time.time() * 1e6) == (0, True)


def test_a_place_does_not_depend_on_when_it_is_asked(monkeypatch):
    """Items taken in after a resume stand where they would have stood before it."""
    before = {order: placed(file(), order=order) for order in ORDERS if order != "input"}
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert before == {order: placed(file(), order=order) for order in ORDERS if order != "input"}


def test_priority_comes_before_order():
    """Both together: the priority in front, the rank within it, also for items without a priority."""
    assert placed({**file(size=3), "p": 2}, priority="p", order="smallest") == (2, 3)
    assert placed(file(size=3), priority="p", order="smallest") == (0, 3)


@pytest.mark.parametrize("order", ["newest", "oldest", "kind"])
@pytest.mark.parametrize("payload", ['"a line"', '{"path":"x"}', '{"path":"x","bytes":1,"mtime":true}', "[]"])
def test_orders_of_files_are_refused_for_other_items(order, payload):
    """The error names the order, shows the item, and says which orders there are."""
    with pytest.raises(InputError, match=rf"^--order {order}: the item .* is no file\. Use --format files, or the order input, smallest or largest"):
        placed(payload, order=order)


def test_an_unknown_order_is_answered_with_those_there_are():
    """With the nearest of them."""
    with pytest.raises(UsageError, match=r"--order: 'largst' is not one of input, .*, kind\. Did you mean 'largest'\?"):
        place_of(RunSettings(order="largst"))


def test_the_files_source_gives_what_the_orders_read(tmp_path, monkeypatch):
    """Items of a real directory have a place in every order."""
    monkeypatch.chdir(tmp_path)
    for name, size in (("a.txt", 3), ("b.txt", 1)):
        (tmp_path / name).write_bytes(b"x" * size)
    (page,) = open_source(["."], format="files").pages(None, max_items=10, max_bytes=1 << 20)
    ranks = {order: [place_of(RunSettings(order=order))(payload)[1] for _, payload, _ in page.rows] for order in ORDERS if order != "input"}
    assert ranks["smallest"] == [3, 1]
    assert ranks["kind"][0] == ranks["kind"][1]


def test_a_seed_decides_about_a_random_order():
    """The same seed gives the same order, another one another; all of them lie behind what was given back and before any retry."""
    payloads = [json.dumps({"n": number}) for number in range(200)]
    orders = {}
    for seed in (1, 2):
        place = place_of(RunSettings(shuf=seed))
        again = place_of(RunSettings(shuf=seed))
        places = [place(payload) for payload in payloads]
        assert places == [again(payload) for payload in payloads]
        assert all(priority == 0 and 0 < due < 36 * 365 * 86_400 * 1_000_000 for priority, due in places)
        orders[seed] = sorted(range(200), key=places.__getitem__)
    assert orders[1] != orders[2] != list(range(200)) != orders[1]


def test_a_random_order_and_another_contradict_each_other():
    """One of the two must go."""
    with pytest.raises(UsageError, match="--shuf and --order smallest contradict each other"):
        place_of(RunSettings(shuf=1, order="smallest"))
