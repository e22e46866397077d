from __future__ import annotations

import json
import os

import pytest

from tests import factory

KEYS = ["number", "finished_at", "items", "failed", "done", "remaining", "result_bytes", "digest", "labels"]


def test_every_finished_batch_is_listed(finished, command):
    """A line for people and an object for scripts, with number, time, items done and remaining, bytes and digest."""
    lines = command("checkpoints").out.splitlines()
    assert lines[0].split() == ["checkpoint", "made", "items", "failed", "done", "left", "bytes", "digest", "name"]
    assert len(lines) == 5
    document = json.loads(command("checkpoints", "double:items.jsonl", "--json").out)
    assert list(document) == ["schema_version", "ledger", "run", "checkpoints"]
    points = document["checkpoints"]
    assert list(points[0]) == KEYS
    assert [one["items"] for one in points] == [10] * 4
    assert points[-1]["done"] + points[-1]["remaining"] == 40
    assert sum(one["result_bytes"] for one in points) == sum(len(f"{number * 2}.0") for number in range(40) if number % 10 != 7)
    assert len({one["digest"] for one in points}) == 4
    assert json.loads(command("checkpoints", "1", "2", "--json").out)["checkpoints"] == points[1:2]


def test_remaining_prints_the_keys_that_were_not_done(finished, command):
    """By number, by run and number, and as JSON; nothing is left behind the last checkpoint that was made."""
    points = json.loads(command("checkpoints", "--json").out)["checkpoints"]
    keys = command("checkpoints", "1", "--remaining").out.splitlines()
    assert len(keys) == points[0]["remaining"]
    assert set(keys) <= {f"r{number:02}" for number in range(10, 40)}
    assert json.loads(command("checkpoints", "double:items.jsonl", "1", "--remaining", "--json").out)["remaining"] == keys
    last = max(points, key=lambda one: (one["finished_at"], one["number"]))
    assert len(command("checkpoints", "--remaining").out.splitlines()) == last["remaining"]


def test_words_that_mean_no_checkpoint_are_refused(finished, command):
    """One line says what there is instead."""
    for words, said in (
        (("9", "--remaining"), "no checkpoint 9 in this run. It has 4 so far."),
        (("nope", "--validate"), "no checkpoint is called 'nope' in this run. None has a name."),
        (("nope",), "no run 'nope' in this ledger. There are: double:items.jsonl."),
        (("--remaining", "--mark", "a"), "--remaining does not go together with --mark. Use one at a time."),
        (("1", "2", "3"), "'3' is one word too many. Give a run and the number or name of a checkpoint."),
        (("--mark", "12"), "'12' cannot name a checkpoint. Use a word or two that are not a number."),
    ):
        done = command("checkpoints", *words)
        assert (done.code, done.out, done.err) == (2, "", f"durabatch: {said}\n")


@pytest.fixture
def halted(here, command):
    """Stand beside a run that was halted after its first batch; its ledger is the default one."""
    (here / "items.txt").write_text("".join(f"k{number}\n" for number in range(1, 13)) + "bad\nlast\n")
    done = command("run", "jobs.py:echo", "items.txt", "-j", "0", "--batch-size", "4", "--halt", "now,fail=1", "--progress", "none", "--name", "echo")
    assert done.code == 3, done.err
    return here


def test_a_mark_is_a_name_for_everything_that_takes_a_number(halted, command):
    """It is written beside a run at rest, shown in the list, and found without the run's name."""
    assert "done" in command("checkpoints", "--mark", "first", "1").out
    assert json.loads(command("checkpoints", "--json").out)["checkpoints"][0]["labels"] == ["first"]
    assert command("checkpoints", "first", "--remaining").out.splitlines() == [f"k{number}" for number in range(5, 13)] + ["bad", "last"]
    assert command("checkpoints", "echo", "first", "--validate").out == "everything up to checkpoint first is as recorded: results, counters, input files and undo entries\n"
    assert command("checkpoints", "--mark", "first", "2").err == "durabatch: checkpoint 1 is called 'first' already. Choose another name.\n"


def test_a_run_that_is_not_as_recorded_goes_on_by_force_alone(halted, command):
    """`--validate` says what differs and exits with 4, so does `resume`; `resume --force` finishes the run."""
    assert command("checkpoints", "--validate").code == 0
    factory.sabotage("durabatch.db", "UPDATE result SET value = '\"other\"' WHERE item_id = 12")
    done = command("checkpoints", "--validate", "3")
    assert done.code == 4
    assert "batch 3" in done.out
    assert "recorded, the results have" in done.out
    assert command("checkpoints", "--validate", "2").code == 0
    findings = json.loads(command("checkpoints", "--validate", "--json").out)["findings"]
    assert {(one["rule"], one["where"]) for one in findings} == {("results", "batch 3")}
    refused = command("resume", "--progress", "none")
    assert refused.code == 4
    assert "is not as it was recorded (batch 3: " in refused.err
    assert command("resume", "--progress", "none", "--force").code == 1
    assert json.loads(command("status", "--json").out)["runs"][0]["state"] == "finished"


def test_backup_makes_a_file_that_is_a_ledger(finished, command, tmp_path):
    """It is refused where a file stands, unless by force; the ledger and its side files are no place for it, nor is a directory."""
    target = tmp_path / "copy.db"
    done = command("backup", str(target), "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["bytes"] == target.stat().st_size
    assert target.stat().st_mode & 0o777 == 0o600
    assert command("verify", "--ledger", str(target)).out == command("verify").out
    assert command("results", "--ledger", str(target)).out == command("results").out
    assert command("backup", str(target)).err == f"durabatch: {target} is there already. Give another file, or --force to replace it.\n"
    assert command("backup", str(target), "--force").code == 0
    for place, said in (("durabatch.db", "is the ledger itself"), ("durabatch.db-wal", "is the ledger itself"), (str(tmp_path), "is a directory")):
        done = command("backup", place, "--force")
        assert (done.code, said in done.err) == (2, True), done.err
    assert os.listdir(tmp_path) == ["copy.db"]


def test_a_backup_that_fails_leaves_what_was_there(finished, command, tmp_path):
    """Another database's log beside the place is not played into the copy, and a place that cannot be written is named."""
    target = tmp_path / "copy.db"
    target.write_text("precious")
    (tmp_path / "copy.db-wal").write_text("x")
    done = command("backup", str(target), "--force")
    assert (done.code, "belongs to another database" in done.err) == (2, True)
    assert target.read_text() == "precious"
    done = command("backup", str(tmp_path / "none" / "copy.db"))
    assert (done.code, "does not exist" in done.err) == (2, True)
