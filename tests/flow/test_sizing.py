from __future__ import annotations

import random

import pytest

from durabatch.flow.forecasting import forecast
from durabatch.flow.sizing import FIRST, LARGEST, TARGET_S, DispatchSize


def settled(seconds_per_item):
    """Return the size after many dispatches of equal items."""
    size = DispatchSize()
    for _ in range(100):
        size.measure(size.items, size.items * seconds_per_item)
    return size


# -- dispatches ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds_per_item", "items"), [(1e-9, LARGEST), (1e-6, LARGEST), (0.001, 100), (0.05, 2), (0.2, 1), (3600.0, 1)])
def test_a_dispatch_takes_about_a_tenth_of_a_second(seconds_per_item, items):
    """From thousands of quick items to a single slow one."""
    assert settled(seconds_per_item).items == pytest.approx(items, abs=1)


def test_a_size_at_most_doubles():
    """One early measurement of cheap items does not hand out an hour of dear ones."""
    size, seen = DispatchSize(), []
    for _ in range(4):
        size.measure(size.items, 0.0)
        seen.append(size.items)
    assert seen == [2 * FIRST, 4 * FIRST, 8 * FIRST, 16 * FIRST]


def test_nothing_measured_changes_nothing():
    """A flush without items says nothing about their time."""
    size = DispatchSize()
    size.measure(0, 5.0)
    assert (size.items, size.seconds_per_item) == (FIRST, None)


def test_a_worker_gets_what_it_can_run_at_once():
    """At a concurrency of a thousand, four items would leave it idle."""
    assert DispatchSize().for_worker(waiting=None, workers=2, least=1000) == 1000
    assert DispatchSize(items=500).for_worker(waiting=None, workers=2, least=100) == 500


@pytest.mark.parametrize(
    ("items", "waiting", "workers", "least", "expected"),
    [
        (100, 10_000, 4, 1, 100),
        (100, 80, 4, 1, 10),
        (100, 3, 4, 1, 1),
        (100, 0, 4, 1, 1),
        (100, 80, 0, 1, 40),
        (4, 10_000, 4, 100, 100),
        (4, 150, 4, 100, 38),
        (4, 3, 4, 100, 1),
        (4, 100, 1, 100, 100),
    ],
)
def test_the_rest_is_shared(items, waiting, workers, least, expected):
    """Near the end nobody takes more than its part, nor more than half of that when it runs one at a time."""
    assert DispatchSize(items=items).for_worker(waiting=waiting, workers=workers, least=least) == expected


@pytest.mark.parametrize(("cap", "expected"), [(None, 50), (1000, 50), (7, 7), (0, 0), (-3, 0)])
def test_no_more_is_handed_out_than_a_limit_leaves(cap, expected):
    """Rates, canaries and probes go before everything."""
    assert DispatchSize(items=50).for_worker(waiting=None, workers=1, least=20, cap=cap) == expected


def test_a_size_is_always_possible(seed, scaled):
    """Between one and the largest, whatever was measured."""
    rng = random.Random(seed)
    size = DispatchSize()
    for _ in range(scaled(20_000)):
        size.measure(rng.randint(0, 3000), rng.choice([0.0, 1e-7, 0.01, 5.0, 1e6]) * rng.random())
        waiting = rng.choice([None, 0, 1, 50, 10**7])
        got = size.for_worker(waiting=waiting, workers=rng.randint(0, 64), least=rng.choice([1, 100]))
        assert 1 <= size.items <= LARGEST
        assert 1 <= got <= max(size.items, 100)
        assert waiting is None or got <= max(1, waiting)
    assert size.seconds_per_item is None or size.items <= max(1, TARGET_S / 1e-7)


# -- forecasts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spent", "ended", "total", "expected"),
    [
        ({}, 5, 10, {}),
        ({"usd": 1.0}, 0, 10, {}),
        ({"usd": 1.0}, 5, 10, {"usd": 2.0}),
        ({"usd": 1.0, "tokens": 300}, 1, 4, {"usd": 4.0, "tokens": 1200}),
        ({"usd": 3.0}, 10, 10, {"usd": 3.0}),
        ({"usd": 3.0}, 10, 0, {"usd": 3.0}),
    ],
)
def test_the_rest_is_taken_to_cost_what_the_first_part_did(spent, ended, total, expected):
    """Nothing ended says nothing; the forecast is never below what is spent."""
    assert forecast(spent, ended, total) == expected
