"""What a handler has once per worker: made once, shared, closed at the end."""

from __future__ import annotations

import contextlib
import threading

import pytest

from durabatch.errors import HandlerImportError, UsageError
from durabatch.workers.context import Context
from durabatch.workers.protocol import Failure, Refused, Stop
from durabatch.workers.resources import Resources


def test_factories_of_all_kinds_are_closed_in_reverse_order():
    """Generators go on, context managers are left, objects are closed, a lock stays free, and others are left alone."""
    told = []

    class Closable:
        def close(self):
            told.append("object closed")

    class Both(Closable):
        def __enter__(self):
            raise AssertionError("what can be closed is not entered")

        __exit__ = None

    def generator():
        yield "yielded"
        told.append("generator ended")

    @contextlib.contextmanager
    def manager():
        yield "entered"
        told.append("manager left")

    makers = {"object": Closable, "both": Both, "generator": generator, "manager": manager, "lock": threading.Lock, "number": lambda: 5}
    resources = Resources(factories=makers)
    opened = {name: resources.open(name) for name in makers}
    assert [opened[name] for name in ("generator", "manager", "number")] == ["yielded", "entered", 5]
    assert not opened["lock"].locked()
    assert all(resources.open(name) is opened[name] for name in makers)
    assert told == []
    resources.close()
    resources.close()
    assert told == ["manager left", "generator ended", "object closed", "object closed"]


def test_setup_and_teardown_frame_everything():
    """The set-up's value is the resource without a name; the tear-down gets it after all others are closed, whatever those raise."""
    told = []

    def broken():
        yield 1
        raise SystemExit

    resources = Resources(lambda: "session", told.append, {"broken": broken})
    resources.set_up()
    context = Context(1, "k", 1, "r", resources.open)
    assert (context.resource(), context.resource("broken")) == ("session", 1)
    resources.close()
    assert told == ["session"]
    alone = Resources(None, told.append)
    alone.set_up()
    alone.close()
    assert told == ["session", None]


def test_a_setup_that_fails_is_named():
    """The error names the function and what it raised."""

    def connect():
        raise ConnectionError("refused")

    with pytest.raises(HandlerImportError, match=r"the setup of the handler, .*connect\(\), raised ConnectionError: refused"):
        Resources(connect).set_up()


def test_a_name_that_is_not_declared_is_an_error_with_a_hint():
    """The nearest name, or all there are, or how to declare one."""
    resources = Resources(factories={"session": dict, "model": dict})
    with pytest.raises(UsageError, match="Did you mean 'session'"):
        resources.open("sesion")
    with pytest.raises(UsageError, match="There is: 'session', 'model'"):
        resources.open("x")
    with pytest.raises(UsageError, match=r"no such resource\. Declare it"):
        Context(1, "k", 1, "r").resource()


def test_a_resource_that_could_not_be_opened_is_tried_again():
    """A failing factory fails its item; the next one tries anew."""
    tries = []

    def flaky():
        tries.append(1)
        return 1 / (len(tries) - 1)

    resources = Resources(factories={"flaky": flaky})
    with pytest.raises(ZeroDivisionError):
        resources.open("flaky")
    assert resources.open("flaky") == resources.open("flaky") == 1.0


def test_threads_share_what_is_opened_once():
    """However many ask at once, the factory is called once."""
    made, barrier, found = [], threading.Barrier(8), []

    def slow():
        made.append(1)
        barrier.wait()
        return object()

    resources = Resources(factories={"slow": slow})
    threads = [threading.Thread(target=lambda: found.append(resources.open("slow"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    while not made:
        pass
    for _ in range(7):
        threading.Thread(target=barrier.wait).start()
    for thread in threads:
        thread.join()
    assert (len(made), len(set(map(id, found))), len(found)) == (1, 1, 8)


@pytest.mark.parametrize(
    ("amounts", "words"),
    [
        ({"usd": -1}, "usd=-1"),
        ({"usd": float("nan")}, "nan"),
        ({"usd": True}, "True"),
        ({"usd": "5"}, "'5'"),
        ({"USD": 1}, "'USD' is not a unit"),
    ],
)
def test_what_is_no_amount_is_refused(amounts, words):
    """Nothing is noted when one of the amounts is wrong."""
    context = Context(1, "k", 1, "r")
    with pytest.raises(UsageError, match=words):
        context.spend(tokens=1, **amounts)
    assert context.spent is None


SYNC = """
    import pathlib
    import durabatch

    def note(text):
        with open("notes", "a") as file: file.write(text + "\\n")

    def connect(*, region="none"):
        note("setup " + region)
        return "session"

    def model():
        note("model opened")
        yield "model"
        note("model closed")

    @durabatch.handler(setup=connect, teardown=lambda session: note("teardown " + session), resources={"model": model})
    def work(item, ctx, *, region):
        return [ctx.resource(), ctx.resource("model") if item else None]
"""

ASYNC = """
    import asyncio, contextlib
    import durabatch

    def note(text):
        with open("notes", "a") as file: file.write(text + "\\n")

    class Client:
        async def aclose(self): note("client closed")

    async def connect(*, region="none"):
        await asyncio.sleep(0)
        note("setup " + region)
        return "session"

    async def teardown(session):
        await asyncio.sleep(0)
        note("teardown " + session)

    async def model():
        await asyncio.sleep(0.05)
        note("model opened")
        yield "model"
        note("model closed")

    async def client():
        return Client()

    @contextlib.asynccontextmanager
    async def scope():
        yield "scope"
        note("scope left")

    @durabatch.handler(setup=connect, teardown=teardown, resources={"model": model, "client": client, "scope": scope, "plain": dict})
    async def work(item, ctx, *, region):
        if item == 0: return [ctx.resource(), None]
        if item == 1: return [ctx.resource(), await ctx.resource("model")]
        await ctx.resource("client")
        return [await ctx.resource("scope"), ctx.resource("plain")]
"""


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("source", [SYNC, ASYNC], ids=["sync", "async"])
def test_a_worker_sets_up_once_and_tears_down_at_its_end(start, folder, source, concurrency):
    """The set-up is called before Ready, with the params that it names; resources when they are first asked for; all are closed at Stop."""
    worker = start(source, concurrency=concurrency, params={"region": "eu"})
    notes = folder / "notes"
    assert notes.read_text() == "setup eu\n"
    worker.dispatch(1, "0", "0")
    assert set(worker.outcomes(1).values()) == {'["session",null]'}
    assert notes.read_text() == "setup eu\n"
    worker.dispatch(2, *["1"] * 5)
    assert set(worker.outcomes(2).values()) == {'["session","model"]'}
    worker.send(Stop())
    assert worker.wait() == 0
    assert notes.read_text().split("\n") == ["setup eu", "model opened", "model closed", "teardown session", ""]


def test_async_resources_of_all_kinds_are_closed(start, folder):
    """Clients are closed, context managers are left, and a resource that is none of these is just there."""
    worker = start(ASYNC, params={"region": "eu"})
    assert worker.only("2") == '["scope",{}]'
    worker.send(Stop())
    assert worker.wait() == 0
    assert (folder / "notes").read_text().split() == ["setup", "eu", "scope", "left", "client", "closed", "teardown", "session"]


def test_an_item_that_is_cancelled_while_it_waits_leaves_the_resource_to_the_others(start):
    """The time of one item is up while a resource is being opened; the other gets it, and it was opened once."""
    worker = start(
        """
        import asyncio, durabatch
        made = []
        async def slow():
            made.append(1)
            await asyncio.sleep(0.5)
            return "there"
        @durabatch.handler(resources={"slow": slow})
        async def work(item, ctx):
            return [await ctx.resource("slow"), len(made)]
        """,
        concurrency=2,
    )
    worker.dispatch(1, "1", "2", limits={1: 0.05})
    outcomes = worker.outcomes(1)
    assert isinstance(outcomes[1], Failure)
    assert outcomes[2] == '["there",1]'


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_worker_whose_setup_fails_is_refused(start, kind):
    """The refusal is one line that names the set-up, and the worker ends with status 2."""
    worker = start(
        f"""
        import durabatch
        {kind} connect(): raise ConnectionError("no route\\nto host")
        @durabatch.handler(setup=connect)
        {kind} work(item): return item
        """,
        ready=False,
    )
    refused = worker.receive(Refused)
    assert refused.message == "the setup of the handler, connect(), raised ConnectionError: no route to host"
    assert "ConnectionError" in refused.traceback
    assert worker.wait() == 2


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_teardown_that_hangs_is_ended_after_the_grace(start, kind):
    """A stopped worker is held up for the grace and no longer; its results were sent before."""
    act = "time.sleep(600)" if kind == "def" else "await asyncio.sleep(600)"
    worker = start(
        f"""
        import asyncio, time, durabatch
        {kind} teardown(value): {act}
        @durabatch.handler(teardown=teardown)
        {kind} work(item): return item
        """
    )
    worker.dispatch(1, "1")
    worker.send(Stop())
    assert worker.outcomes(1) == {1: "1"}
    assert worker.wait() == 0


def test_a_teardown_that_fails_is_told(start):
    """Its traceback stands in the log, and the worker ends as always."""
    worker = start("import durabatch\n@durabatch.handler(teardown=lambda value: 1 / 0)\ndef work(item): return item")
    worker.send(Stop())
    assert worker.wait() == 0
    assert "ZeroDivisionError" in worker.said()
