"""The alarm of a loop: one timer for many attempts."""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic

import pytest

from durabatch.workers.attempts import SPARE_ENTRIES, Alarm, Attempt


@pytest.fixture
def loop():
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        yield loop


def attempt(number):
    return Attempt(number, None, 1, (number, 1, "k", "1"), None)


def test_attempts_are_told_in_the_order_of_their_ends(loop):
    """A nearer end set later comes first; what is over by then is not told; several at one instant all are."""
    told = []
    alarm = Alarm(loop, lambda late: (told.append(late.slot), loop.stop() if len(told) == 4 else None))
    attempts = [attempt(number) for number in range(6)]
    now_s = monotonic()
    for one, after_s in zip(attempts, (0.06, 0.02, 0.04, 600.0, 0.02, 0.03), strict=True):
        alarm.set(one, now_s + after_s)
    attempts[5].is_over = True
    loop.run_forever()
    assert told == [1, 4, 2, 0]
    assert monotonic() - now_s >= 0.06


def test_an_end_that_has_passed_is_told_at_once(loop):
    """Also after all others were forgotten."""
    told = []
    alarm = Alarm(loop, lambda late: (told.append(late.slot), loop.stop()))
    alarm.set(attempt(1), monotonic() + 600)
    alarm.clear()
    alarm.set(attempt(2), monotonic() - 1)
    loop.run_forever()
    assert told == [2]


def test_what_is_over_takes_no_room(loop):
    """However many attempts end before their time, few of them are remembered."""
    alarm = Alarm(loop, lambda late: None)
    for number in range(20_000):
        one = attempt(number)
        alarm.set(one, monotonic() + 600)
        one.is_over = number % 1000 > 0
    assert len(alarm._entries) <= 2 * 20 + SPARE_ENTRIES
