from __future__ import annotations

import pytest

from durabatch.flow.halting import HaltRule, Stop, tolerated
from durabatch.limits import Halt, Limit


def rule(halt=None, **settings):
    """Return a rule, the halt part as a person writes it."""
    return HaltRule(Halt.parse(halt) if halt else None, **settings)


def stop_after(halt, ended, failed):
    """Return the verdict after so many ends."""
    made = rule(halt)
    made.observe(ended=ended, failed=failed)
    return made.verdict({})


# -- failures -----------------------------------------------------------------------------------------------------------------


def test_without_rules_nothing_stops_a_run():
    """A million failures are the user's business."""
    made = rule()
    made.observe(ended=10**6, failed=10**6)
    assert made.verdict({"usd": 1e9}) is None
    assert made.canary_left(10, 0) is None


@pytest.mark.parametrize(
    ("halt", "ended", "failed", "stop"),
    [
        ("now,fail=3", 3, 2, None),
        ("now,fail=3", 3, 3, Stop(True, "halted: 3 items failed (--halt now,fail=3)")),
        ("soon,fail=1", 1, 1, Stop(False, "halted: 1 item failed (--halt soon,fail=1)")),
        ("soon,fail=1", 1000, 0, None),
        ("soon,fail=1000", 5000, 1234, Stop(False, "halted: 1,234 items failed (--halt soon,fail=1000)")),
        ("soon,fail=10%", 19, 19, None),
        ("soon,fail=10%", 20, 1, None),
        ("soon,fail=10%", 20, 2, Stop(False, "halted: 2 of 20 items failed (--halt soon,fail=10%)")),
        ("now,fail=0.5%", 1000, 5, Stop(True, "halted: 5 of 1,000 items failed (--halt now,fail=0.5%)")),
        ("now,fail=0.5%", 1000, 4, None),
        ("now,fail=0%", 1000, 0, None),
        ("now,fail=0%", 1000, 1, Stop(True, "halted: 1 of 1,000 items failed (--halt now,fail=0%)")),
        ("now,fail=100%", 20, 20, Stop(True, "halted: 20 of 20 items failed (--halt now,fail=100%)")),
        ("now,fail=100%", 21, 20, None),
    ],
)
def test_failures_stop_a_run_as_they_were_told_to(halt, ended, failed, stop):
    """At the count or the share, which counts from the 20th end on; never without a failure."""
    assert stop_after(halt, ended, failed) == stop


def test_ends_add_up():
    """Each observation is of what ended since the one before."""
    made = rule("now,fail=3")
    for _ in range(2):
        made.observe(ended=10, failed=1)
        assert made.verdict({}) is None
    made.observe(ended=0, failed=0)
    assert made.verdict({}) is None
    made.observe(ended=1, failed=1)
    assert made.verdict({}).now


def test_a_share_that_was_reached_and_fell_again_is_judged_as_it_is_now():
    """The rule looks at all that ended, not at its worst moment."""
    made = rule("soon,fail=50%")
    made.observe(ended=19, failed=19)
    made.observe(ended=81, failed=0)
    assert made.verdict({}) is None


# -- canary -------------------------------------------------------------------------------------------------------------------


def test_the_canary_goes_alone():
    """No more than so many items are out until as many have ended; then there is no limit."""
    made = rule(canary=3)
    assert made.canary_left(0, 0) == 3
    assert made.canary_left(2, 0) == 1
    assert made.canary_left(3, 0) == 0
    made.observe(ended=2, failed=0)
    assert made.canary_left(1, 2) == 0
    assert made.canary_left(0, 2) == 1
    made.observe(ended=1, failed=0)
    assert made.canary_left(0, 3) is None
    assert made.verdict({}) is None


def test_a_failed_canary_stops_the_run():
    """Nothing more is handed out, and the reason says how many of how many."""
    made = rule(canary=3)
    made.observe(ended=2, failed=1)
    assert made.canary_left(0, 2) == 0
    assert made.verdict({}) == Stop(False, "halted: 1 of the first 3 items failed (--canary 3)")


def test_a_failure_after_the_canary_is_like_any_other():
    """What passed has passed."""
    made = rule(canary=2)
    made.observe(ended=2, failed=0)
    made.observe(ended=5, failed=5)
    assert made.verdict({}) is None
    assert made.canary_left(50, 7) is None


def test_the_failure_of_the_last_canary_item_counts():
    """Passing needs all of them."""
    made = rule(canary=2)
    made.observe(ended=1, failed=0)
    made.observe(ended=1, failed=1)
    assert made.canary_left(0, 2) == 0
    assert made.verdict({}) is not None


def test_an_item_that_waits_for_its_next_try_keeps_its_place():
    """A broken handler with retries does not see the whole input one try at a time."""
    made = rule(canary=2)
    assert made.canary_left(2, 0) == 0
    assert made.canary_left(2, 0, is_due=True) == 1
    assert made.canary_left(1, 0, is_due=True) == 1
    assert made.canary_left(100, 1, is_due=True) == 1
    made.observe(ended=2, failed=0)
    assert made.canary_left(0, 2) is None


# -- budgets ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "spent", "reason"),
    [
        ({"usd": 5.0}, {}, None),
        ({"usd": 5.0}, {"usd": 4.999}, None),
        ({"usd": 5.0}, {"tokens": 10**9}, None),
        ({"usd": 5.0}, {"usd": 5.02}, "budget of 5 usd is spent (5.02)"),
        ({"usd": 5.0}, {"usd": 5.0}, "budget of 5 usd is spent (5)"),
        ({"usd": 5.5, "tokens": 1e6}, {"usd": 1.0, "tokens": 1_000_123}, "budget of 1,000,000 tokens is spent (1,000,123)"),
        ({"usd": 0.001}, {"usd": 0.0014}, "budget of 0.001 usd is spent (0.0014)"),
        ({"usd": 100.0}, {"usd": 100.0}, "budget of 100 usd is spent (100)"),
    ],
)
def test_a_spent_budget_stops_the_run(budget, spent, reason):
    """Running items end; the reason shows what was allowed and what it came to."""
    stop = rule(budget=budget).verdict(spent)
    assert stop == (None if reason is None else Stop(False, reason))


def test_failures_are_named_before_money():
    """When several rules say stop, the first one that may stop at once has the word."""
    made = rule("now,fail=1", budget={"usd": 1.0})
    made.observe(ended=1, failed=1)
    assert made.verdict({"usd": 2.0}).now


# -- tolerance ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "total", "failed", "fine"),
    [
        (None, 10, 0, True),
        (None, 10, 1, False),
        ("2", 10, 2, True),
        ("2", 10, 3, False),
        ("0", 10, 0, True),
        ("0", 10, 1, False),
        ("10%", 10, 1, True),
        ("10%", 19, 2, False),
        ("0%", 0, 0, True),
        ("100%", 3, 3, True),
    ],
)
def test_tolerated_failures_leave_a_success(limit, total, failed, fine):
    """Up to the limit, it included, of all items of the run."""
    assert tolerated(None if limit is None else Limit.parse(limit, option="--tolerate"), total, failed) is fine
