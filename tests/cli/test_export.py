from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import factory

ROOT = Path(__file__).resolve().parents[2]


def test_results_are_printed_or_written(finished, command, tmp_path):
    """Without --output standard output gets data and nothing else; with it one line on stderr says what is where, or a document does."""
    printed, results = command("export"), command("results")
    assert (printed.code, printed.out, printed.err) == (0, results.out, "")
    output = str(tmp_path / "r.csv")
    done = command("export", "--output", output)
    assert (done.code, done.out) == (0, "")
    assert done.err == f"36 items in {output}; 4 failed items in {output}.failures.jsonl\n"
    document = json.loads(command("export", "--output", output, "--json").out)
    assert document == {
        "schema_version": 1, "format": "csv", "output": output, "count": 36, "failures": f"{output}.failures.jsonl", "failed_count": 4,
        "damaged_count": 0,
    }  # fmt: skip


def test_an_incremental_export_with_nothing_new_says_so(finished, command, tmp_path):
    """The exit code is 0 both times."""
    output = str(tmp_path / "new.jsonl")
    assert command("export", "--output", output, "--incremental", "--where", "batch = 2").err.startswith("9 items in ")
    done = command("export", "--output", output, "--incremental", "--where", "batch = 2")
    assert (done.code, done.err) == (0, f"nothing new for {output}\n")


def test_all_states_can_be_asked_for(finished, command):
    """Each line says what became of its item."""
    done = command("export", "--state", "all", "--format", "json")
    rows = json.loads(done.out)
    assert (len(rows), [row["key"] for row in rows if row["state"] == "failed"]) == (40, ["r07", "r17", "r27", "r37"])
    assert all(list(row) == ["key", "state", "value", "error", "attempts"] for row in rows)


def test_damaged_values_are_named_with_exit_code_4(tmp_path, command, monkeypatch):
    """The others are printed."""
    monkeypatch.chdir(tmp_path)
    factory.worked_ledger(tmp_path / "durabatch.db")
    factory.sabotage("durabatch.db", "UPDATE segment SET data = zeroblob(length(data)) WHERE segment_id = 1")
    done = command("export", "jobs")
    assert (done.code, len(done.out.splitlines())) == (4, 22)
    assert [line.partition(" (")[0] for line in done.err.splitlines()] == [
        f"durabatch: durabatch.db: result of item '{key}' is damaged" for key in ("k2", "k3")
    ]
    done = command("export", "jobs", "--output", "r.csv")
    assert (done.code, done.err.splitlines()[-1]) == (4, "22 items in r.csv; 2 values damaged; 1 failed item in r.csv.failures.jsonl")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--format", "xlsx"), "--format xlsx cannot be printed. Give --output"),
        (("--json",), "--json describes the file that was written; there is none"),
        (("--column", "c"), "--column needs --write-back"),
        (("--force",), "--force needs --write-back"),
        (("--write-back", "w.xlsx"), "--write-back needs --column"),
        (("--write-back", "w.xlsx", "--column", "c", "--where", "1"), "--where does not go together with --write-back"),
        (("--write-back", "w.xlsx", "--column", "c"), "--write-back: there is no file w.xlsx"),
        (("--state", "broken"), "--state: 'broken' is not one of"),
        (("--output", "durabatch.db", "--format", "csv"), "durabatch.db is the ledger"),
        (("--where", "nonsense"), "no such column: nonsense"),
    ],
)
def test_wrong_use_is_one_line_with_exit_code_2(finished, command, words, sentence):
    """It says what is wrong, and nothing is printed on standard output."""
    done = command("export", *words)
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert sentence in done.err


def test_a_reader_that_has_had_enough_ends_it_quietly(finished, plain_environ):
    """As with `head`: no traceback, no complaint."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "durabatch", "export"],
        env={**plain_environ, "PYTHONPATH": str(ROOT)},
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
