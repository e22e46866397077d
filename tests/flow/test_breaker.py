from __future__ import annotations

import random

import pytest

from durabatch.flow.breaker import LONGEST_WAIT_S, BreakerState
from durabatch.limits import Breaker


def made(text):
    """Return a breaker as a person writes it."""
    return BreakerState(Breaker.parse(text))


def feed(state, ends, now_s=0.0, group="E"):
    """Let attempts end: ``+`` succeeded, ``-`` failed."""
    for end in ends:
        state.observe(end == "+", None if end == "+" else group, now_s)


def test_a_breaker_is_closed_at_first():
    """No limit, no reason, nothing to note."""
    state = made("50%")
    assert (state.allowed(0.0), state.reason, state.changed) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "ends", "is_open"),
    [
        ("50%", "-" * 19, False),
        ("50%", "-" * 20, True),
        ("50%", "+-" * 10, True),
        ("50%", "+" * 11 + "-" * 9, False),
        ("100%", "-" * 19 + "+", False),
        ("same=3", "--", False),
        ("same=3", "---", True),
        ("same=3", "--+--", False),
        ("same=3", "--+---", True),
        ("50%,same=30", "-" * 20, True),
        ("90%,same=4", "+" * 30 + "----", True),
    ],
)
def test_a_breaker_opens_by_rate_or_by_a_row(text, ends, is_open):
    """The share counts from 20 attempts on; a success ends a row."""
    state = made(text)
    feed(state, ends)
    assert (state.allowed(0.0) == 0) is is_open


def test_only_the_latest_fifty_count():
    """A long good past does not hide that everything fails now."""
    state = made("50%")
    feed(state, "+" * 10_000 + "-" * 24)
    assert state.allowed(0.0) is None
    feed(state, "-")
    assert state.reason == "breaker is open: 25 of the latest 50 attempts failed (--breaker 50%)"


def test_different_errors_are_no_row():
    """Each item failing in its own way is not one cause."""
    state = made("same=3")
    for group in ["A", "B", "A", "B", "C", "C"]:
        state.observe(False, group, 0.0)
    assert state.allowed(0.0) is None
    state.observe(False, "C", 0.0)
    assert state.reason == "breaker is open: 3 failures in a row with the same error (C) (--breaker same=3)"


def test_failures_without_a_group_are_the_same():
    """Deaths of workers have no exception, and nothing is more alike."""
    state = made("same=2")
    feed(state, "--", group=None)
    assert state.reason == "breaker is open: 2 failures in a row with the same error (--breaker same=2)"


def test_an_open_breaker_waits_then_probes_then_closes():
    """Nothing for the wait, then one item, and all when that succeeds."""
    state = made("same=2,wait=10s")
    feed(state, "--", now_s=100.0)
    assert state.changed.is_open
    assert state.changed.wait_s == 10
    assert state.changed.text == "breaker is open: 2 failures in a row with the same error (E) (--breaker same=2,wait=10s); next try in 10s"
    state.changed = None
    assert [state.allowed(at) for at in (100.0, 109.9, 110.0, 500.0)] == [0, 0, 1, 1]
    assert state.opens_again_s == 110
    assert state.allowed(110.0, out=1) == 0
    assert state.allowed(110.0, out=7) == 0
    state.observe(True, None, 111.0)
    assert (state.allowed(111.0), state.reason, state.opens_again_s) == (None, None, None)
    assert not state.changed.is_open


def test_the_wait_doubles_with_every_failed_probe():
    """Up to five minutes; the success of a probe starts it anew."""
    state, now_s, waits = made("same=2,wait=30s"), 0.0, []
    feed(state, "--")
    for _ in range(7):
        waits.append(state.opens_again_s - now_s)
        now_s = state.opens_again_s
        state.observe(False, "E", now_s)
        assert state.reason == "breaker is open: the probe failed (--breaker same=2,wait=30s)"
    assert waits == [30, 60, 120, 240, 300, 300, 300]
    state.observe(True, None, state.opens_again_s)
    feed(state, "--", now_s=now_s)
    assert state.opens_again_s - now_s == 30


def test_a_longer_wait_than_five_minutes_is_kept():
    """What a person asks for is not made shorter."""
    state = made("same=2,wait=20m")
    feed(state, "--")
    state.observe(False, "E", 1200.0)
    assert state.opens_again_s == 2400 > LONGEST_WAIT_S


def test_what_ends_while_it_is_open_says_nothing_new():
    """Items that were out when it opened neither close it nor make the wait longer."""
    state = made("same=2,wait=10s")
    feed(state, "--")
    state.changed = None
    feed(state, "+-+-----", now_s=5.0)
    assert (state.opens_again_s, state.wait_s, state.changed) == (10, 10, None)


def test_closing_forgets_what_was():
    """The failures that opened it do not count a second time."""
    state = made("50%,same=30")
    feed(state, "-" * 20)
    state.observe(True, None, 30.0)
    feed(state, "-" * 18 + "+", now_s=30.0)
    assert state.allowed(30.0) is None


def test_a_breaker_never_stays_shut(seed, scaled):
    """Whatever ends whenever, items are allowed again within its wait; a lost probe is simply followed by another."""
    rng = random.Random(seed)
    state, now_s = made("40%,same=5,wait=7s"), 0.0
    for _ in range(scaled(20_000)):
        now_s += rng.expovariate(1.0)
        if rng.random() < 0.7:
            state.observe(rng.random() < 0.5, rng.choice("AB"), now_s)
        allowed = state.allowed(now_s)
        assert allowed in (None, 0, 1)
        assert (allowed is None) is (state.reason is None)
        if allowed == 0:
            assert now_s < state.opens_again_s <= now_s + LONGEST_WAIT_S
            assert state.allowed(state.opens_again_s) == 1
