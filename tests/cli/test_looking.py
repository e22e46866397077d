from __future__ import annotations

import contextlib
import csv
import io
import json

import pytest

from durabatch.cli.attempts import attempt_lines
from durabatch.cli.status import status_lines
from durabatch.ledger.locks import Ownership
from durabatch.ledger.opening import open_ledger
from durabatch.ledger.paths import ledger_files
from durabatch.models import AttemptView, Counts, Finding, RunStatus
from tests import factory

STATUS_KEYS = "run_id name state reason handler counts batch_count attempt_count intake_complete items_per_s eta_s started_at finished_at elapsed_s binding_limit exit_code spent forecast next_due_at cached gone is_open bad_input_count duplicate_count last_order unresolved undo_left is_rolling_back is_transaction"
COUNT_KEYS = "total pending scheduled running succeeded failed skipped cancelled quarantined undone"


def test_status_json_has_the_keys_that_scripts_use(finished, command):
    """One document: schema_version, ledger, and the run, with exactly the frozen keys."""
    done = command("status", "--json")
    document = json.loads(done.out)
    (run,) = document["runs"]
    assert (done.code, done.err) == (0, "")
    assert list(document) == ["schema_version", "ledger", "runs"]
    assert (document["schema_version"], document["ledger"]) == (1, str(finished / "durabatch.db"))
    assert set(run) == set(STATUS_KEYS.split())
    assert set(run["counts"]) == set(COUNT_KEYS.split())
    assert (run["name"], run["state"], run["exit_code"]) == ("double:items.jsonl", "finished", 1)
    assert (run["counts"]["succeeded"], run["counts"]["failed"], run["batch_count"]) == (36, 4, 4)


def test_status_is_a_block_for_people(finished, command):
    """Name and state, how much is done, what failed, and the next command."""
    lines = command("status").out.splitlines()
    assert lines[0] == "double:items.jsonl (1)  finished"
    assert "  done     40 of 40 (100.0%)" in lines
    assert "  items    36 succeeded, 4 failed" in lines
    assert lines[-1] == "  next     `durabatch errors` shows what failed, `durabatch retry` tries it again"


def test_a_run_is_found_by_name_or_id_and_else_named(finished, command):
    """RUN is either; an unknown one is answered with those that are there."""
    assert command("status", "double:items.jsonl").out == command("status", "1").out
    done = command("status", "nightly")
    assert done.code == 2
    assert done.err == "durabatch: no run 'nightly' in this ledger. There are: double:items.jsonl.\n"


def test_the_ledger_can_be_named_by_the_environment(finished, command, monkeypatch):
    """DURABATCH_LEDGER is the default of --ledger; suggested commands rely on it."""
    monkeypatch.setenv("DURABATCH_LEDGER", str(finished / "durabatch.db"))
    monkeypatch.chdir("/")
    done = command("status")
    assert done.code == 0
    assert "`durabatch retry`" in done.out


def test_runs_is_a_line_each_and_the_same_document_as_status(finished, command):
    """The table has a header; --json has the shape of status, with all runs."""
    lines = command("runs").out.splitlines()
    assert lines[0].split() == ["id", "state", "done", "total", "failed", "rate", "worked", "started", "name"]
    assert lines[1].split()[:5] == ["1", "finished", "40", "40", "4"]
    assert json.loads(command("runs", "--json").out) == json.loads(command("status", "--json").out)


def test_items_are_chosen_by_state_expression_and_limit(finished, command):
    """All three narrow the same list, in input order."""
    done = command("items", "--state", "failed", "--where", "key > 'r10'", "--limit", "2")
    rows = [line.split()[:3] for line in done.out.splitlines()]
    assert rows == [["key", "state", "attempts"], ["r17", "failed", "1"], ["r27", "failed", "1"]]


def test_items_json_is_one_document(finished, command):
    """With the run, and every item with its four keys; an empty list is a document, too."""
    document = json.loads(command("items", "--json").out)
    assert (document["schema_version"], document["run"], len(document["items"])) == (1, "double:items.jsonl", 40)
    assert document["items"][7] == {
        "key": "r07",
        "state": "failed",
        "attempts": 1,
        "error": "ValueError: could not convert string to float: 'N/A'",
    }
    assert json.loads(command("items", "--json", "--limit", "0").out)["items"] == []


def test_a_wrong_expression_is_code_2(finished, command):
    """One line, and nothing on stdout."""
    done = command("items", "--where", "kye = 1")
    assert (done.code, done.out) == (2, "")
    assert "no such column: kye" in done.err


def test_an_expression_cannot_widen_the_choice_of_the_run(finished, command):
    """Whatever its parentheses, only items of the run are looked at."""
    honest = command("items", "--json").out
    assert command("items", "--json", "--where", "1) OR (1").out == honest


def test_results_are_json_lines_in_input_order(finished, command):
    """Key and value of what succeeded; with --all every item, with three keys more."""
    lines = [json.loads(line) for line in command("results").out.splitlines()]
    assert [line["key"] for line in lines] == [f"r{number:02}" for number in range(40) if number % 10 != 7]
    assert lines[3] == {"key": "r03", "value": 6.0}
    everything = [json.loads(line) for line in command("results", "--all").out.splitlines()]
    assert len(everything) == 40
    assert list(everything[7]) == ["key", "value", "state", "attempts", "error"]
    assert everything[7]["value"] is None


def test_results_can_be_chosen_and_be_one_document(finished, command):
    """--where is an expression over v_item; --json makes one document of the same lines."""
    document = json.loads(command("results", "--where", "batch = 2", "--json").out)
    assert [one["key"] for one in document["results"]] == [f"r{number}" for number in range(10, 20) if number != 17]


def test_errors_are_grouped_and_lead_on(finished, command):
    """One line a kind on stdout; the next commands on stderr."""
    done = command("errors")
    assert done.out == "ValueError: could not convert string to float: 'N/A' - 4 items, first r07, last r37\n"
    assert done.err == "next: `durabatch attempts r07` for the traceback, `durabatch retry` tries them again\n"
    (group,) = json.loads(command("errors", "--json").out)["errors"]
    assert group.pop("group").startswith("ValueError: could not convert string to float: ")
    assert group == {
        "error_type": "ValueError",
        "message": "could not convert string to float: 'N/A'",
        "item_count": 4,
        "first_key": "r07",
        "last_key": "r37",
    }


def test_attempts_show_the_users_own_frames(finished, command):
    """The traceback begins in the user's file; --json has the same as fields."""
    done = command("attempts", "r07")
    assert done.out.startswith("attempt 1: failed after ")
    assert 'jobs.py", line ' in done.out
    assert "durabatch/" not in done.out
    document = json.loads(command("attempts", "r07", "--json").out)
    assert [one["outcome"] for one in document["attempts"]] == ["failed"]
    assert command("attempts", "nobody").code == 2


@pytest.mark.parametrize(("flag", "delimiter"), [("--csv", ","), ("--tsv", "\t")])
def test_sql_writes_what_spreadsheets_read(flag, delimiter, finished, command):
    """A header and rows, quoted where needed; NULL is empty."""
    done = command("sql", "SELECT 'a,b\t\"c\"' AS x, NULL AS y, x'00ff' AS z", flag)
    assert list(csv.reader(io.StringIO(done.out), delimiter=delimiter)) == [["x", "y", "z"], ['a,b\t"c"', "", "00ff"]]


def test_sql_is_a_table_or_a_document(finished, command):
    """People get columns, programs get rows; item_value reads a result however it is stored."""
    query = "SELECT key, item_value(item_id) AS value, error_type FROM v_item WHERE key < 'r02'"
    assert command("sql", query).out == "key  value  error_type\nr00    0.0        NULL\nr01    2.0        NULL\n"
    assert json.loads(command("sql", query, "--json").out) == {
        "schema_version": 1, "columns": ["key", "value", "error_type"], "rows": [["r00", "0.0", None], ["r01", "2.0", None]]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("DELETE FROM item", "read-only"),
        ("ATTACH 'x.db' AS x", "read-only"),
        ("SELEC 1", "syntax error"),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n", "query stopped after 0.2 s"),
    ],
)
def test_sql_only_reads_and_not_for_ever(query, words, finished, command):
    """Writing, attaching and running on are refused, with code 2."""
    done = command("sql", query, "--sql-timeout", "200ms")
    assert (done.code, done.out) == (2, "")
    assert words in done.err


def test_sql_takes_its_query_from_standard_input(finished, command, monkeypatch):
    """Without QUERY; an empty one is wrong usage."""
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT 41 + 1 AS x\n"))
    assert command("sql").out == " x\n42\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert command("sql").code == 2


def test_verify_says_how_many_rules_hold(finished, command):
    """A sound ledger is code 0."""
    done = command("verify")
    assert done.code == 0
    assert done.out.startswith("the ledger is sound: ")
    assert json.loads(command("verify", "--json").out)["findings"] == []


def test_verify_lists_what_is_broken_with_code_4(finished, command, monkeypatch):
    """Rule, place and what was found, harmless for a terminal, or the same as JSON."""
    monkeypatch.setattr("durabatch.api.ledger.Ledger.verify", lambda _self: [Finding("counts agree", "run 1", "failed is 3, rows say 4\x1b[31m")])
    done = command("verify")
    assert done.code == 4
    assert done.out.splitlines()[1] == r"counts agree  run 1  failed is 3, rows say 4\x1b[31m"
    done = command("verify", "--json")
    assert (done.code, json.loads(done.out)["findings"][0]["where"]) == (4, "run 1")


def test_status_says_what_is_known_and_leaves_out_the_rest(monkeypatch):
    """A working run has a rate and an end in sight; a run still reading its input has a lower bound; a halted one its reason."""
    monkeypatch.delenv("DURABATCH_LEDGER", raising=False)
    facts = {
        "batch_count": 1,
        "attempt_count": 2,
        "handler": "m:f",
        "finished_at": None,
        "elapsed_s": 75.0,
        "exit_code": None,
        "eta_s": None,
    }

    def lines(**more):
        return status_lines(
            RunStatus(**{"run_id": 1, "name": "n\n", "reason": None, "binding_limit": None, **facts, **more}), "durabatch.db"
        )

    counts = Counts(total=2000, succeeded=1999, pending=1)
    working = lines(state="running", counts=counts, intake_complete=True, items_per_s=20.0, started_at="2026", eta_s=65.0)
    assert working[0] == "n\\n (1)  running"
    assert "  done     1,999 of 2,000 (99.9%)" in working
    assert "  rate     20/s, about 1m 05s left" in working
    assert not [line for line in working if line.startswith(("  next", "  reason", "  limit"))]
    reading = lines(state="running", counts=counts, intake_complete=False, items_per_s=0.0, started_at=None, binding_limit="memory")
    assert "  done     1,999 of >=2,000, still reading the input" in reading
    assert "  limit    memory" in reading
    assert reading[-1] == "  time     not started"
    halted = lines(state="halted", counts=counts, intake_complete=True, items_per_s=1.0, started_at="2026", reason="bad input: x:7: no\x1b")
    assert r"  reason   bad input: x:7: no\x1b" in halted
    assert halted[-1] == "  next     `durabatch resume` goes on"


def test_status_tells_limits_money_waiting_items_and_the_last_order(monkeypatch):
    """What holds the run back, what it costs and will have cost, when the next retry is due, and who asked for what."""
    monkeypatch.delenv("DURABATCH_LEDGER", raising=False)
    given = {
        "run_id": 1, "name": "n", "state": "paused", "reason": "paused by ana (pid 7)", "handler": "m:f", "batch_count": 1, "attempt_count": 2,
        "intake_complete": True, "items_per_s": 0.0, "eta_s": None, "started_at": "2026", "finished_at": None, "elapsed_s": 1.0,
        "binding_limit": "rate", "exit_code": None, "counts": Counts(total=9, succeeded=4, scheduled=2, pending=3),
        "spent": {"usd": 1.25, "tokens": 1234567.0, "\x1bx": 0.0000001, "cents": 0.0}, "forecast": {"usd": 2.8125}, "next_due_at": "2026-01-01T00:00:00.000Z",
    }  # fmt: skip
    order = {"verb": "set", "argument": {"rate": None, "batch_size": 5}, "asked_by": {"pid": 7, "uid": 0, "user": "ana\x1b", "host": "h"}}
    lines = status_lines(RunStatus(**given, last_order={**order, "asked_at": "2026", "applied_at": None, "outcome": None}), "durabatch.db")
    assert "  limit    rate" in lines
    assert "  reason   paused by ana (pid 7)" in lines
    assert "  waiting  2 items, the next until 2026-01-01T00:00:00.000Z" in lines
    assert r"  spent    usd 1.25 (about 2.8125 when all is done), tokens 1,234,567, \x1bx less than 0.000001, cents 0" in lines
    assert r"  order    set rate=off batch-size=5 by ana\x1b@h (pid 7) at 2026: not answered yet" in lines
    assert lines[-1] == "  next     `durabatch unpause` goes on"
    over = RunStatus(**{**given, "state": "finished", "counts": Counts(total=9, succeeded=9), "next_due_at": None, "spent": {"usd": 2.0}})
    assert "  spent    usd 2" in status_lines(over, "durabatch.db")
    assert not [line for line in status_lines(over, "durabatch.db") if line.startswith(("  waiting", "  order"))]


def test_the_next_due_time_is_that_of_an_item_that_waits(here, command):
    """Items that stand in an order of their own have a rank, which is no time that anybody waits for."""
    with contextlib.closing(open_ledger("durabatch.db", create=True)) as ledger:
        run = factory.new_run(ledger)
        factory.add(ledger, run, ["a", "b", "c"], complete=True, place=lambda payload: (0, 7))
        made = factory.take(ledger, run, 1)
        factory.finished(ledger, run, factory.failures(made, "failed"), policy=factory.RetryPolicy(3, backoff_s=60), now_us=factory.NOW)
        (plan,) = ledger.raw.execute(f"EXPLAIN QUERY PLAN {ledger.sql['item_next_waiting']}", (1,)).fetchall()[1:]
    (status,) = json.loads(command("status", "--json").out)["runs"]
    assert (status["counts"]["scheduled"], status["counts"]["pending"]) == (1, 2)
    assert status["next_due_at"] == "2027-01-15T08:01:00.000Z"
    assert "  waiting  1 item, the next until 2027-01-15T08:01:00.000Z" in command("status").out
    assert "item_waiting" in plan[3]


def test_an_attempt_shows_all_that_is_known_of_it():
    """How the process ended, its memory and last words, what it cost, and what can be done; harmless for a terminal."""
    crashed = AttemptView(
        2, "crashed", 3, "2026", 1.5, "WorkerDied: signal 11", None, remedy="Use less\x1b", signal=11, exit_code=None,
        stdout_tail=" \n", stderr_tail="one\ntwo\x1b[2J\n", peak_rss_bytes=3 << 29, spent={"usd": 0.5},
    )  # fmt: skip
    assert attempt_lines(crashed) == [
        "attempt 2: crashed after 1.5 s (worker 3, started 2026)",
        "  WorkerDied: signal 11",
        "  stderr:",
        "    one",
        r"    two\x1b[2J",
        "  signal SIGSEGV, peak memory 1,536 MiB, spent usd 0.5",
        r"  remedy: Use less\x1b",
    ]
    failed = AttemptView(1, "failed", 1, "2026", 0.01, "CommandError: exit 3", None, exit_code=3, stdout_tail="half done")
    assert attempt_lines(failed)[1:] == ["  CommandError: exit 3", "  stdout:", "    half done", "  exit code 3"]
    assert attempt_lines(AttemptView(1, "crashed", 1, None, 0.01, "x", None, signal=99))[-1] == "  signal 99"
    assert attempt_lines(AttemptView(1, "succeeded", 1, None, 0.01, None, None, peak_rss_bytes=1 << 30))[1:] == []
    skipped = AttemptView(1, "skipped", 1, "2026", 0.0, "no such host", None, remedy="Check the name")
    assert attempt_lines(skipped)[1:] == ["  no such host", "  remedy: Check the name"]


def test_skipped_items_are_listed_with_their_reason(here, command):
    """Lists and results have it where failed items have their error."""
    with contextlib.closing(open_ledger("durabatch.db", create=True)) as ledger:
        run = factory.run_of(ledger, 2)
        factory.finished(ledger, run, factory.failures(factory.take(ledger, run, 2), "skipped", "snoozed", error_message="no such host", after_s=60))
    rows = [line.split(maxsplit=3) for line in command("items").out.splitlines()]
    assert rows[1:] == [["k1", "skipped", "1", "no such host"], ["k2", "scheduled", "0"]]
    first = json.loads(command("results", "--all").out.splitlines()[0])
    assert (first["state"], first["error"]) == ("skipped", "no such host")


def test_a_ledger_without_runs_is_no_error_for_runs(here, command):
    """The list is empty and says so on stderr; status, which needs a run, is code 2."""
    open_ledger("durabatch.db", create=True).close()
    done = command("runs")
    assert (done.code, done.out, done.err) == (0, "", "the ledger holds no run\n")
    assert json.loads(command("runs", "--json").out)["runs"] == []
    done = command("status")
    assert (done.code, done.err) == (2, "durabatch: the ledger holds no run. Start one with `durabatch run`.\n")


def test_a_ledger_in_use_is_code_4_and_names_who_and_what_works_meanwhile(finished, command):
    """A second coordinator is turned away in one line; those who look are not."""
    own = Ownership(ledger_files("durabatch.db"), {"pid": 4711, "host": "h", "run": "nightly", "since": "2026"})
    try:
        done = command("retry")
        assert (done.code, done.out, done.err.count("\n")) == (4, "", 1)
        assert done.err.startswith("durabatch: durabatch.db: in use by pid 4711 (h, run nightly, since 2026). `durabatch status`, ")
        assert command("status").code == 0
    finally:
        own.release()
