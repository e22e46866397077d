"""The handler in the calling process: a pool of one worker, without a process."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import durabatch
from durabatch import actions
from durabatch.errors import UsageError
from durabatch.runner.inline import InlinePool
from durabatch.workers.cells import Cells
from durabatch.workers.protocol import Dispatch, Flush, Group, Ready, Recorded, Refused, Release, Released, Start, Stop, Tune

PATIENCE_S = 30


class Inline:
    """An inline pool as the coordinator sees it."""

    def __init__(self, folder, function, **settings):
        self.cells = Cells.create(folder / "cells", 8, "boot", 1, 8)
        start = {
            "worker": 1,
            "run_id": 1,
            "run_name": "r",
            "handler": {"kind": "inline"},
            "params": {},
            "sys_path": [],
            "cells_path": "",
            "cell": 0,
            "cell_count": 8,
            "inline_bytes": 1024,
            "max_result_bytes": 1 << 20,
            "term_grace_s": 0.3,
        }
        self.promised = []
        self.pool = InlinePool(Start(**start | settings), function, self.cells, self.record)
        self.inbox = []
        self.pool.start(1)

    def record(self, promise):
        """Record an undo entry, as the coordinator does, in the thread that its ledger belongs to."""
        self.promised.append((promise, threading.get_ident()))
        return Recorded(promise.token, refusal="no room" if promise.item_id == 13 else None)

    def receive(self, kind=None):
        until = time.monotonic() + PATIENCE_S
        while not self.inbox:
            assert time.monotonic() < until, "nothing came"
            self.inbox += [event.message for event in self.pool.poll(0.1)]
        message = self.inbox.pop(0)
        assert kind is None or isinstance(message, kind), message
        return message

    def dispatch(self, dispatch_id, *payloads, first=1, **more):
        items = [(first + index, 1, f"k{first + index}", payload) for index, payload in enumerate(payloads)]
        self.pool.send(1, Dispatch(dispatch_id, [Group(1, items)], **more))

    def outcomes(self, dispatch_id):
        """Return item id to value or failure of a dispatch, until it is finished."""
        found, finished = {}, False
        while not finished:
            flush = self.receive(Flush)
            assert flush.dispatch_id == dispatch_id
            found |= {success[0]: success[5] for success in flush.succeeded} | {failure.item_id: failure for failure in flush.failed}
            finished = flush.finished
        return found


@pytest.fixture
def inline(tmp_path):
    """Make inline pools: ``inline(function)``, ready for items unless told otherwise."""
    made = []

    def make(function, *, ready=True, **settings):
        made.append(Inline(tmp_path, function, **settings))
        assert not ready or made[-1].receive(Ready).pid == os.getpid()
        return made[-1]

    yield make
    for one in made:
        one.pool.close(0)
        one.pool.close(0)
        one.cells.close()


def test_items_run_one_after_the_other(inline):
    """Every item of each dispatch comes back, with the last flush of it saying so, and the cells are empty then."""
    seen = []
    pool = inline(lambda item: seen.append(pool.cells.of_worker(1)[0].item_id) or item + 1)
    pool.dispatch(1, "1", "2")
    pool.dispatch(2, "3", first=3)
    assert pool.outcomes(1) == {1: "2", 2: "3"}
    assert pool.outcomes(2) == {3: "4"}
    assert (seen, pool.cells.of_worker(1)) == ([1, 2, 3], [])


def test_the_coordinator_has_its_turn_between_slow_items(inline):
    """A dispatch is not run to its end at once, and what was not started can be given back."""
    pool = inline(lambda item: time.sleep(0.06))
    pool.dispatch(1, "1", "2", "3")
    assert [success[0] for success in pool.receive(Flush).succeeded] == [1]
    pool.pool.send(1, Release(1))
    assert pool.receive(Released).items == {1: [3]}
    assert pool.outcomes(1) == {2: "null"}
    pool.dispatch(2, "1")
    pool.pool.send(1, Release())
    assert pool.receive(Released).items == {2: [1]}
    assert pool.outcomes(2) == {}


def test_an_idle_pool_waits(inline):
    """Without items a poll takes its time, so that waiting for a due time costs nothing."""
    pool = inline(lambda item: item)
    begun = time.monotonic()
    assert pool.pool.poll(0.05) == []
    assert time.monotonic() - begun >= 0.05


def test_set_up_check_and_resources_work_inline(inline):
    """What belongs to a worker belongs to the calling process."""
    told = []

    @durabatch.handler(setup=lambda: "session", teardown=told.append)
    def work(item, ctx):
        return ctx.resource()

    pool = inline(work)
    pool.dispatch(1, "1")
    assert pool.outcomes(1) == {1: '"session"'}
    assert told == []
    pool.pool.close(0)
    assert told == ["session"]


def test_a_setup_that_fails_inline_is_a_refusal(inline):
    """The run learns of it as from a worker."""

    @durabatch.handler(setup=lambda: 1 / 0)
    def work(item):
        return item

    assert "raised ZeroDivisionError" in inline(work, ready=False).receive(Refused).message


def test_async_items_run_at_once_inline(inline):
    """As many as the concurrency says, across dispatches, each with its own end."""
    running, most = set(), []

    async def work(item):
        running.add(item)
        most.append(len(running))
        await asyncio.sleep(0.02)
        running.discard(item)
        return item

    pool = inline(work, concurrency=3)
    pool.dispatch(1, "1", "2")
    pool.dispatch(2, "3", "4", first=3)
    assert pool.outcomes(1) == {1: "1", 2: "2"}
    assert pool.outcomes(2) == {3: "3", 4: "4"}
    assert (max(most), pool.cells.of_worker(1)) == (3, [])


def test_limits_and_changes_work_inline(inline):
    """An async item is cancelled at its limit; limit and concurrency can be changed meanwhile."""

    async def work(item):
        await asyncio.sleep(item)

    pool = inline(work, concurrency=1, timeout_s=600.0)
    pool.dispatch(1, "600", "600")
    pool.pool.poll(0.01)
    assert len(pool.cells.of_worker(1)) == 1
    pool.pool.send(1, Tune(0.05, 2))
    assert {outcome.message for outcome in pool.outcomes(1).values()} == {"timeout after 0.05 s"}


def test_what_runs_on_the_loop_can_be_interrupted(inline):
    """Running items end as interrupted, unstarted ones come back, and the handlers' own ends do not count any more."""
    told = []

    async def work(item):
        try:
            await asyncio.sleep(600)
        finally:
            told.append(item)

    pool = inline(work, concurrency=2)
    pool.dispatch(1, "1", "2", "3")
    pool.pool.poll(0.01)
    pool.pool.interrupt()
    assert pool.receive(Released).items == {1: [3]}
    outcomes = pool.outcomes(1)
    assert {item: (outcome.outcome, outcome.error_type, outcome.kinds) for item, outcome in outcomes.items()} == dict.fromkeys(
        (1, 2), ("interrupted", "", [])
    )
    assert pool.cells.of_worker(1) == []
    pool.pool.close(0)
    assert sorted(told) == [1, 2]


def test_a_handler_that_exits_ends_its_item_alone_inline(inline):
    """Row 67: neither kind of handler ends the calling process."""

    def leave(item):
        raise SystemExit(item)

    async def leave_later(item):
        await asyncio.sleep(0)
        raise KeyboardInterrupt

    for function, name in ((leave, "SystemExit"), (leave_later, "KeyboardInterrupt")):
        pool = inline(function)
        pool.dispatch(1, "1", "2")
        assert {outcome.error_type for outcome in pool.outcomes(1).values()} == {name}


def test_a_loop_that_runs_already_is_left_alone(inline):
    """In a notebook, where this thread has a loop, async handlers work all the same."""

    async def work(item):
        await asyncio.sleep(0.001)
        return item

    async def notebook():
        pool = inline(work, concurrency=2)
        pool.dispatch(1, "1", "2", "3")
        outcomes = pool.outcomes(1)
        pool.pool.close(0)
        return outcomes

    assert asyncio.run(notebook()) == {1: "1", 2: "2", 3: "3"}


def test_commands_run_inline_and_are_ended_at_their_limit(inline, tmp_path):
    """A command needs no worker process; what it leaves behind is not waited for."""
    ref = {"kind": "command", "argv": ["sh", "-c", '[ "$0" = late ] && exec sleep 600; echo "$0"', "{}"], "shell": False, "parse": "lines"}
    pool = inline(None, handler=ref, timeout_s=0.3)
    pool.dispatch(1, '"hello"', '"late"')
    outcomes = pool.outcomes(1)
    assert (outcomes[1], outcomes[2].message) == ('["hello"]', "timeout after 0.3 s")


def test_processor_time_cannot_be_limited_inline(inline):
    """The limit would end the calling process; it is refused."""
    with pytest.raises(UsageError, match="--cpu-limit needs worker processes"):
        inline(lambda item: item, cpu_limit_s=1.0)


def test_a_pool_without_a_process_has_nothing_to_kill(inline):
    """What is asked of processes does nothing here, and a stop changes nothing."""
    pool = inline(lambda item: item)
    pool.pool.send(1, Stop())
    assert (pool.pool.running(1), pool.pool.pids()) == ([], {})
    pool.pool.terminate(1)
    pool.pool.kill_one(1)
    assert [message.items for message in (pool.receive(Released), pool.receive(Released))] == [{}, {}]


@pytest.fixture
def sites(monkeypatch):
    """A world of names, and the action that takes one out of it."""
    monkeypatch.setattr(actions, "_actions", {})
    world = set()
    durabatch.undo_action("delete", verify=lambda name: name not in world)(lambda name: world.remove(name))
    return world


def test_an_entry_is_recorded_before_its_effect(inline, sites):
    """The coordinator records it, in its own thread, within the call; a refusal comes before the effect; a thread of the handler's is refused."""

    def work(item, ctx):
        if item == "thread":
            with ThreadPoolExecutor(1) as threads:
                threads.submit(ctx.undo, "delete", name=item).result()
        assert len(pool.promised) == len(sites)
        ctx.undo("delete", name=item)
        assert len(pool.promised) == len(sites) + 1
        sites.add(item)

    pool = inline(work)
    pool.dispatch(1, '"a"', '"b"')
    assert pool.outcomes(1) == {1: "null", 2: "null"}
    assert {thread for _, thread in pool.promised} == {threading.get_ident()}
    assert [(promise.item_id, promise.sequence, promise.arguments) for promise, _ in pool.promised] == [(1, 1, '{"name":"a"}'), (2, 1, '{"name":"b"}')]
    pool.dispatch(2, '"thread"', '"refused"', first=12)
    ends = pool.outcomes(2)
    assert ends[12].message.endswith("with workers=0 a handler records in its own thread, not in one that it has started")
    assert ends[13].message == "the undo entry 'delete' was not recorded: no room"
    assert sites == {"a", "b"}


@pytest.mark.parametrize("in_notebook", [False, True])
def test_async_entries_are_recorded_in_the_coordinators_thread(inline, sites, in_notebook, tmp_path):
    """Also where the handlers' loop has to run in another thread, since one runs in this thread already; and for file operations."""

    async def work(item, ctx):
        await ctx.undo("delete", name=item)
        sites.add(item)
        await ctx.files.write(tmp_path / item, b"x")
        if item == "b":
            ctx.undo("delete", name=item)

    async def run():
        pool = inline(work, concurrency=2)
        pool.dispatch(1, '"a"', '"b"')
        ends = pool.outcomes(1)
        pool.dispatch(2, '"refused"', first=13)
        return pool, ends | pool.outcomes(2)

    if in_notebook:
        pool, ends = asyncio.run(run())
    else:
        try:
            run().send(None)
        except StopIteration as over:
            pool, ends = over.value
    assert (ends[1], ends[13].error_type) == ("null", "UndoError")
    assert ends[2].message.startswith("ctx.undo('delete') was not awaited")
    assert {thread for _, thread in pool.promised} == {threading.get_ident()}
    assert sorted(promise.action for promise, _ in pool.promised) == ["delete"] * 4 + ["files.write"] * 2
    assert sites == {"a", "b"} == {path.name for path in tmp_path.iterdir() if path.name != "cells"}


@pytest.mark.parametrize("in_notebook", [False, True])
def test_effects_are_undone_inline(inline, sites, in_notebook):
    """Plain and async actions run in the calling process, whether or not a loop runs in it."""

    @durabatch.undo_action("later")
    async def later(name, ctx):
        await asyncio.sleep(0)
        sites.remove(name)
        return ctx.resource()

    def run(pool):
        sites.update({"a", "b"})
        for number, (action, name) in enumerate([("delete", "a"), ("later", "b"), ("delete", "b"), ("later", "b")], 1):
            text = json.dumps({"action": action, "arguments": {"name": name}, "key": "k"})
            pool.pool.send(1, Dispatch(-number, [Group(0, [(-number, 1, "a", text)])], "undo"))
            yield pool.outcomes(-number)[-number]

    async def in_loop(pool):
        return list(run(pool))

    def handler(item):
        return item

    handler = durabatch.handler(setup=lambda: "session")(handler)
    pool = inline(handler)
    ends = asyncio.run(in_loop(pool)) if in_notebook else list(run(pool))
    assert ends[:3] == ['{"ran":true}', '{"ran":true}', '{"ran":false}']
    assert ends[3].error_type == "KeyError"
    assert pool.pool.backlog.take() is None
