"""``amap``: the same as ``map``, without keeping the event loop from its other work."""

from __future__ import annotations

import asyncio

import pytest

import durabatch
from tests.api.handlers import picky, slow
from tests.api.test_map import workers_left


def test_the_event_loop_goes_on_meanwhile(here):
    """While items run, other tasks have their turns; the results are those of map."""

    async def program():
        turns = 0

        async def other():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.001)

        task = asyncio.create_task(other())
        results = {one.key: one.ok async for one in durabatch.amap(picky, range(30), workers=2)}
        task.cancel()
        return turns, results

    turns, results = asyncio.run(program())
    assert turns > 10
    assert results == {str(number): number % 10 != 7 for number in range(30)}


def test_leaving_early_drains_and_the_same_call_goes_on(here):
    """After a break and aclose nothing runs, and the run can be taken up again."""

    async def program():
        results = durabatch.amap(slow, range(60), workers=2)
        async for _ in results:
            break
        await results.aclose()
        left = workers_left()
        state = durabatch.Ledger().latest().status().state
        return left, state, [one.key async for one in durabatch.amap(slow, range(60), workers=2)]

    left, state, rest = asyncio.run(program())
    assert (left, state) == ([], "halted")
    assert sorted(rest, key=int) == [str(number) for number in range(60)]
    assert len(here.calls()) == 60


def test_a_cancelled_task_leaves_a_run_that_goes_on(here):
    """Cancelling the task that iterates ends the workers and keeps what was recorded."""

    async def program():
        begun = asyncio.Event()

        async def iterate():
            async for _ in durabatch.amap(slow, range(100), workers=2):
                begun.set()

        task = asyncio.create_task(iterate())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(program())
    assert workers_left() == []
    assert durabatch.Ledger().latest().status().state == "halted"
    assert durabatch.Ledger().latest().resume().counts.succeeded == 100


def test_errors_come_through(here):
    """What map refuses, amap refuses: here a list that is not there."""

    async def program():
        return [one async for one in durabatch.amap(slow, "nowhere.txt", workers=1)]

    with pytest.raises(durabatch.InputError, match=r"cannot read nowhere\.txt"):
        asyncio.run(program())
