from __future__ import annotations

import random

import pytest

from durabatch.flow.timing import LEAST_LIMIT_S, AttemptLimit, RunningMedian, remaining
from durabatch.limits import Timeout


def limit(text):
    """Return the limit as a person writes it."""
    return AttemptLimit(Timeout.parse(text))


def median_of(values):
    """Return the running median of *values*."""
    median = RunningMedian()
    for value in values:
        median.add(value)
    return median


# -- the limit ----------------------------------------------------------------------------------------------------------------


def test_without_a_timeout_there_is_no_limit():
    """Whatever is observed."""
    one = AttemptLimit(None)
    one.observe(1.0)
    assert one.seconds is None


def test_a_fixed_time_holds_from_the_first_item_on():
    """Successes do not change it."""
    one = limit("30s")
    assert one.seconds == 30
    for _ in range(50):
        one.observe(1.0)
    assert (one.seconds, one.median.count) == (30, 0)


def test_a_share_of_the_median_counts_from_the_twentieth_success_on():
    """Before that nobody knows what is usual."""
    one = limit("200%")
    for _ in range(19):
        one.observe(3.0)
    assert one.seconds is None
    one.observe(3.0)
    assert one.seconds == pytest.approx(6, rel=0.0101)


def test_a_few_slow_items_do_not_move_the_limit():
    """It is the median, not the mean."""
    one = limit("150%")
    for duration_s in [2.0] * 90 + [3600.0] * 30:
        one.observe(duration_s)
    assert one.seconds == pytest.approx(3.0, rel=0.0101)


def test_quick_items_are_not_ended_for_a_hiccup_of_the_machine():
    """Twice a millisecond would end innocents; the limit has a floor."""
    one = limit("200%")
    for _ in range(1000):
        one.observe(0.001)
    assert one.seconds == LEAST_LIMIT_S


# -- the median ---------------------------------------------------------------------------------------------------------------


def exact(values):
    """Return the median, of an even number the larger one in the middle."""
    return sorted(values)[len(values) // 2]


def test_every_median_is_right_to_one_percent(seed):
    """From the first value on, ties included."""
    rng = random.Random(seed)
    median, values = RunningMedian(), []
    assert median.value == 0
    for _ in range(500):
        values.append(rng.choice([rng.random(), 1.0, rng.expovariate(1)]))
        median.add(values[-1])
        assert median.value == pytest.approx(exact(values), rel=0.0101)


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.random(),
        lambda rng: rng.lognormvariate(0, 8),
        lambda rng: rng.lognormvariate(3, 0.1),
        lambda rng: rng.paretovariate(0.3) / 1000,
        lambda rng: rng.choice([0.1, 3600.0]),
        lambda rng: rng.choice([1e-6, 1e-6, 1e9]),
    ],
)
def test_no_spread_is_too_wide_for_the_median(draw, seed, scaled):
    """Heavy tails and two heaps included: a limit that runs away would end nothing, one that falls would end innocents."""
    rng = random.Random(seed)
    values = [min(1e9, draw(rng)) for _ in range(scaled(50_000))]
    assert median_of(values).value == pytest.approx(exact(values), rel=0.0101)


@pytest.mark.parametrize("step", [0, 1, -1])
def test_the_order_of_the_times_does_not_matter(step):
    """A run that gets slower or quicker is judged by all of it."""
    assert median_of(5000.0 + step * count for count in range(3000)).value == pytest.approx(5000 + step * 1500, rel=0.011)


def test_the_median_costs_little_memory(seed, scaled):
    """Every length of time there is goes into a bounded number of buckets."""
    rng = random.Random(seed)
    median = median_of(10 ** rng.uniform(-12, 15) for _ in range(scaled(100_000)))
    median.add(0.0)
    assert len(median.buckets) < 1800


# -- the item's deadline ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("passed_s", "left_s"), [(0, 60), (20, 40), (59.5, 0.5), (60, 0.001), (10**9, 0.001), (-3600, 60)])
def test_an_item_has_left_what_its_deadline_leaves(passed_s, left_s):
    """Never nothing, and never more than all of it, whatever the clock did."""
    now_us = 1_700_000_000_000_000
    assert remaining(60.0, now_us - int(passed_s * 1e6), now_us) == pytest.approx(left_s)
