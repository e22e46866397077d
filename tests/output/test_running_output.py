from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

import durabatch
from tests.crash.processes import eventually
from tests.output.reading import read_back
from tests.scenarios.conftest import stage  # noqa: F401 - a fixture
from tests.scenarios.stage import ended

JOBS = """
import durabatch

@durabatch.handler
def work(item):
    if item == "bad":
        raise ValueError("no")
    return {"n": len(item), "t": item}
"""
RUN = ("run", "jobs.py:work", "items.txt", "--ledger", "l.db", "--progress", "none", "-j", "1", "--batch-size", "2")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Give a directory with a handler and five items, of which one fails."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs.py").write_text(JOBS)
    (tmp_path / "items.txt").write_text("a\nbb\nbad\nccc\nd\n")
    return tmp_path


def test_a_command_is_told_of_each_batch_and_of_the_end(here, command):
    """In order, once the file of the batch is there; the end with what summary.json says. The ledger is free by then."""
    then = "cat > end.json; flock -n l.db.lock echo end >> told"
    done = command(
        *RUN, "--output", "out", "--keep-order", "--on-batch", 'wc -l < "$DURABATCH_OUTPUT_FILE" >> told; cat >> lines', "--on-end", then
    )
    assert (done.code, (here / "told").read_text().split()) == (1, ["4", "4", "3", "end"])
    assert [json.loads(line)["key"] for line in (here / "lines").read_text().splitlines()] == ["a", "bb", "bad", "ccc", "d"]
    assert json.loads((here / "end.json").read_text()) == json.loads((here / "out" / "summary.json").read_text())
    again = command(*RUN, "--output", "out")
    assert (again.code, (here / "told").read_text().split()[-1]) == (1, "end")


def test_a_command_that_fails_halts_the_run_and_is_called_again(here, command):
    """Exit code 3, and the reason names the batch; what was delivered stays so, the same command goes on with the rest."""
    fails = 'echo "$DURABATCH_BATCH" >> told; test "$DURABATCH_BATCH" != 2 -o -e mended'
    done = command(*RUN, "--output", "all.jsonl", "--keep-order", "--on-batch", fails)
    assert done.code == 3
    assert "--on-batch of batch 2: exit code 1" in done.err
    assert not (here / "all.jsonl").exists()
    (here / "mended").touch()
    assert command(*RUN, "--output", "all.jsonl", "--keep-order", "--on-batch", fails).code == 1
    assert (here / "told").read_text().split() == ["1", "2", "2", "3"]
    assert [key for key, _ in read_back(here / "all.jsonl")] == ["a", "bb", "ccc", "d"]


def test_what_a_finished_run_still_owes_is_delivered(here, command):
    """A command that was not there before is told of every batch; with a failure the run stays finished, and the call ends with 3."""
    assert command(*RUN).code == 1
    assert command(*RUN, "--on-batch", "exit 1").code == 3
    assert command(*RUN, "--on-batch", 'echo "$DURABATCH_BATCH" >> told').code == 1
    assert command(*RUN, "--on-batch", 'echo "$DURABATCH_BATCH" >> told').code == 1
    assert (here / "told").read_text().split() == ["1", "2", "3"]
    with closing(sqlite3.connect("l.db")) as ledger:
        assert ledger.execute("SELECT state, exit_code FROM run").fetchall() == [("finished", 1)]


@pytest.mark.parametrize("name", ["all.csv", "all.db", "all.xlsx"])
def test_a_file_has_what_results_prints_and_the_failures_beside_it(here, command, name):
    """Failed items are input again: when they succeed, the file has them, and the file of failures is gone."""
    assert command(*RUN, "--output", name).code == 1
    printed = [json.loads(line) for line in command("results", "--ledger", "l.db").out.splitlines()]
    read = [tuple(map(str, row[:3])) for row in read_back(here / name)]
    assert sorted(read) == sorted((one["key"], str(one["value"]["n"]), one["value"]["t"]) for one in printed if one["value"])
    assert (here / f"{name}.failures.jsonl").read_text() == '"bad"\n'
    (here / "jobs.py").write_text(JOBS.replace('"bad"', '"never"'))
    assert command("retry", "--ledger", "l.db", "--progress", "none").code == 0
    assert sorted(row[0] for row in read_back(here / name)) == ["a", "bad", "bb", "ccc", "d"]
    assert not (here / f"{name}.failures.jsonl").exists()


def test_values_are_read_when_they_are_wanted(here):
    """What a callback gets has a length, and can be read as often as one likes, then and later, in any thread."""
    kept = []
    with durabatch.Ledger("l.db") as ledger:
        ledger.run("jobs.py:work", ["a", "bb", "bad"], workers=1, batch_size=2, keep_order=True, on_batch=kept.append)
    assert [len(batch.results) for batch in kept] == [2, 1]
    assert [[one.key for one in batch.results] for batch in kept * 2] == [["a", "bb"], ["bad"]] * 2


def test_a_slow_command_never_holds_up_the_run(stage):  # noqa: F811
    """Everything is worked off while the first batch is being delivered; a signal then waits for that one call alone, and the rest comes later."""
    stage.items(f"k{n}" for n in range(6))
    stage.jobs("def work(item):\n    note('did', item)\n")
    gate = stage.gate()
    arguments = ("--batch-size", "1", "--keep-order", "--on-batch", 'echo "told $DURABATCH_BATCH" >> notes; head -c 1 gate > /dev/null')
    child = stage.run("work", *arguments)
    stage.wait_for("did", 6)
    assert stage.wait_for("told", 1) == ["1"]
    child.signal(15)
    eventually(lambda: "stopping" in child.stderr(), "the signal to be heeded")
    gate.let(1)
    ended(child, 143)
    assert stage.query("SELECT count(delivered_at_us) FROM batch") == [(1,)]
    gate.let(5)
    ended(stage.run("work", *arguments), 0)
    assert stage.noted("told") == [str(n) for n in range(1, 7)]


def test_a_command_that_hangs_is_ended_with_the_drain(stage):  # noqa: F811
    """When the time for a drain is over the command is killed with its children, and its batch is delivered another time."""
    stage.items(["k1"])
    stage.jobs("def work(item):\n    return item\n")
    stage.gate()
    child = stage.run("work", "--drain", "0.1s", "--term-grace", "0.1s", "--on-batch", "trap '' TERM; echo told >> notes; cat gate")
    stage.wait_for("told", 1)
    child.signal(15)
    assert "Traceback" not in ended(child, 143)
    stage.check_nobody_left()
    assert stage.query("SELECT count(*), count(delivered_at_us) FROM batch") == [(1, 0)]
