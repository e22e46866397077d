"""
Results used again, through the real command: by later runs of the same ledger, inside one run, and not where they must not be.
"""

from __future__ import annotations

import json
import sys

import pytest

HANDLER = """
import pathlib
from durabatch import handler

@handler({version})
def work(item, *, factor=2):
    with open({notes!r}, "a") as file:
        file.write(item + "\\n")
    if item == "bad":
        raise ValueError("no")
    return item * factor
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Give a directory with a handler and twenty items."""
    monkeypatch.chdir(tmp_path)
    write_handler(tmp_path)
    (tmp_path / "in.txt").write_text("".join(f"line {number}\n" for number in range(20)))
    return tmp_path


def write_handler(place, version='version="1"'):
    (place / "jobs.py").write_text(HANDLER.format(version=version, notes=str(place / "notes")))
    for name in [name for name, module in sys.modules.items() if str(getattr(module, "__file__", "")).startswith(str(place))]:
        # A command is a process of its own outside of tests.
        del sys.modules[name]


def ran(place):
    """Return what ran since this was last asked."""
    notes = place / "notes"
    lines = notes.read_text().splitlines() if notes.exists() else []
    notes.unlink(missing_ok=True)
    return lines


def go(command, name, *words, code=0):
    done = command("run", "jobs.py:work", "in.txt", "--name", name, "--cache", "--workers", "1", *words)
    assert done.code == code, done.err
    return done


def values(command, name):
    return [json.loads(line) for line in command("results", name).out.splitlines()]


def test_a_second_run_asks_nobody(place, command):
    """Twenty equal items of another run: told in summary, status and attempts, with the same results, and every rule of the ledger holds."""
    go(command, "first")
    assert sorted(ran(place)) == sorted((place / "in.txt").read_text().splitlines())
    done = go(command, "second", "--output", "out")
    assert ran(place) == []
    assert "cached:  20 of 20 from the cache" in done.err
    assert values(command, "second") == values(command, "first")
    assert len(json.loads((place / "out" / "batch_0001.json").read_text())) > 0
    assert json.loads(command("status", "second", "--json").out)["runs"][0]["cached"] == 20
    assert command("attempts", "line 3", "--run", "second").out.startswith("attempt 1: succeeded from the cache (")
    assert command("verify").code == 0


def test_only_what_is_new_runs(place, command):
    """A longer input with repeats, some known, and one that fails each time."""
    go(command, "first")
    ran(place)
    (place / "in.txt").write_text("line 3\nnew\nline 7\nbad\nline 4\n")
    go(command, "second", code=1)
    assert sorted(ran(place)) == ["bad", "new"]
    go(command, "third", code=1)
    assert ran(place) == ["bad"]


@pytest.mark.parametrize("change", ["version", "code", "parameters", "age", "nothing"])
def test_what_results_depend_on_keeps_them_apart(place, command, change):
    """Another version, other code where none is declared, other parameters, too old: everything runs."""
    write_handler(place, "" if change == "code" else 'version="1"')
    go(command, "first")
    ran(place)
    words = []
    if change == "version":
        write_handler(place, 'version="2"')
    elif change == "code":
        (place / "jobs.py").write_text((place / "jobs.py").read_text() + "\n# another\n")
    elif change == "parameters":
        words = ["--param", "factor=3"]
    elif change == "age":
        words = ["--cache-ttl", "1ms"]
    go(command, "second", *words)
    assert len(ran(place)) == (0 if change == "nothing" else 20)


def test_without_the_option_every_item_runs(place, command):
    """Nothing is remembered and nothing is used."""
    for name in ("first", "second"):
        assert command("run", "jobs.py:work", "in.txt", "--name", name, "--workers", "1").code == 0
        assert len(ran(place)) == 20
    go(command, "third")
    assert len(ran(place)) == 20


def test_what_is_known_is_under_no_rate(place, command):
    """One item an hour: the known ones end, the second of two new ones waits for its hour, and the run stops at its deadline."""
    go(command, "first")
    (place / "in.txt").write_text("new\nnewer\n" + (place / "in.txt").read_text())
    go(command, "second", "--rate", "1/1h", "--deadline", "1s", "--order", "largest", code=3)
    assert len(values(command, "second")) == 21


def test_what_a_person_tries_again_runs(place, command):
    """A retry of what failed is no question to the cache as long as nothing equal succeeded."""
    (place / "in.txt").write_text("bad\ngood\n")
    go(command, "first", code=1)
    ran(place)
    assert command("retry", "first").code == 1
    assert ran(place) == ["bad"]
