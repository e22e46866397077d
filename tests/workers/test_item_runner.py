"""One item at a time, in the calling process: the same code that workers run."""

from __future__ import annotations

import os
import time

import pytest

from durabatch import loading
from durabatch.verdicts import Fail, Retry, Skip, Snooze
from durabatch.workers.backlog import Waiting
from durabatch.workers.cells import Cells
from durabatch.workers.handlers import Handlers
from durabatch.workers.item_runner import ItemRunner
from durabatch.workers.outcomes import Outcomes
from durabatch.workers.protocol import Dispatch, Start
from durabatch.workers.resources import Resources


def start(**changes):
    settings = {
        "worker": 0,
        "run_id": 1,
        "run_name": "r",
        "handler": {},
        "params": {},
        "sys_path": [],
        "cells_path": "",
        "cell": 0,
        "inline_bytes": 100,
        "max_result_bytes": 1000,
        "term_grace_s": 1.0,
    }
    return Start(**settings | changes)


def runner_of(function, **settings):
    """Return a runner that has begun dispatch 4."""
    runner = ItemRunner(start(), Handlers(loading.from_function(function, {}), None, Resources()), **settings)
    runner.begin(Waiting(Dispatch(4, []), Outcomes(0, 100, 4)))
    return runner


def outcome_of(act):
    """Return the failure of one item whose handler does *act*."""
    runner = runner_of(lambda item: act())
    runner.run(2, (7, 1, "a", "2"))
    (failure,) = runner.outcomes.take(finished=True).failed
    return failure


def raiser(error):
    def work():
        raise error

    return work


def test_items_run_inline():
    """Success and failure of a function at hand are outcomes, and the process is left as the handler left it."""

    def work(item, ctx):
        return [ctx.item_key, ctx.item_id, 1 / item]

    runner = runner_of(work)
    runner.run(2, (7, 1, "a", "2"))
    runner.run(2, (8, 3, "b", "0"))
    flush = runner.outcomes.take(finished=True)
    assert [(success[0], success[5]) for success in flush.succeeded] == [(7, '["a",7,0.5]')]
    assert [(failed.item_id, failed.number, failed.error_type) for failed in flush.failed] == [(8, 3, "ZeroDivisionError")]
    assert flush.peak_rss_bytes > 1 << 20


def test_the_cell_shows_the_item_until_it_is_left(tmp_path):
    """An item stands in the cell while its handler runs and until the next one, or nothing, takes its place."""
    cells = Cells.create(tmp_path / "cells", 1, "boot", 1)
    cells.occupy(0, os.getpid(), 1)
    seen = []
    runner = runner_of(lambda item: seen.append(cells.at(0)), window=cells.window(0))
    before_us, wall_us = time.monotonic_ns() // 1000, time.time_ns() // 1000
    runner.run(2, (7, 3, "a", "2"))
    assert [(cell.item_id, cell.dispatch_id, cell.number) for cell in seen] == [(7, 4, 3)]
    assert before_us <= seen[0].monotonic_us <= time.monotonic_ns() // 1000
    assert abs(seen[0].started_at_us - wall_us) < 60_000_000
    assert cells.at(0) == seen[0]
    runner.leave()
    assert cells.at(0).item_id is None


@pytest.mark.parametrize("how", ["raised", "returned"])
@pytest.mark.parametrize(
    ("verdict", "facts"),
    [
        (Skip("no such host", "fix DNS"), ("skipped", "", "no such host", "fix DNS", None, True)),
        (Skip("why"), ("skipped", "", "why", None, None, True)),
        (Snooze("10m", "early"), ("snoozed", "", "early", None, 600.0, True)),
        (Snooze(5), ("snoozed", "", "", None, 5.0, True)),
        (Retry(after="30s", reason="rate limited"), ("failed", "Retry", "rate limited", None, 30.0, True)),
        (Retry(), ("failed", "Retry", "", None, None, True)),
        (Fail("bad record"), ("failed", "Fail", "bad record", None, None, False)),
    ],
    ids=["skip", "skip without remedy", "snooze", "snooze without reason", "retry", "bare retry", "fail"],
)
def test_a_verdict_says_how_the_item_ends(verdict, facts, how):
    """Raised or returned, a verdict becomes the outcome, with its reason, remedy and delay."""
    found = outcome_of(raiser(verdict) if how == "raised" else lambda: verdict)
    assert (found.outcome, found.error_type, found.message, found.remedy, found.after_s, found.retryable) == facts


def test_a_verdict_keeps_the_error_it_came_from():
    """The traceback of a verdict raised from an error shows both; a reason alone has none."""

    def work():
        try:
            raise ConnectionError("refused")
        except ConnectionError as error:
            raise Fail("gone") from error

    assert "ConnectionError: refused" in outcome_of(work).traceback
    assert outcome_of(raiser(Skip("why"))).traceback == outcome_of(lambda: Fail("why")).traceback == ""


def test_a_failure_names_its_kinds_and_its_group():
    """A retry policy finds the classes of the error by short and by full name, and errors of a kind share a group."""

    class OddError(ConnectionRefusedError):
        pass

    found = outcome_of(raiser(OddError("port 8080 of 'h1' at /srv/x")))
    assert found.kinds[0] == "OddError"
    assert {f"{__name__}.{OddError.__qualname__}", "ConnectionRefusedError", "ConnectionError", "OSError", "Exception"} <= set(found.kinds)
    assert "object" not in found.kinds
    assert found.error_group == "OddError: port <n> of <text> at <path>"


def test_what_an_item_spent_goes_with_its_end():
    """Amounts are added up by unit, for items that succeed and for those that fail; others have none."""

    def work(item, ctx):
        if item:
            ctx.spend(usd=0.5, tokens=10)
            ctx.spend(usd=0.25)
        return 1 / (item - 1)

    runner = runner_of(work)
    for item_id, payload in ((7, "2"), (8, "1"), (9, "0")):
        runner.run(2, (item_id, 1, "a", payload))
    spent = {"usd": 0.75, "tokens": 10.0}
    assert runner.outcomes.take(finished=True).spends == {7: spent, 8: spent}
    assert runner.outcomes.take(finished=True).spends == {}
