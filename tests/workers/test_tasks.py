"""Async handlers: many items on one loop, each with its own end."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from durabatch.workers.protocol import Failure, Flush, Interrupt, Ready, Release, Released, Stop, Tune

#: Items wait in their handler until a file of their name is there.
GATED = """
    import asyncio, pathlib
    here = pathlib.Path(__file__).parent

    async def work(item):
        (here / f"began{item}").touch()
        while not (here / f"go{item}").exists():
            await asyncio.sleep(0.002)
        return item
"""


def test_items_of_several_dispatches_share_a_loop(start, gate):
    """As many items run as the concurrency says, across dispatches; each dispatch is finished when its own last item has ended."""
    worker = start(GATED, concurrency=3)
    worker.dispatch(1, "1", "2")
    worker.dispatch(2, "3", "4", first=3)
    gate.begun(1, 2, 3)
    assert (worker.shown(), gate.has_begun(4)) == ([1, 2, 3], False)
    gate.open(3, 4)
    assert worker.outcomes(2) == {3: "3", 4: "4"}
    gate.open(1, 2)
    assert worker.outcomes(1) == {1: "1", 2: "2"}


def test_many_items_end_once_and_each_with_its_value(start):
    """Thousands of items with context, params and validation come back with their own values and times."""
    worker = start(
        """
        import asyncio
        async def work(item: int, ctx, *, add: int):
            await asyncio.sleep(0.001)
            return [item + add, ctx.item_key]
        """,
        concurrency=8,
        params={"add": "1"},
    )
    before_us = time.time_ns() // 1000
    worker.dispatch(1, *map(str, range(1, 2001)))
    flushes = worker.flushes(1)
    ended = [success for flush in flushes for success in flush.succeeded]
    assert sorted((success[0], success[5]) for success in ended) == [(n, f'[{n + 1},"k{n}"]') for n in range(1, 2001)]
    assert all(before_us <= success[3] <= time.time_ns() // 1000 and success[4] >= 1000 for success in ended)
    assert all(flush.peak_rss_bytes > 1 << 20 for flush in flushes)


@pytest.mark.parametrize(
    "raised", ["SystemExit(0)", "KeyboardInterrupt()", "GeneratorExit()", "asyncio.CancelledError()", "ValueError('v')"]
)
def test_no_exception_stops_the_loop(start, raised):
    """Row 67: what would end a loop ends its item alone; the neighbours, before and behind, succeed."""
    worker = start(
        f"""
        import asyncio
        async def work(item):
            await asyncio.sleep(0.001)
            if item == 0: raise {raised}
            return item
        """,
        concurrency=4,
    )
    worker.dispatch(1, *["1", "0", "2"] * 20)
    outcomes = worker.outcomes(1)
    failures = [item for item, outcome in outcomes.items() if isinstance(outcome, Failure)]
    assert sorted(failures) == list(range(2, 61, 3))
    assert {outcomes[item].error_type for item in failures} == {raised.partition("(")[0].removeprefix("asyncio.")}


def test_the_traceback_shows_the_users_lines_alone(start, folder):
    """Neither the loop nor durabatch is in it."""
    found = start("import asyncio\nasync def work(item):\n    await asyncio.sleep(0)\n    return 1 / item").only("0")
    assert found.traceback.splitlines()[1].strip() == f'File "{folder}/jobs.py", line 4, in work'
    assert found.traceback.count("File ") == 1


def test_an_item_that_cannot_be_decoded_fails_alone(start):
    """What fails before there is a task is an outcome like any other, and its place is used again."""
    worker = start("async def work(item: int): return item", concurrency=2)
    worker.dispatch(1, *['"x"', "1", '"y"', '"z"', "2"])
    outcomes = worker.outcomes(1)
    assert [outcomes[item] if item in (2, 5) else outcomes[item].error_type for item in range(1, 6)] == [
        "ValidationError", "1", "ValidationError", "ValidationError", "2",
    ]  # fmt: skip
    assert worker.shown() == []


def test_values_are_checked_as_everywhere(start):
    """What cannot be stored is a ResultError; a returned verdict is one."""
    worker = start(
        """
        import durabatch
        async def work(item, ctx):
            ctx.spend(usd=item)
            return [{1, 2}, durabatch.Skip("nothing to do", "none"), lambda: 0, "x" * 2_000_000][item]
        """
    )
    worker.dispatch(1, "0", "1", "2", "3")
    (flush,) = worker.flushes(1)
    assert [(one.item_id, one.outcome, one.error_type) for one in flush.failed] == [
        (1, "failed", "ResultError"),
        (2, "skipped", ""),
        (3, "failed", "ResultError"),
        (4, "failed", "ResultTooLarge"),
    ]
    assert flush.spends == {1: {"usd": 0.0}, 2: {"usd": 1.0}, 3: {"usd": 2.0}, 4: {"usd": 3.0}}


def test_an_item_is_cancelled_at_its_limit(start):
    """The task is told by a cancellation, the context says so, and the outcome has the limit and the place where it was."""
    worker = start(
        """
        import asyncio, pathlib
        async def work(item, ctx):
            try:
                await asyncio.sleep(item)
            except asyncio.CancelledError:
                pathlib.Path("told").write_text(str(ctx.cancelled))
                raise
            return ctx.cancelled
        """,
        timeout_s=0.2,
        concurrency=4,
    )
    worker.dispatch(1, "0", "600", "0.01")
    outcomes = worker.outcomes(1)
    late = outcomes.pop(2)
    assert outcomes == {1: "false", 3: "false"}
    assert (late.outcome, late.error_type, late.message, late.retryable) == ("timed_out", "ItemTimeoutError", "timeout after 0.2 s", True)
    assert "TimeoutError" in late.kinds
    assert "asyncio.sleep(item)" in late.traceback
    assert 200_000 <= late.duration_us < 20_000_000
    assert (worker.errors.parent / "told").read_text() == "True"


@pytest.mark.parametrize("end", ["return 'too late'", "raise ValueError('cleaning up failed')"])
def test_what_a_cancelled_item_does_then_does_not_count(start, end):
    """A value and an error that come after the limit are a timeout."""
    worker = start(
        f"""
        import asyncio
        async def work(item):
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                {end}
        """,
        timeout_s=0.05,
    )
    assert worker.only().outcome == "timed_out"


def test_the_items_own_deadline_counts_when_it_is_nearer(start):
    """Of timeout and deadline the nearer one ends the item, and is named; without a timeout the deadline alone."""
    source = "import asyncio\nasync def work(item): await asyncio.sleep(item)"
    worker = start(source, timeout_s=0.1, concurrency=4)
    worker.dispatch(1, "600", "600", "600", limits={2: 0.05, 3: 600.0})
    outcomes = worker.outcomes(1)
    assert [outcomes[item].message for item in (1, 3)] == ["timeout after 0.1 s"] * 2
    assert outcomes[2].message.endswith(" s (item deadline)")
    other = start(source)
    other.dispatch(1, "600", "0", limits={1: 0.0})
    outcomes = other.outcomes(1)
    assert (outcomes[1].message, outcomes[2]) == ("timeout after 0 s (item deadline)", "null")


def test_the_timeout_can_be_changed_for_what_is_running(start, gate):
    """A limit set while items run ends them, one that is lifted does not."""
    worker = start(GATED, concurrency=2, timeout_s=600.0)
    worker.dispatch(1, "1", "2")
    gate.begun(1, 2)
    worker.send(Tune(None, 2))
    gate.open(1)
    assert [success[0] for success in worker.receive(Flush).succeeded] == [1]
    worker.send(Tune(0.05, 2))
    assert worker.outcomes(1)[2].message == "timeout after 0.05 s"


def test_changes_that_came_before_the_worker_was_ready_count(start):
    """Limits sent while the handler is being imported are obeyed."""
    worker = start("import asyncio, time\ntime.sleep(0.2)\nasync def work(item): await asyncio.sleep(600)", ready=False)
    worker.send(Tune(0.05, 2))
    worker.receive(Ready)
    assert worker.only().message == "timeout after 0.05 s"


def test_a_task_that_does_not_heed_stays_in_its_cell(start, gate, eventually):
    """The neighbours end, and what swallows its cancellation is still shown, for the coordinator to end the worker."""
    worker = start(
        """
        import asyncio, pathlib
        async def work(item):
            while item == 2:
                try:
                    await asyncio.sleep(600)
                except asyncio.CancelledError:
                    pathlib.Path("swallowed").touch()
            return item
        """,
        timeout_s=0.1,
        concurrency=2,
    )
    worker.dispatch(1, "2", "1", "1")
    ended = []
    while len(ended) < 2:
        ended += [success[0] for success in worker.receive(Flush).succeeded]
    eventually((worker.errors.parent / "swallowed").exists)
    assert (sorted(ended), worker.shown()) == ([2, 3], [1])
    cell = worker.cells.of_worker(1)[0]
    assert time.monotonic_ns() // 1000 - cell.monotonic_us >= 100_000
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait() == -signal.SIGTERM
    assert worker.shown() == [1]


def test_the_concurrency_of_a_loop_can_be_changed(start, gate):
    """More items at once begin at once, up to the number of cells; fewer are reached as items end."""
    worker = start(GATED, concurrency=1)
    worker.dispatch(1, *map(str, range(1, 21)))
    gate.begun(1)
    worker.send(Tune(None, 100))
    gate.begun(*range(1, 9))
    assert (len(worker.shown()), gate.has_begun(9)) == (8, False)
    worker.send(Tune(None, 2))
    # A release is answered by the thread that handed the change to the loop before.
    worker.send(Release(0))
    assert worker.receive(Released).items == {}
    gate.open(*range(1, 8))
    gate.begun(9)
    assert worker.shown() == [8, 9]
    gate.open(*range(8, 21))
    assert worker.outcomes(1).keys() == set(range(1, 21))


def test_every_item_of_a_loop_ends_once_under_releases(start):
    """However releases fall, each item is sent or given back before its dispatch is finished, which is said once."""
    worker = start("import asyncio\nasync def work(item):\n    await asyncio.sleep(item / 1000)\n    return item", concurrency=8)
    count, finished, found = 40, [], []
    for dispatch_id in range(1, count + 1):
        worker.dispatch(dispatch_id, *["0", "1", "0", "2"] * 12, first=dispatch_id * 100)
        worker.send(Release(dispatch_id % 60))
    while len(finished) < count:
        message = worker.receive()
        if isinstance(message, Released):
            found += [item for items in message.items.values() for item in items]
        else:
            found += [success[0] for success in message.succeeded]
            if message.finished:
                finished.append(message.dispatch_id)
                assert {n for n in found if n // 100 == message.dispatch_id} == {message.dispatch_id * 100 + n for n in range(48)}
    assert sorted(found) == [dispatch_id * 100 + n for dispatch_id in range(1, count + 1) for n in range(48)]
    assert sorted(finished) == list(range(1, count + 1))


def test_an_interruption_leaves_the_items_of_a_loop_in_their_cells(start, gate):
    """What had finished is sent, and every item that was running is shown as running; the handlers are not even told."""
    worker = start(GATED, concurrency=3)
    worker.dispatch(1, "1", "2", "3", "4")
    gate.begun(1, 2, 3)
    gate.open(2)
    gate.begun(4)
    worker.send(Interrupt())
    assert worker.is_gone_after(found := [])
    assert [success[0] for flush in found for success in flush.succeeded] == [2]
    assert (worker.wait(), worker.shown()) == (0, [1, 3, 4])


def test_a_blocked_loop_still_hears_and_is_seen(start, eventually):
    """A handler that never gives the loop back stands in the cell, with the others that wait; unstarted items come back all the same."""
    worker = start(
        "import asyncio, time\nasync def work(item):\n    await asyncio.sleep(600 if item else 0)\n    time.sleep(600)", concurrency=2
    )
    worker.dispatch(1, "1", "0", "3", "4")
    eventually(lambda: worker.shown() == [1, 2])
    worker.send(Release())
    assert worker.receive(Released).items == {1: [3, 4]}
    worker.send(Interrupt())
    assert worker.is_gone()
    assert (worker.wait(), worker.shown()) == (0, [1, 2])


def test_what_the_handler_left_running_is_cancelled_at_the_end(start, folder):
    """Stop lets all items end; then background tasks are cancelled, async generators closed, and the worker exits with status 0."""
    worker = start(
        """
        import asyncio, pathlib
        kept = []
        async def ticks():
            try:
                while True: yield await asyncio.sleep(0.001)
            finally:
                pathlib.Path("closed").touch()
        async def background():
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                pathlib.Path("cancelled").touch()
                raise
        async def work(item):
            kept.append((asyncio.create_task(background()), generator := ticks()))
            await anext(generator)
            return item
        """
    )
    worker.dispatch(1, "1", "2")
    worker.send(Stop())
    assert worker.outcomes(1) == {1: "1", 2: "2"}
    assert worker.is_gone()
    assert (worker.wait(), worker.shown()) == (0, [])
    assert (folder / "cancelled").exists()
    assert (folder / "closed").exists()


def test_a_background_task_that_does_not_end_is_ended_after_the_grace(start):
    """Nothing holds a stopped worker up for longer than the grace."""
    worker = start(
        """
        import asyncio
        kept = []
        async def background():
            while True:
                try:
                    await asyncio.sleep(600)
                except asyncio.CancelledError:
                    continue
        async def work(item):
            kept.append(asyncio.create_task(background()))
        """
    )
    worker.dispatch(1, "1")
    worker.send(Stop())
    assert worker.outcomes(1) == {1: "null"}
    assert worker.wait() == 0


def test_a_copy_of_a_loop_records_nothing(start, folder):
    """Row 76: in a process forked off in a task neither that task nor its neighbours go on; each item runs and counts once."""
    worker = start(
        """
        import asyncio, os
        async def work(item):
            for _ in range(20):
                await asyncio.sleep(0)
                if item == 2 and _ == 10 and os.fork() == 0:
                    return "from the copy"
            with open("ran", "a") as file: file.write(f"{item}\\n")
            return item
        """,
        concurrency=4,
    )
    worker.dispatch(1, "1", "2", "3", "4")
    assert worker.outcomes(1) == {item: str(item) for item in (1, 2, 3, 4)}
    worker.send(Stop())
    assert worker.is_gone()
    assert worker.wait() == 0
    assert sorted((folder / "ran").read_text().split()) == ["1", "2", "3", "4"]


def test_subprocesses_and_threads_of_a_loop_work(start):
    """What asyncio offers besides tasks works in a worker."""
    worker = start(
        """
        import asyncio
        async def work(item):
            process = await asyncio.create_subprocess_exec("echo", str(item), stdout=asyncio.subprocess.PIPE)
            out, _ = await process.communicate()
            return [out.decode().strip(), await asyncio.to_thread(abs, -item)]
        """
    )
    worker.dispatch(1, "1", "2")
    assert worker.outcomes(1) == {1: '["1",1]', 2: '["2",2]'}


def test_many_waiting_bytes_of_a_loop_are_sent_at_once(start):
    """Results of 256 KiB together are sent before the dispatch is finished."""
    worker = start("async def work(item): return 'x' * 1000", concurrency=8)
    worker.dispatch(1, *["1"] * 2000)
    flushes = worker.flushes(1)
    assert sum(len(flush.succeeded) for flush in flushes) == 2000
    assert max(len(flush.succeeded) for flush in flushes) <= 400


def test_surroundings_are_clean_for_an_item_that_runs_alone(start, folder):
    """Row 80: with one at a time an item begins in the directory of the start, whatever the one before did."""
    worker = start("import os\nasync def work(item):\n    found = os.getcwd()\n    os.chdir('/')\n    return found")
    worker.dispatch(1, "1", "2", "3")
    assert {json.loads(value) for value in worker.outcomes(1).values()} == {str(folder)}


def test_a_worker_for_sync_handlers_has_no_loop(start, monkeypatch):
    """Neither asyncio nor the module for programs is loaded in a worker that needs neither."""
    for name in [name for name in os.environ if name.startswith(("COV_CORE_", "COVERAGE_"))]:
        monkeypatch.delenv(name)
    worker = start(
        "import sys\ndef work(item): return sorted({'asyncio', 'subprocess', 'apsw', 'click', 'psutil', 'rich'} & set(sys.modules))"
    )
    assert worker.only() == "[]"
    other = start("import sys\nasync def work(item): return sorted({'apsw', 'click', 'psutil', 'rich', 'pydantic'} & set(sys.modules))")
    assert other.only() == "[]"
