"""``Ledger`` and ``Run``: a method for every verb of the command line."""

from __future__ import annotations

import json
import re
import sqlite3

import pytest

import durabatch
from tests.api.handlers import bulky, double, picky, slow
from tests.api.test_map import workers_left
from tests.factory import rows, sabotage


def test_run_returns_a_summary_and_again_has_nothing_to_do(here):
    """Counts, groups of errors and exit code; the same call again runs nothing and says so."""
    with durabatch.Ledger("l.db") as ledger:
        summary = ledger.run(picky, range(30), workers=2, batch_size=10, name="nightly")
        assert (summary.exit_code, summary.resumed, summary.executed) == (1, None, 30)
        assert (summary.counts.succeeded, summary.counts.failed, summary.status.batch_count) == (27, 3, 3)
        assert [(one.error_type, one.message, one.item_count, one.first_key, one.last_key) for one in summary.errors] == [
            ("ValueError", "not 7", 3, "7", "27")
        ]
        again = ledger.run(picky, range(30), workers=2, batch_size=10, name="nightly")
        assert (again.exit_code, again.resumed, again.executed) == (1, 30, 0)
        assert (again.status, again.errors) == (summary.status, summary.errors)
        assert len(here.calls()) == 30


def test_retry_runs_the_failed_alone(here):
    """By error type or all of them; healed, nothing is listed as failed, and the tries are on record."""
    ledger = durabatch.Ledger("l.db")
    ledger.run(picky, range(30), workers=1)
    run = ledger.latest()
    none = run.retry(error="KeyError")
    assert (none.executed, none.exit_code) == (0, 1)
    (here.path / "mended").touch()
    done = run.retry(error="ValueError", workers=0)
    assert (done.executed, done.exit_code, done.counts.succeeded) == (3, 0, 30)
    assert here.calls()[30:] == ["7", "17", "27"]
    assert run.errors() == []
    assert [(one.number, one.outcome, one.error) for one in run.attempts("17")] == [
        (1, "failed", "ValueError: not 7"),
        (2, "succeeded", None),
    ]
    assert run.retry().executed == 0


def test_a_retry_whose_handler_is_gone_changes_nothing(here):
    """When the handler cannot be imported, the failed items stay failed; with handler= another one takes its place."""
    (here.path / "jobs.py").write_text("def work(item):\n    raise ValueError(item)\n")
    ledger = durabatch.Ledger("l.db")
    ledger.run("jobs.py:work", [1, 2], workers=1)
    (here.path / "jobs.py").unlink()
    before = ledger.latest().status()
    with pytest.raises(durabatch.HandlerImportError, match=r"cannot import jobs\.py: no such file"):
        ledger.latest().retry(workers=1)
    assert ledger.latest().status() == before
    assert ledger.latest().retry(handler=double).counts.succeeded == 2


def test_resume_goes_on_with_what_is_left(here):
    """Handler, input and settings are those on record; what is given takes their place."""
    (here.path / "many.txt").write_text("".join(f"{number}\n" for number in range(60)))
    for _ in durabatch.map(slow, durabatch.lines("many.txt"), ledger="l.db", name="r", workers=2, batch_size=10):
        break
    run = durabatch.Ledger("l.db")["r"]
    summary = run.resume(workers=1, output="out")
    assert (summary.exit_code, summary.counts.succeeded, summary.output) == (0, 60, str(here.path / "out"))
    assert len(here.calls()) == 60
    assert sorted(path.name for path in (here.path / "out").iterdir()) == [
        *(f"batch_000{number}.json" for number in range(1, 7)),
        "summary.json",
    ]
    with pytest.raises(durabatch.UsageError, match=r"unknown setting 'wrokers'\. Did you mean 'workers'"):
        run.resume(wrokers=1)


def test_runs_are_found_by_name_series_and_id(here):
    """A name, the newest of a series, an id; latest() is the last one; an unknown one names what is there."""
    ledger = durabatch.Ledger("l.db")
    for name, fresh in (("a", False), ("b", False), ("a", True)):
        ledger.run(double, range(3), workers=0, name=name, fresh=fresh)
    assert [run.name for run in ledger.runs()] == ["a", "b", "a#2"]
    assert [ledger[name].status().name for name in ("a", "b", "a#2", 1, "2")] == ["a#2", "b", "a#2", "a", "b"]
    assert ledger.latest().status().name == "a#2"
    with pytest.raises(durabatch.NotFoundError, match=r"no run 'c' in this ledger\. There are: a, b, a#2\."):
        ledger["c"]


def test_items_are_chosen_by_state_expression_and_limit(here):
    """All in input order; a wrong expression is an SqlError."""
    ledger = durabatch.Ledger("l.db")
    ledger.run(picky, range(30), workers=1)
    run = ledger.latest()
    assert [one.key for one in run.items(limit=3)] == ["0", "1", "2"]
    assert [one.key for one in run.items(state="failed")] == ["7", "17", "27"]
    assert [one.key for one in run.items(where="CAST(key AS int) > 15", state="failed", limit=1)] == ["17"]
    assert len(list(run.results())) == 30
    for wrong in ("nothing = 1", "1; DELETE FROM item", "(SELECT 1"):
        with pytest.raises(durabatch.SqlError):
            list(run.items(where=wrong))
    with pytest.raises(durabatch.NotFoundError, match="no item '99' in this run"):
        run.attempts("99")


def test_sql_reads_views_and_values_and_nothing_else(here):
    """Columns and rows; item_value gives the JSON of inline and packed values; writing is refused; too long a query is stopped."""
    ledger = durabatch.Ledger("l.db")
    ledger.run(double, range(3), workers=0, name="small")
    ledger.run(bulky, range(3), workers=1, name="big")
    columns, found = ledger.sql("SELECT key, item_value(item_id) AS value FROM v_item ORDER BY item_id")
    values = [(key, json.loads(value)) for key, value in found]
    assert columns == ["key", "value"]
    assert values[:3] == [("0", 0), ("1", 2), ("2", 4)]
    assert values[3:] == [(str(number), {"item": number, "text": f"{number}," * 1000}) for number in range(3)]
    assert list(ledger.sql("SELECT item_value(99)")[1]) == [(None,)]
    for query in ("DELETE FROM item", "PRAGMA user_version = 7", "SELECT nothing", "ATTACH 'x' AS y"):
        with pytest.raises(durabatch.SqlError):
            list(ledger.sql(query)[1])
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with pytest.raises(durabatch.SqlError, match=r"query stopped after 0\.1 s"):
        list(ledger.sql(endless, timeout_s=0.1)[1])


def test_callbacks_are_told_of_batches_progress_and_notes(here):
    """Each batch once, with its file on disk; progress up to the end; a note when a run goes on."""
    ledger, batches, progress, notes = durabatch.Ledger("l.db"), [], [], []

    def on_batch(batch):
        assert json.loads(batch.path.read_text())["batch"] == batch.number
        batches.append((batch.run, batch.number, len(batch.results)))

    summary = ledger.run(
        picky, range(30), workers=2, batch_size=10, output="out", on_batch=on_batch, on_progress=progress.append, on_note=notes.append
    )
    assert sorted(batches) == [("picky", 1, 10), ("picky", 2, 10), ("picky", 3, 10)]
    assert (progress[-1].counts, progress[-1].run_name) == (summary.counts, "picky")
    assert notes == []
    (here.path / "mended").touch()
    ledger.latest().retry(on_note=notes.append)
    assert notes == ["resuming: 27 done, 0 failed, 3 left"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("callback", ["on_batch", "on_progress"])
def test_a_callback_that_raises_halts_the_run(here, callback, workers):
    """The caller's exception comes through, no worker is left, the run is halted with the reason, and goes on later: no batch is passed over."""
    ledger, told = durabatch.Ledger("l.db"), []

    def fall(_told):
        raise RuntimeError("I fell")

    with pytest.raises(RuntimeError, match="I fell"):
        ledger.run(slow, range(200), workers=workers, batch_size=5, **{callback: fall})
    assert workers_left() == []
    status = ledger.latest().status()
    assert (status.state, status.counts.running) == ("halted", 0)
    assert re.fullmatch(r"(on_batch of batch \d+: )?RuntimeError: I fell", status.reason)
    assert ("batch" in status.reason) == (callback == "on_batch")
    assert ledger.verify() == []
    summary = ledger.run(slow, range(200), workers=workers, batch_size=5, on_batch=lambda batch: told.append(batch.number))
    assert (summary.exit_code, summary.counts.succeeded) == (0, 200)
    assert len(here.calls()) == 200
    if callback == "on_batch":
        assert sorted(told) == list(range(1, 41))


def test_a_damaged_value_is_told_and_the_others_are_read(here):
    """Without on_damage it is an error that names the item; with it that item comes without a value, and all others as they are."""
    ledger = durabatch.Ledger("l.db")
    ledger.run(bulky, range(4), workers=1, batch_size=2)
    (segment,) = rows("l.db", "SELECT min(segment_id) FROM segment")[0]
    sabotage("l.db", f"UPDATE segment SET data = zeroblob(length(data)) WHERE segment_id = {segment}")
    run, told = ledger.latest(), []
    with pytest.raises(durabatch.LedgerDamagedError, match=r"result of item '\d' is damaged"):
        list(run.results())
    with pytest.raises(durabatch.LedgerDamagedError, match=r"result of item '\d' is damaged"):
        list(durabatch.map(bulky, range(4), ledger="l.db", workers=1, batch_size=2))
    results = list(run.items(on_damage=told.append))
    damaged = [one.key for one in results if one.error]
    assert len(results) == 4
    assert 0 < len(damaged) < 4
    assert [one.what.partition(" is damaged")[0] for one in told] == [f"l.db: result of item '{key}'" for key in damaged]
    assert {one.key: one.value["item"] for one in results if one.key not in damaged} == {
        one.key: int(one.key) for one in results if not one.error
    }
    assert [finding.rule for finding in ledger.verify()] != []


def test_verify_finds_what_does_not_hold(here):
    """A sound ledger has no findings; a counter that was tampered with is one."""
    ledger = durabatch.Ledger("l.db")
    ledger.run(double, range(5), workers=0)
    assert ledger.verify() == []
    sabotage("l.db", "UPDATE run SET succeeded_count = 4, failed_count = 1")
    assert "failed" in " ".join(f"{finding.rule} {finding.detail}" for finding in ledger.verify())


def test_a_ledger_that_is_none_is_refused_by_every_method(here):
    """Missing: made by run alone. Foreign: not touched."""
    missing = durabatch.Ledger("missing.db")
    for look in (missing.runs, missing.latest, missing.verify, lambda: missing["x"], lambda: missing.sql("SELECT 1")):
        with pytest.raises(durabatch.LedgerMissingError):
            look()
    sqlite3.connect("foreign.db").execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(durabatch.NotALedgerError):
        durabatch.Ledger("foreign.db").run(double, [1], workers=0)
    with pytest.raises(durabatch.UsageError, match="durability: 'none' is not 'power' or 'process'"):
        durabatch.Ledger("l.db", durability="none")
    assert [path.name for path in here.path.iterdir()] == ["foreign.db"]
