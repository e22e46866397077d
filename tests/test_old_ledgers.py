"""
Ledgers written by earlier versions, kept in ``tests/data``: what people have on their disks must go on working.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import durabatch

ROOT = Path(__file__).resolve().parent.parent
LEDGERS = sorted((ROOT / "tests" / "data").glob("ledger_v*.db"))
JOBS = "def work(item):\n    return f'{item}, mended'\n\n\ndef cut(item):\n    return f'{item}, later'\n"

pytestmark = pytest.mark.parametrize("old", LEDGERS, ids=lambda path: path.stem)


@pytest.fixture
def ledger(old, tmp_path, monkeypatch) -> durabatch.Ledger:
    """Give a copy of the old ledger, in a directory with its handlers."""
    shutil.copyfile(old, tmp_path / "l.db")
    (tmp_path / "ledger_jobs.py").write_text(JOBS)
    monkeypatch.chdir(tmp_path)
    return durabatch.Ledger("l.db")


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run ``durabatch`` here."""
    return subprocess.run(
        [sys.executable, "-m", "durabatch", *words, "--ledger", "l.db"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_there_is_a_ledger_of_each_schema(old):
    """From the first version on to the present one."""
    from durabatch.ledger.opening import SCHEMA_VERSION

    assert [path.stem for path in LEDGERS] == [f"ledger_v{number}" for number in range(1, SCHEMA_VERSION + 1)]
    assert old.stat().st_size < 300_000


def test_it_is_read_in_full(ledger):
    """Its rules hold, and every result, failure and try is there; looking does not change it."""
    before = ledger.path.read_bytes()
    assert ledger.verify() == []
    assert [(run.name, run.state) for run in ledger.runs()] == [("done", "finished"), ("cut", "interrupted")]
    values = {one.key: one.value for one in ledger["done"].results() if one.ok}
    assert values.pop("k5") == {"item": "k5", "text": "packed " * 500}
    assert values == {f"k{number}": f"k{number}!" for number in range(1, 10) if number != 5}
    assert [(one.error_type, one.item_count) for one in ledger["done"].errors()] == [("ValueError", 1)] * 3
    assert [(one.number, one.outcome, one.error) for one in ledger["done"].attempts("k11")] == [
        (number, "failed", "ValueError: no k11") for number in (1, 2)
    ]
    assert [one.key for one in ledger["cut"].items(state="succeeded")] == ["c1", "c2", "c3", "c4"]
    assert ledger.path.read_bytes() == before


def test_its_unfinished_run_is_resumed(ledger):
    """The ledger came from another machine: its handler is imported only on request. What was recorded stays, the rest is run, the item that had begun too."""
    refused = command("resume", "cut")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "elsewhere" in refused.stderr
    assert "--trust-ledger" in refused.stderr
    done = command("resume", "cut", "--trust-ledger", "-j", "1")
    assert done.returncode == 0, done.stderr
    assert "resuming: 4 done, 0 failed, 4 left" in done.stderr
    values = {one.key: one.value for one in ledger["cut"].results()}
    assert values == {f"c{number}": f"c{number}!" if number < 5 else f"c{number}, later" for number in range(1, 9)}
    assert [one.outcome for one in ledger["cut"].attempts("c5")] in (["interrupted", "succeeded"], ["succeeded"])
    assert ledger.verify() == []


def test_its_failed_items_are_retried_and_new_runs_are_added(ledger, monkeypatch):
    """It is written to like a new one."""
    monkeypatch.syspath_prepend(str(Path.cwd()))
    retried = ledger["done"].retry(trust_ledger=True, workers=1)
    assert (retried.exit_code, retried.counts.succeeded) == (0, 12)
    assert [one.outcome for one in ledger["done"].attempts("k11")] == ["failed", "failed", "succeeded"]
    added = ledger.run("ledger_jobs:work", ["n1"], name="new", workers=1)
    assert added.exit_code == 0
    assert len(ledger.runs()) == 3
    assert ledger.verify() == []
