"""
Ledgers written by earlier versions, kept in ``tests/data``: what people have on their disks must go on working.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import durabatch

ROOT = Path(__file__).resolve().parent.parent
LEDGERS = sorted((ROOT / "tests" / "data").glob("ledger_v*.db"))
JOBS = """
from pathlib import Path

import durabatch


@durabatch.undo_action("forget")
def forget(what):
    with Path("forgotten").open("a") as log:
        log.write(f"{what} ")


def effects(item, ctx):
    raise RuntimeError("it is only undone")


def work(item):
    return f"{item}, mended"


def cut(item):
    return f"{item}, later"
"""

pytestmark = pytest.mark.parametrize("old", LEDGERS, ids=lambda path: path.stem)


@pytest.fixture
def ledger(old, tmp_path, monkeypatch) -> durabatch.Ledger:
    """Give a copy of the old ledger, in a directory with its handlers."""
    shutil.copyfile(old, tmp_path / "l.db")
    (tmp_path / "ledger_jobs.py").write_text(JOBS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return durabatch.Ledger("l.db")


@pytest.fixture
def durabatch_here(command):
    """Give a function that runs ``durabatch`` on the old ledger."""
    return lambda *words: command(*words, "--ledger", "l.db")


def test_there_is_a_ledger_of_each_schema(old):
    """From the first version on to the present one."""
    from durabatch.ledger.opening import SCHEMA_VERSION

    assert [path.stem for path in LEDGERS] == [f"ledger_v{number}" for number in range(1, SCHEMA_VERSION + 1)]
    assert old.stat().st_size < 300_000


def test_it_is_read_in_full(ledger):
    """Its rules hold, and every result, failure and try is there; looking does not change it."""
    before = ledger.path.read_bytes()
    assert ledger.verify() == []
    assert [(run.name, run.state) for run in ledger.runs() if run.name in {"done", "cut"}] == [("done", "finished"), ("cut", "interrupted")]
    values = {one.key: one.value for one in ledger["done"].results() if one.ok}
    assert values.pop("k5") == {"item": "k5", "text": "packed " * 500}
    assert values == {f"k{number}": f"k{number}!" for number in range(1, 10) if number != 5}
    # From schema 2 on, errors that differ in numbers alone are one group.
    assert sum(one.item_count for one in ledger["done"].errors() if one.error_type == "ValueError") == 3
    assert [(one.number, one.outcome, one.error) for one in ledger["done"].attempts("k11")] == [
        (number, "failed", "ValueError: no k11") for number in (1, 2)
    ]
    assert [one.key for one in ledger["cut"].items(state="succeeded")] == ["c1", "c2", "c3", "c4"]
    assert ledger.path.read_bytes() == before


def test_its_unfinished_run_is_resumed(ledger, durabatch_here):
    """The ledger came from another machine: its handler is imported only on request. What was recorded stays, the rest is run, the item that had begun too."""
    refused = durabatch_here("resume", "cut")
    assert (refused.code, refused.out) == (2, "")
    assert "elsewhere" in refused.err
    assert "--trust-ledger" in refused.err
    done = durabatch_here("resume", "cut", "--trust-ledger", "-j", "1")
    assert done.code == 0, done.err
    assert "resuming: 4 done, 0 failed, 4 left" in done.err
    values = {one.key: one.value for one in ledger["cut"].results()}
    assert values == {f"c{number}": f"c{number}!" if number < 5 else f"c{number}, later" for number in range(1, 9)}
    assert [one.outcome for one in ledger["cut"].attempts("c5")] in (["interrupted", "succeeded"], ["succeeded"])
    assert ledger.verify() == []


def test_its_failed_items_are_retried_and_new_runs_are_added(ledger):
    """It is written to like a new one."""
    retried = ledger["done"].retry(trust_ledger=True, workers=1)
    assert (retried.exit_code, retried.counts.succeeded) == (0, 12)
    assert [one.outcome for one in ledger["done"].attempts("k11")] == ["failed", "failed", "succeeded"]
    added = ledger.run("ledger_jobs:work", ["n1"], name="new", workers=1)
    assert added.exit_code == 0
    assert ledger["new"].status().state == "finished"
    assert ledger.verify() == []


def test_every_way_of_looking_works_without_changing_it(ledger, durabatch_here):
    """The verbs of the command line that only read, on a ledger that nobody may write."""
    before = ledger.path.read_bytes()
    os.chmod("l.db", 0o400)
    for words in (["status"], ["status", "--json"], ["runs"], ["items", "done"], ["results", "done"], ["errors", "done"], ["attempts", "k11", "--run", "done"], ["explain", "k11", "--run", "done"], ["verify"], ["checkpoints", "done"], ["transactions"], ["rollback", "done", "--dry-run"]):
        looked = durabatch_here(*words)
        assert (looked.code, "Traceback" in looked.err) == (0, False), (words, looked.err)
    assert durabatch_here("sql", "SELECT spent, binding_limit FROM v_run").code == 0
    assert durabatch_here("sql", "SELECT error_group, remedy, peak_rss_bytes FROM v_attempt").code == 0
    assert durabatch_here("sql", "SELECT count(*) FROM suspect, control, v_result_history, cache, exported, v_undo, undoing, mark").code == 0
    assert ledger.path.read_bytes() == before


def test_what_limits_had_recorded_is_kept(ledger, old):
    """Spending, reasons and due times, in ledgers that had them; earlier ones read as if nothing had been spent."""
    assert (ledger["done"].status().spent, ledger["done"].status().binding_limit) == ({}, None)
    assert {one.spent == {} for one in ledger["done"].attempts("k11")} == {True}
    if old.stem == "ledger_v1":
        return
    now = ledger["limits"].status()
    assert (now.spent, now.counts.scheduled, now.next_due_at) == ({"usd": 0.5}, 2, "2286-11-20T17:46:39.000Z")
    assert [(one.outcome, one.error, one.remedy) for one in ledger["limits"].attempts("l2")] == [("skipped", "nothing in it", "Put something in.")]
    (waiting,) = ledger["limits"].attempts("l3")
    assert (waiting.error, waiting.group) == ("ConnectionError: no answer from l3", "ConnectionError: no answer from l<n>")
    assert waiting.peak_rss_bytes


def test_what_a_changed_input_had_left_is_kept(ledger, old):
    """Results of before, items that are out, and what the cache may answer, in ledgers that had them; earlier ones read as if nothing had changed."""
    assert (ledger["done"].status().gone, ledger["done"].status().cached, ledger["done"].status().is_open) == (0, 0, False)
    if old.stem in {"ledger_v1", "ledger_v2"}:
        return
    now = ledger["changed"].status()
    assert (now.gone, now.counts.cancelled, ledger["cached"].status().cached) == (1, 1, 3)
    assert {one.key: one.value for one in ledger["changed"].results() if one.ok} == {"h1": "9!", "h2": "2!", "h4": "4!"}
    _, past = ledger.sql("SELECT key, number, value, cause FROM v_result_history WHERE run = 'changed' ORDER BY key")
    assert list(past) == [("h1", 1, '"1!"', "changed"), ("h3", 1, '"3!"', "gone")]
    assert ledger["changed"].explain("h3").happened[-1] == "the input no longer had it, and it was taken out"


def test_what_can_be_undone_is_kept(ledger, old, durabatch_here):
    """Entries, checkpoints and transactions, in ledgers that had them, and rollbacks go on; of earlier ones every run can be rolled back all the same."""
    if old.stem in {"ledger_v1", "ledger_v2", "ledger_v3"}:
        undone = ledger["done"].rollback(trust_ledger=True, workers=0)
        assert (undone.counts.undone, undone.counts.failed, undone.status.state, undone.exit_code) == (9, 3, "rolled_back", 0)
        assert ledger.verify() == []
        return
    _, entries = ledger.sql("SELECT key, action, state, tries FROM v_undo WHERE run = 'effects' ORDER BY undo_id")
    assert list(entries) == [("e1", "forget", "recorded", 0), ("e2", "forget", "recorded", 0), ("e3", "forget", "failed", 3), ("e4", "forget", "undone", 1), ("e4", "mail", "irreversible", 0)]
    assert (ledger["effects"].status().unresolved, ledger["effects"].checkpoint("half").number) == (1, 1)
    assert [one.key for one in ledger["effects"].items(state="undone")] == ["e4"]
    looked = durabatch_here("transactions")
    assert ("TRANS-001" in looked.out, "TRANS-002" in looked.out, "abandoned" in looked.out) == (True, True, True)
    undone = ledger["effects"].rollback(trust_ledger=True, workers=0)
    assert (undone.counts.undone, undone.status.state, undone.exit_code) == (4, "rolled_back", 1)
    left_open = durabatch_here("rollback", "--transaction", "TRANS-002", "--yes", "--trust-ledger")
    assert left_open.code == 0, left_open.err
    assert Path("forgotten").read_text() == "e3 e2 e1 t1 "
    assert ledger.verify() == []
