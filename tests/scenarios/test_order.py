"""
The order in which items run and batches leave, in real runs.
"""

from __future__ import annotations

import json

import pytest

from tests.crash.processes import eventually

NOTING = """
def work(item):
    with open("order.txt", "a") as file:
        file.write(f"{item['key']}\\n")
    return item["key"]
"""


def in_order(place):
    return [one.key for one in place.executions()]


def files(place):
    folder = place.folder / "out"
    return sorted(path.name for path in folder.glob("batch_*.json")) if folder.exists() else []


@pytest.mark.parametrize(("order", "keys"), [("largest", [f"k{n}" for n in reversed(range(30))]), ("smallest", [f"k{n}" for n in range(30)])])
def test_an_order_other_than_input_holds_for_all_items(place, order, keys):
    """With one worker the items run by their size from the first to the last, wherever they stand in the input."""
    rows = [f"k{number} 0.{'0' * number}" for number in range(30)]
    place.items([*rows[1::2], *rows[::2]])
    child = place.run("items.txt", "--workers", "1", "--order", order)
    assert child.end() == 0, child.stderr()
    assert in_order(place) == keys


def test_a_higher_priority_runs_sooner(place):
    """Those with one come first, highest first; those without follow in input order; those below 0 are last."""
    (place.folder / "noting.py").write_text(NOTING)
    priorities = {"a": None, "b": 5, "c": -1, "d": 0, "e": 7, "f": 5, "g": "6"}
    rows = [json.dumps({"key": key, "meta": {"p": priority}}) for key, priority in priorities.items()]
    place.items(rows, name="items.jsonl")
    child = place.durabatch("run", "noting.py:work", "items.jsonl", "--ledger", "l.db", "-j", "1", "--priority", "meta.p")
    assert child.end() == 0, child.stderr()
    assert (place.folder / "order.txt").read_text().split() == ["e", "g", "b", "f", "a", "d", "c"]


def test_a_wrong_priority_is_bad_input(place):
    """In the first page nothing is written and the status is 2; the line names the field and the value."""
    (place.folder / "noting.py").write_text(NOTING)
    place.items(['{"key": "a", "p": 1}', '{"key": "b", "p": "high"}'], name="items.jsonl")
    child = place.durabatch("run", "noting.py:work", "items.jsonl", "--ledger", "l.db", "-j", "1", "--priority", "p")
    assert child.end() == 2
    assert "--priority p: 'high' is no priority" in child.stderr()
    assert not (place.folder / "order.txt").exists()


def test_with_keep_order_no_batch_leaves_before_a_lower_one(place):
    """One slow item in the first batch holds back all files; when it has ended they are all there."""
    place.items(["slow 0 gated", *(f"k{number} 0" for number in range(99))])
    child = place.run("items.txt", "--batch-size", "10", "--output", "out", "--keep-order")
    eventually(lambda: place.ledger_path.exists() and place.executions() and place.ledger.runs() and place.ledger["kill"].status().counts.succeeded >= 50, "the others")
    assert files(place) == []
    place.open_gate()
    assert child.end() == 0, child.stderr()
    assert files(place) == [f"batch_{number:04d}.json" for number in range(1, 11)]


def test_map_with_keep_order_yields_in_input_order(place):
    """The slow item is the first to come, and the others follow as they stand in the input."""
    keys = [f"k{number}" for number in range(60)]
    place.items(["slow 0 gated", *(f"{key} 0" for key in keys)])
    child = place.map(keep_order=True)
    eventually(lambda: len(place.executions()) >= 30, "the others")
    assert child.lines() == []
    place.open_gate()
    assert child.end() == 0, child.stderr()
    assert [line.split()[0] for line in child.lines()] == ["slow", *keys]
