from __future__ import annotations

import dataclasses

import pytest

from durabatch.cli.summary import summary_lines
from durabatch.models import Counts, ErrorGroup, RunStatus, SkippedGroup, Summary

GROUP = ErrorGroup("ValueError", "could not convert string to float: 'N/A'", 20, "r0037", "r1937")


def summary(
    *, state="finished", reason=None, complete=True, resumed=None, executed=2000, output=None, errors=(GROUP,), code=1, **counts
) -> Summary:
    status = RunStatus(1, "nightly", state, reason, "m:f", Counts(**counts), 20, 2000, complete, 9.0, None, None, None, 3.2, None, code)
    return Summary(status, tuple(errors), code, resumed, executed, (0, 0), output, 0.1, 0.2, 2.0)


@pytest.fixture(autouse=True)
def _default_ledger(monkeypatch):
    monkeypatch.delenv("DURABATCH_LEDGER", raising=False)


def test_failures_results_next_command_and_verdict_come_in_that_order():
    """The last line is the verdict; above it stands what to type next, where the results are, and each kind of error once."""
    ended = summary(total=2000, succeeded=1980, failed=20, output="/data/out")
    assert summary_lines(ended, verb="run", ledger="durabatch.db", took_s=3.21) == [
        "failed:",
        "  ValueError: could not convert string to float: 'N/A' - 20 items, first r0037, last r1937",
        "results: `durabatch results`; batches and summary.json in /data/out",
        "next:    `durabatch errors` for all of it, `durabatch retry` tries the failed again",
        "nightly: 2,000 items, 1,980 succeeded, 20 failed in 3.2 s, 1,000/s",
    ]


def test_skipped_items_are_told_by_reason_with_the_remedy():
    """Each reason once, the commonest first, with where it was met and what can be done; data is harmless and short."""
    groups = (
        SkippedGroup("no such host", "Check the name in DNS", 12, "a1"),
        SkippedGroup("too old\x1b[31m" + "x" * 999, None, 1, "b7\x1b"),
        *(SkippedGroup(f"reason {number}", None, 2, "c") for number in range(6)),
    )
    ended = dataclasses.replace(summary(total=25, skipped=25, errors=(), code=0), skipped=groups)
    lines = summary_lines(ended, verb="run", ledger="durabatch.db", took_s=1.0)
    assert lines[:3] == ["skipped:", "  no such host - 12 items, first a1", "    remedy: Check the name in DNS"]
    assert lines[3].startswith(r"  too old\x1b[31mxxx")
    assert lines[3].endswith(r"... - 1 item, b7\x1b")
    assert lines[7] == "  3 other reasons - 6 items"
    assert lines[-1] == "nightly: 25 items, 0 succeeded, 0 failed, 25 skipped in 1.0 s, 1,000/s"
    assert all(len(line) < 300 and "\x1b" not in line for line in lines)


def test_what_was_spent_stands_above_the_results():
    """With what the whole will cost while the run is not done."""
    halted = summary(state="halted", reason="budget of 5 usd is spent", code=3, errors=(), executed=5, total=10, succeeded=5, pending=5)
    status = dataclasses.replace(halted.status, spent={"usd": 5.02, "tokens": 1000.0}, forecast={"usd": 10.04})
    lines = summary_lines(dataclasses.replace(halted, status=status), verb="run", ledger="durabatch.db", took_s=1.0)
    assert lines[0] == "spent:   usd 5.02 (about 10.04 when all is done), tokens 1,000"


def test_what_the_cache_gave_is_told():
    """How many items needed not be run."""
    ended = summary(total=20_000, succeeded=20_000, errors=(), code=0)
    lines = summary_lines(dataclasses.replace(ended, status=dataclasses.replace(ended.status, cached=1200)), verb="run", ledger="durabatch.db", took_s=1.0)
    assert lines[0] == "cached:  1,200 of 20,000 from the cache"


def test_commands_can_be_typed_where_the_user_stands():
    """A ledger that is not the default one is named in every command, quoted."""
    lines = summary_lines(summary(total=1, succeeded=1, errors=(), code=0, executed=1), verb="run", ledger="my ledger.db", took_s=1)
    assert lines[0] == "results: `durabatch results --ledger 'my ledger.db'`"


def test_an_interruption_is_told_with_the_way_on():
    """How much is done, and that the same command goes on; nothing sounds like a failure."""
    stopped = summary(
        state="halted", reason="stopped by SIGINT", code=130, errors=(), executed=489, total=2000, succeeded=489, pending=1511
    )
    *_, hint, last = summary_lines(stopped, verb="run", ledger="durabatch.db", took_s=1)
    assert hint == "next:    the same command, or `durabatch resume`"
    assert last == "nightly: stopped by SIGINT; 489 of 2,000 done in 1.0 s, 244/s; the same command goes on"


def test_a_halt_gives_its_reason():
    """Bad input met late: the file and the line, and what was done before."""
    halted = summary(
        state="halted",
        reason="bad input: x.jsonl:7: not JSON",
        code=3,
        complete=False,
        resumed=5,
        errors=(),
        executed=20,
        total=25,
        succeeded=25,
    )
    last = summary_lines(halted, verb="run", ledger="durabatch.db", took_s=1)[-1]
    assert last.startswith("nightly: halted: bad input: x.jsonl:7: not JSON; 25 of 25 so far done in 1.0 s, 10/s, 5 done before")


def test_a_cancelled_run_says_who_cancelled_it():
    """It is over: nothing goes on, and the last line tells why."""
    over = summary(state="cancelled", reason="cancelled by ana (pid 7)", errors=(), executed=5, total=9, succeeded=5, cancelled=4)
    *_, last = summary_lines(over, verb="run", ledger="durabatch.db", took_s=1.0)
    assert last == "nightly: cancelled by ana (pid 7); 9 items, 5 succeeded, 0 failed, 4 cancelled in 1.0 s, 2.5/s"


@pytest.mark.parametrize(
    ("verb", "counts", "line"),
    [
        ("run", {"succeeded": 1980, "failed": 20}, "nothing to do: 1,980 succeeded, 20 failed; `durabatch retry` tries the failed again"),
        ("run", {"succeeded": 7}, "nothing to do: 7 succeeded, 0 failed"),
        ("run", {"undone": 3}, "nothing to do: 0 succeeded, 0 failed, 3 undone; `durabatch retry --undone` runs what is undone again"),
        ("retry", {"succeeded": 7}, "nothing to retry: 7 succeeded, 0 failed"),
        ("retry", {"succeeded": 7, "pending": 2}, "nothing to retry: 7 succeeded, 0 failed, 2 left; `durabatch resume` does what is left"),
        (
            "retry",
            {"failed": 1},
            "nothing to retry: 0 succeeded, 1 failed, none of them with this error; `durabatch errors` names their errors",
        ),
    ],
)
def test_nothing_to_do_is_one_line(verb, counts, line):
    """A finished run started again says what it holds and what could be typed."""
    idle = summary(resumed=9, executed=0, code=0, total=sum(counts.values()), **counts)
    assert summary_lines(idle, verb=verb, ledger="durabatch.db", took_s=0.1) == [line]


def test_many_kinds_of_error_are_counted_and_long_messages_cut():
    """The summary stays short: five kinds, one line each, data harmless."""
    groups = [dataclasses.replace(GROUP, message=f"{number} \x1b[31m" + "x" * 999, item_count=2) for number in range(8)]
    lines = summary_lines(summary(total=16, failed=16, errors=groups), verb="run", ledger="durabatch.db", took_s=1)
    assert lines[6] == "  3 other kinds of error - 6 items"
    assert all(len(line) < 300 and "\x1b" not in line for line in lines)
