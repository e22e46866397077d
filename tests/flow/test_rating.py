from __future__ import annotations

import json
import random

import pytest

from durabatch.flow.rating import LONGEST_PAUSE_S, SharedPause, TokenBucket
from durabatch.limits import Rate

NOW = 1_700_000_000_000_000
SECOND = 1_000_000


def bucket(text="10/1s"):
    """Return a bucket as a person writes its rate."""
    return TokenBucket(Rate.parse(text))


def started(one, now_us):
    """Start all that may start, and return how many."""
    count = one.allowed(now_us)
    one.take(count)
    return count


# -- tokens -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "burst"), [("10/1s", 10), ("50/1m", 1), ("600/m", 10), ("1/1h", 1), ("5/100ms", 50), ("90/1m", 1)])
def test_a_full_bucket_holds_a_seconds_worth(text, burst):
    """At least one item may always start."""
    assert started(bucket(text), NOW) == burst


def test_tokens_come_at_the_rate():
    """Not in gulps at the end of a period."""
    one = bucket("50/1m")
    assert started(one, NOW) == 1
    assert started(one, NOW + int(1.19 * SECOND)) == 0
    assert started(one, NOW + int(1.2 * SECOND)) == 1
    assert started(one, NOW + int(2.4 * SECOND)) == 1


def test_standing_still_saves_up_one_burst():
    """A run that was paused for a day does not make up for it."""
    one = bucket()
    started(one, NOW)
    assert started(one, NOW + 86400 * SECOND) == 10
    assert started(one, NOW + 86400 * SECOND) == 0


def test_what_did_not_start_is_given_back():
    """Up to the burst, never beyond."""
    one = bucket()
    started(one, NOW)
    one.give_back(3)
    assert started(one, NOW) == 3
    one.give_back(500)
    assert started(one, NOW) == 10


def test_what_started_without_leave_is_paid_back():
    """Suspects run outside the allowance; the rate holds over time all the same."""
    one = bucket()
    one.take(30)
    assert one.allowed(NOW) == 0
    assert one.wait_s(NOW) == pytest.approx(2.1)
    assert one.allowed(NOW + 2 * SECOND) == 0
    assert one.allowed(NOW + int(2.1 * SECOND)) == 1


@pytest.mark.parametrize("text", ["10/1s", "7/1m", "1/3d", "999999999/1s", "3/7ms", "1000000000/10us"])
def test_after_the_wait_one_may_start(text, seed):
    """The wait is neither too short, which would make a busy loop, nor a token too long."""
    rng = random.Random(seed)
    one, now_us = bucket(text), NOW
    for _ in range(200):
        one.take(one.allowed(now_us) + rng.randint(0, 2))
        wait_us = round(one.wait_s(now_us) * SECOND)
        assert wait_us > 0 or one.allowed(now_us)
        assert one.allowed(now_us + wait_us // 2) == 0 or wait_us <= 2
        now_us += wait_us
        assert one.allowed(now_us) >= 1
        assert one.wait_s(now_us) == 0


def test_no_more_start_than_rate_times_time_and_a_burst(seed, scaled):
    """In any stretch of time, however the looks at the clock fall."""
    rng = random.Random(seed)
    for text in ["10/1s", "50/1m", "5000/1s", "3/1s"]:
        one, now_us, starts = bucket(text), NOW, []
        for _ in range(scaled(3000)):
            now_us += int(rng.expovariate(1) * SECOND * rng.choice([0.0001, 0.01, 1, 5]))
            count = min(one.allowed(now_us), rng.randint(0, 20))
            one.take(count)
            starts.append((now_us, count))
        for first in rng.sample(range(len(starts)), 100):
            total = 0
            for at_us, count in starts[first : first + 200]:
                total += count
                assert total <= one.per_s * (at_us - starts[first][0]) / SECOND + one.burst + 1e-3


def test_the_rate_is_used_up(seed):
    """Whoever takes all that is allowed gets the rate, not a share of it that rounding leaves."""
    rng = random.Random(seed)
    one, now_us, total = bucket("30/1s"), NOW, 0
    for _ in range(20_000):
        now_us += rng.randrange(100_000)
        total += started(one, now_us)
    assert total == pytest.approx(30 * (now_us - NOW) / SECOND + 30, abs=31)


# -- resume and clocks --------------------------------------------------------------------------------------------------------


def test_a_resume_goes_on_with_what_was_left():
    """The state is JSON; time that passed in between counts as time."""
    before = bucket()
    started(before, NOW)
    stored = json.loads(json.dumps(before.as_json()))
    after = bucket()
    after.restore(stored, NOW + SECOND // 2)
    assert after.allowed(NOW + SECOND // 2) == 5


@pytest.mark.parametrize("jump_s", [-3600, -1, 3600, 10**9])
def test_a_jump_of_the_clock_grants_one_burst_at_most(jump_s):
    """Backward it grants nothing, and the rate goes on from there."""
    one = bucket()
    one.take(one.allowed(NOW))
    now_us = NOW + jump_s * SECOND
    assert one.allowed(now_us) == (10 if jump_s > 0 else 0)
    one.take(one.allowed(now_us))
    assert one.allowed(now_us + SECOND // 2) == 5


@pytest.mark.parametrize("jump_s", [-3600, 3600])
def test_a_resume_under_another_clock_is_no_different(jump_s):
    """What was stored in the future or long ago is worth a burst at most."""
    before = bucket()
    before.take(before.allowed(NOW))
    after = bucket()
    after.restore(before.as_json(), NOW + jump_s * SECOND)
    assert after.allowed(NOW + jump_s * SECOND) == (10 if jump_s > 0 else 0)


def test_another_rate_takes_over_what_it_can_hold():
    """Made slower or faster while it runs, no burst is won by it."""
    fast = bucket("1000/1s")
    fast.allowed(NOW)
    slow = bucket("50/1m")
    slow.restore(fast.as_json(), NOW)
    assert slow.allowed(NOW) == 1
    slow.take(1)
    fast.restore(slow.as_json(), NOW)
    assert fast.allowed(NOW) == 0


@pytest.mark.parametrize(
    "stored",
    [None, {}, {"tokens": 3.0}, {"tokens": "x", "at_us": NOW}, {"tokens": float("nan"), "at_us": NOW}, {"tokens": 1, "at_us": None}],
)
def test_what_cannot_be_read_leaves_a_full_bucket(stored):
    """A first run has nothing stored, and a damaged word must not stop a run."""
    one = bucket()
    one.restore(stored, NOW)
    assert one.allowed(NOW) == 10


def test_a_stored_debt_is_bounded():
    """No stored number makes a run wait for ever."""
    one = bucket()
    one.restore({"tokens": -1e18, "at_us": NOW}, NOW)
    assert one.wait_s(NOW) <= 2


# -- the shared pause ---------------------------------------------------------------------------------------------------------


def test_three_requests_to_wait_pause_everybody():
    """Until the latest of the times that were asked for."""
    pause = SharedPause()
    for now_s, after_s in [(100.0, 10.0), (101.0, 60.0)]:
        pause.observe(after_s, now_s)
        assert pause.left_s(now_s) == 0
    pause.observe(10.0, 105.0)
    assert pause.paused_until_s == 161
    assert pause.left_s(160.0) == 1
    assert pause.left_s(161.0) == pause.left_s(500.0) == 0


def test_requests_far_from_each_other_are_each_items_own():
    """Two within five seconds are no sign, nor are many over a minute."""
    pause = SharedPause()
    for step in range(20):
        pause.observe(600.0, step * 2.6)
    assert pause.paused_until_s == 0


def test_a_pause_is_made_longer_but_never_shorter():
    """Late requests of items that were out move its end only outward."""
    pause = SharedPause()
    for now_s, after_s in [(10.0, 50.0), (10.1, 1.0), (10.2, 1.0), (10.3, 1.0), (10.4, 1.0)]:
        pause.observe(after_s, now_s)
    assert pause.paused_until_s == 60
    pause.observe(100.0, 11.0)
    assert pause.paused_until_s == 111


@pytest.mark.parametrize(("after_s", "left_s"), [(1e9, LONGEST_PAUSE_S), (float("inf"), LONGEST_PAUSE_S), (-5.0, 0.0), (float("nan"), 0.0)])
def test_a_pause_has_an_end(after_s, left_s):
    """Five minutes at most; impossible times make none."""
    pause = SharedPause()
    for _ in range(1000):
        pause.observe(after_s, 50.0)
    assert pause.left_s(50.0) == left_s
    assert len(pause.latest) <= 3
