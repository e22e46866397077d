"""
The same command again, with another input: what is seen, what is refused, and what each answer does.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import pytest

import durabatch

JOBS = """
import durabatch

def work(item, *, times: int = 2):
    if item.get("bad"):
        raise ValueError("no")
    return item["n"] * times

def echo(item):
    return item
"""


@pytest.fixture
def here(tmp_path, monkeypatch, command):
    """Give the command, in an empty directory with handlers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "jobs.py").write_text(JOBS)
    return command


def write(rows: list[dict], name: str = "items.jsonl") -> None:
    """Write an input."""
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def rows(count: int) -> list[dict]:
    """Return rows with the keys r0, r1 ..."""
    return [{"id": f"r{number}", "n": number} for number in range(count)]


def results(here, *words: str) -> dict:
    """Return value by key."""
    return {one["key"]: one["value"] for one in map(json.loads, here("results", *words).out.splitlines())}


def run(here, *words: str):
    """Run ``work`` over ``items.jsonl``, without worker processes."""
    return here("run", "jobs.py:work", "items.jsonl", "-j", "0", *words)


def edit(text: str) -> None:
    """Write the handlers anew, and forget what was imported of them, as a new process has."""
    Path("jobs.py").write_text(text)
    for name in [name for name, module in sys.modules.items() if getattr(module, "__file__", None) == os.path.abspath("jobs.py")]:
        del sys.modules[name]


@pytest.fixture
def changed(here):
    """Give the command after ten items have run and the input has changed: r3 and r7 differ, r5 is gone, two are new at the top."""
    write(rows(10))
    assert run(here).code == 0
    new = [{"id": "top1", "n": 100}, {"id": "top2", "n": 200}, *rows(10)]
    new[5]["n"], new[9]["n"] = 33, 77
    write([row for row in new if row["id"] != "r5"])
    return here


OLD = {f"r{number}": number * 2 for number in range(10)}
MERGED = {**OLD, "r3": 66, "r7": 154, "top1": 200, "top2": 400}


def test_a_changed_input_is_refused_and_shown(changed):
    """Kinds, numbers and keys stand on one screen with the choices; nothing was run and nothing changed."""
    done = run(changed)
    assert done.code == 2
    assert "2 changed (r3, r7), 2 new (top1, top2), 1 gone (r5), 7 same. Nothing was run. Say --on-change merge" in done.err
    assert results(changed) == OLD


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("ledger", OLD), ("merge", MERGED), ("source", {key: value for key, value in MERGED.items() if key != "r5"})],
)
def test_each_choice_does_what_it_says(changed, choice, expected):
    """The results are those, the earlier ones of what ran again are history, and the exit code is that of a success."""
    assert run(changed, "--on-change", choice).code == 0
    assert results(changed) == expected
    history = changed("sql", "SELECT key, value, cause FROM v_result_history ORDER BY key", "--json")
    kept = [tuple(row.values()) if isinstance(row, dict) else tuple(row) for row in json.loads(history.out)["rows"]]
    moved = {"ledger": [], "merge": [("r3", "6", "changed"), ("r7", "14", "changed")]}
    assert kept == moved.get(choice, [("r3", "6", "changed"), ("r5", "10", "gone"), ("r7", "14", "changed")])
    again = run(changed, *(["--on-change", "ledger"] if choice == "ledger" else []))
    assert again.code == 0
    assert "nothing to do" in again.err
    assert changed("verify").code == 0


def test_source_after_merge_takes_out_what_merge_has_kept(changed):
    """Ledger and source are equal then, though the input is the same as at the merge."""
    assert run(changed, "--on-change", "merge").code == 0
    assert run(changed, "--on-change", "source").code == 0
    assert "r5" not in results(changed)
    assert json.loads(changed("status", "--json").out)["runs"][0]["gone"] == 1


def test_what_comes_back_runs_again(changed):
    """An item that was gone, and stands in the input again, is new."""
    assert run(changed, "--on-change", "source").code == 0
    write(rows(10))
    done = run(changed, "--on-change", "source")
    assert done.code == 0
    assert results(changed) == OLD
    assert json.loads(changed("status", "--json").out)["runs"][0]["gone"] == 2


def test_the_plan_as_data(changed):
    """`plan --json` has the numbers; it writes nothing and takes no lock."""
    before = Path("durabatch.db").read_bytes()
    done = changed("plan", "jobs.py:work", "items.jsonl", "--json")
    assert done.code == 0
    plan = json.loads(done.out)
    assert plan["counts"] == {"new": 2, "changed": 2, "gone": 1, "same": 7, "failed": 0, "unfinished": 0, "done": 10}
    assert plan["keys"] == {"new": ["top1", "top2"], "changed": ["r3", "r7"], "gone": ["r5"]}
    assert plan["needs_choice"] is True
    assert Path("durabatch.db").read_bytes() == before
    assert changed("run", "jobs.py:work", "items.jsonl", "--dry-run").out == changed("plan", "jobs.py:work", "items.jsonl").out


def test_an_edited_plan_is_applied_exactly(changed):
    """Add one of two, keep a changed one, cancel another that is the same, redo what is gone: just that happens."""
    assert changed("plan", "jobs.py:work", "items.jsonl", "--output", "plan.csv").code == 0
    with open("plan.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert [(row["action"], row["key"], row["status"]) for row in found] == [
        ("add", "top1", "new"), ("add", "top2", "new"), ("redo", "r3", "changed"), ("redo", "r7", "changed"), ("keep", "r5", "gone"),
    ]  # fmt: skip
    actions = {"top2": "keep", "r3": "keep", "r5": "redo"}
    with open("plan.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows({**row, "action": actions.get(row["key"], row["action"])} for row in found)
    assert run(changed, "--on-change", "plan.csv").code == 0
    assert results(changed) == {**OLD, "r7": 154, "top1": 200}
    attempts = json.loads(
        changed("sql", "SELECT key, attempts FROM v_item WHERE attempts > 0 AND last_outcome = 'succeeded'", "--json").out
    )
    assert attempts["rows"]


def test_a_plan_that_no_longer_fits_is_refused_row_by_row(changed):
    """Each row that does not fit is named with its line; nothing was changed."""
    assert changed("plan", "jobs.py:work", "items.jsonl", "--output", "plan.csv").code == 0
    with open("plan.csv", "a") as file:
        file.write("add,never,new,99,\n")
    write([{"id": "top1", "n": 101}, *rows(10)])
    done = run(changed, "--on-change", "plan.csv")
    assert done.code == 2
    assert "plan.csv" in done.err
    assert "'never'" in done.err
    assert "top1" in done.err
    assert results(changed) == OLD


def test_rows_without_keys_are_known_by_their_content(here):
    """Five rows inserted at the top are five new ones, equal rows are items of their own, and all others stay."""
    write([{"n": number % 4} for number in range(12)])
    assert run(here).code == 0
    write([*({"n": 50 + number} for number in range(5)), *({"n": number % 4} for number in range(12))])
    done = run(here)
    assert done.code == 2
    assert "0 changed, 5 new" in done.err
    assert "0 gone, 12 same" in done.err
    assert run(here, "--on-change", "merge").code == 0
    assert sorted(results(here).values()) == sorted([number % 4 * 2 for number in range(12)] + [(50 + number) * 2 for number in range(5)])
    assert set(results(here)) == {str(number) for number in range(1, 18)}


def test_a_touched_or_reordered_input_is_the_same(here):
    """What counts are the items, not the file's time nor the order of its rows."""
    write(rows(10))
    assert run(here).code == 0
    os.utime("items.jsonl", (1, 1))
    assert "nothing to do" in run(here).err
    write(rows(10)[::-1])
    assert "nothing to do" in run(here).err


def test_lines_that_were_appended_run_under_merge(here):
    """A finished run takes just those."""
    write(rows(10))
    assert run(here).code == 0
    write(rows(13))
    assert run(here).code == 2
    done = run(here, "--on-change", "merge")
    assert done.code == 0
    assert "10 done" in done.err
    assert len(results(here)) == 13


def test_an_unknown_choice_is_refused(here):
    """With the nearest word."""
    write(rows(3))
    done = run(here, "--on-change", "merg")
    assert done.code == 2
    assert "--on-change: 'merg' is none of ledger, merge, source, and no file. Did you mean 'merge'?" in done.err


def test_another_version_of_the_handler_makes_finished_items_changed(here):
    """Refused until told; then every finished item runs again. Edited code alone is said, and the run goes on."""
    write(rows(4))
    assert run(here).code == 0
    edit(JOBS.replace("* times", "* times + 1"))
    done = run(here)
    assert done.code == 0
    assert "the handler's code has changed; finished items keep their results" in done.err
    edit(JOBS.replace("def work", "@durabatch.handler(version=2)\ndef work").replace("* times", "* times + 1"))
    done = run(here)
    assert done.code == 2
    assert "the handler's version was not declared and is '2': finished items count as changed" in done.err
    assert here("resume").code == 2
    assert run(here, "--on-change", "merge").code == 0
    assert results(here) == {f"r{number}": number * 2 + 1 for number in range(4)}
    assert "nothing to do" in run(here).err


def test_other_parameters_are_said(here):
    """They change results of what is left, so a person must know."""
    write([*rows(3), {"id": "bad", "bad": True}])
    assert run(here).code == 1
    done = run(here, "--param", "times=5", "--retry-failed")
    assert "its parameters have changed (times); finished items keep their results" in done.err


def test_everything_from_an_item_on_runs_again(here):
    """Whatever had become of it; what stands before stays."""
    write([*rows(6)[:2], {"id": "bad", "bad": True}, *rows(6)[2:]])
    assert run(here).code == 1
    done = run(here, "--from-item", "r3")
    assert "from item r3 on 3 items run again" in done.err
    attempts = {one["key"]: one["attempts"] for one in json.loads(here("items", "--json").out)["items"]}
    assert attempts["bad"] == 1
    counts = here("sql", "SELECT key, count(*) AS tries FROM v_attempt GROUP BY key ORDER BY key", "--json")
    tries = dict(tuple(row.values()) if isinstance(row, dict) else tuple(row) for row in json.loads(counts.out)["rows"])
    assert tries == {"r0": 1, "r1": 1, "bad": 1, "r2": 1, "r3": 2, "r4": 2, "r5": 2}
    assert "from batch 1 on 7 items run again" in run(here, "--from-batch", "1").err
    assert run(here, "--from-item", "nothing").code == 2
    assert run(here, "--from-batch", "9").code == 2


def test_unfinished_items_before_the_chosen_one_are_named_and_left(here):
    """The run halts with 3 then, and an ordinary start does them."""
    write([{"id": "bad", "bad": True}, *rows(6)])
    assert run(here, "--canary", "1").code == 3
    done = run(here, "--from-item", "r4")
    assert done.code == 3
    assert "4 unfinished items before item r4 are left as they are (r0, r1, r2, r3)" in done.err
    assert set(results(here)) == {"r4", "r5"}
    assert run(here).code == 1
    assert set(results(here)) == {f"r{number}" for number in range(6)}


def test_a_directory_is_compared_each_time(here, tmp_path):
    """A file that was added is refused until told; the same files start at once."""
    (tmp_path / "in").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "in" / name).write_text(name)
    words = ("run", "jobs.py:echo", "in", "-j", "0")
    assert here(*words).code == 0
    assert "nothing to do" in here(*words).err
    (tmp_path / "in" / "c.txt").write_text("c")
    assert "1 new (in/c.txt), 0 gone, 2 same" in here(*words).err
    assert here(*words, "--on-change", "source").code == 0
    assert set(results(here)) == {"in/a.txt", "in/b.txt", "in/c.txt"}


def double(item):
    """Twice the item."""
    return item * 2


def test_iterables_are_matched_from_the_start(tmp_path):
    """A generator can be read once: what it gives is compared as it comes, and brought in line in the same reading."""
    ledger = durabatch.Ledger(tmp_path / "l.db")
    assert ledger.run(double, (n for n in range(5)), workers=0).counts.succeeded == 5
    assert ledger.run(double, (n for n in range(5)), workers=0).executed == 0
    with pytest.raises(durabatch.InputChangedError, match="1 new"):
        ledger.run(double, (n for n in range(6)), workers=0)
    assert ledger.run(double, (n for n in range(1, 7)), workers=0, on_change="source").counts.succeeded == 6
    assert {one.key for one in ledger["double"].items(state="succeeded")} == {"1", "2", "3", "4", "5", "6"}
    plan = ledger.plan(double, range(1, 8))
    assert (plan.counts["new"], plan.counts["gone"], plan.keys["new"]) == (1, 0, ["7"])


class Stops:
    """An iterable that ends with an error after so many items, the first time."""

    def __init__(self, count: int, broken_at: int) -> None:
        self.count = count
        self.broken_at: int | None = broken_at

    def __iter__(self):
        for number in range(self.count):
            if number == self.broken_at:
                self.broken_at = None
                raise OSError("the line is dead")
            yield number


def test_the_rest_of_an_unfinished_intake_is_no_change(tmp_path):
    """Input that ended by an error is incomplete, exit 3; the same call reads it again from the start and takes in what is missing."""
    ledger = durabatch.Ledger(tmp_path / "l.db")
    items = Stops(3000, broken_at=2500)
    first = ledger.run(double, items, workers=0)
    assert (first.exit_code, first.counts.total) == (3, 2500)
    assert "ended by OSError: the line is dead after 2,500 items" in (first.status.reason or "")
    second = ledger.run(double, items, workers=0)
    assert (second.exit_code, second.counts.succeeded, second.executed) == (0, 3000, 500)


def test_a_refused_version_takes_nothing_in(here, tmp_path):
    """Where the intake was cut off, too: what follows waits until somebody has said what to do."""
    ledger = durabatch.Ledger(tmp_path / "l.db")
    ledger.run("jobs:echo", Stops(900, broken_at=500), name="cut", workers=0)
    edit(JOBS.replace("def echo", "@durabatch.handler(version=2)\ndef echo"))
    with pytest.raises(durabatch.InputChangedError, match="was started with another handler"):
        ledger.run("jobs:echo", range(900), name="cut", workers=0)
    assert ledger["cut"].status().counts.total == 500
    assert ledger.run("jobs:echo", range(900), name="cut", workers=0, on_change="merge").counts.succeeded == 900


def test_an_intake_that_turns_out_to_have_ended_closes_its_last_batch(tmp_path):
    """Everything known had been done when the input broke off; the next call finds that there is no more, and delivers the batch that was open."""
    ledger = durabatch.Ledger(tmp_path / "l.db")
    assert ledger.run(double, Stops(900, broken_at=500), workers=0, batch_size=300).exit_code == 3
    batches: list[tuple[int, int]] = []
    done = ledger.run(
        double,
        range(500),
        workers=0,
        batch_size=300,
        on_change="merge",
        on_batch=lambda one: batches.append((one.number, len(one.results))),
    )
    assert (done.exit_code, done.counts.succeeded, batches[-1]) == (0, 500, (2, 200))
    assert ledger.verify() == []


@pytest.mark.parametrize(
    ("how", "values"),
    [("first", {"a": 1, "b": 2, "c": 4}), ("last", {"a": 3, "b": 2, "c": 5}), ("keep", {"a": 1, "b": 2, "a#2": 3, "c": 4, "c#2": 5})],
)
def test_keys_that_come_again(here, how, values):
    """The first counts, the last does, or both are kept; the same command again finds nothing to do, also when it has to compare."""
    write([{"id": key, "n": number} for number, key in enumerate("abacc", 1)])
    refused = run(here)
    assert refused.code == 2
    assert "items.jsonl:3: key 'a' was already on line 1" in refused.err
    assert not Path("durabatch.db").exists()
    assert run(here, "--dedupe", how, "--param", "times=1").code == 0
    assert results(here) == values
    os.utime("items.jsonl", (1, 1))
    assert "nothing to do" in run(here, "--dedupe", how, "--param", "times=1").err
    status = json.loads(here("status", "--json").out)["runs"][0]
    assert status["duplicate_count"] == (0 if how == "keep" else 2)


def test_bad_lines_are_left_out_and_counted(here):
    """Their number stands in the status, each of the first ones in the events; the file may be mended later."""
    Path("items.jsonl").write_text('{"id": "a", "n": 1}\n{"id": \n{"n": 2}\n{"id": "b", "n": 3}\n')
    assert run(here).code == 2
    done = run(here, "--on-bad-input", "skip")
    assert done.code == 0
    assert results(here) == {"a": 2, "b": 6}
    assert json.loads(here("status", "--json").out)["runs"][0]["bad_input_count"] == 2
    assert "2 lines" in done.err
    assert "nothing to do" in run(here, "--on-bad-input", "skip").err


def test_resume_ends_what_the_ledger_holds(here):
    """Without its standard input a run whose intake was cut off is finished as far as it is known, and says so with 3."""
    ledger = durabatch.Ledger("durabatch.db")
    ledger.run("jobs:echo", Stops(3000, broken_at=2500), name="cut", workers=0)
    done = here("resume", "cut", "-j", "0")
    assert done.code == 3
    assert "intake is incomplete" in json.loads(here("status", "cut", "--json").out)["runs"][0]["reason"]


def test_the_plan_of_a_new_run(here):
    """Its first page, or with --full all of it, with what its ledger will need."""
    write(rows(500))
    part = json.loads(here("plan", "jobs.py:work", "items.jsonl", "--json").out)
    assert part["counts"]["new"] == 200
    whole = json.loads(here("plan", "jobs.py:work", "items.jsonl", "--full", "--json").out)
    assert whole["counts"]["new"] == 500
    assert any("its ledger will need about" in note for note in whole["notes"])
    write([*rows(400), {"id": "r1", "n": 1}])
    assert "key 'r1' was already on line 2" in here("plan", "jobs.py:work", "items.jsonl", "--full").err
    assert not Path("durabatch.db").exists()


def test_the_ledger_is_no_input_and_the_input_no_output(here):
    """Either would be lost."""
    write(rows(2))
    assert run(here).code == 0
    done = here("run", "jobs.py:echo", "durabatch.db")
    assert (done.code, "durabatch.db is the ledger" in done.err) == (2, True)
    done = run(here, "--output", "items.jsonl")
    assert (done.code, "output and input are the same file" in done.err) == (2, True)
    assert len(Path("items.jsonl").read_text().splitlines()) == 2
