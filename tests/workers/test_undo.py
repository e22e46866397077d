"""Undo entries on their way out of a worker, and effects that a worker takes back."""

from __future__ import annotations

import json
import os
import signal

import pytest

from durabatch.codec import frame_digest, pack_frame, unpack_frame
from durabatch.workers.protocol import Failure, Interrupt, Promise, Recorded

#: A world of one file per effect, for handlers and actions alike.
WORLD = """
    import asyncio, os, pathlib, threading
    import durabatch
    from durabatch import undo_action
    here = pathlib.Path(__file__).parent

    def is_gone(name):
        return not (here / name).exists()

    @undo_action("drop", verify=is_gone)
    def drop(name, ctx):
        ctx.log(f"{ctx.idempotency_key} {ctx.attempt} {ctx.is_forced}")
        (here / name).unlink()

    @undo_action("adrop")
    async def adrop(name):
        await asyncio.sleep(0)
        (here / name).unlink()

    @undo_action("mail", irreversible=True)
    def mail(to):
        (here / "called").touch()
"""
SYNC = WORLD + """
    def work(item, ctx):
        ctx.undo("drop", name=item)
        (here / item).touch()
"""
ASYNC = WORLD + """
    async def work(item, ctx):
        if item == "gather":
            await asyncio.gather(ctx.undo("drop", name="a"), ctx.undo("adrop", name="b"))
        elif item == "late":
            promised = ctx.undo("drop", name="a")
            await asyncio.sleep(0)
            await promised
        elif item == "forgotten":
            ctx.undo("drop", name="a")
        elif item == "cut":
            asyncio.create_task(wait(ctx.undo("drop", name="a")))
            await asyncio.sleep(0)
        elif item == "raised":
            ctx.undo("drop", name="a")
            raise ValueError("v")
        elif item == "thread":
            await asyncio.to_thread(ctx.undo, "drop", name="a")
        elif item == "forgotten file":
            ctx.files.write(here / "never", b"x")
        else:
            await ctx.undo("drop", name=item)
            (here / item).touch()

    async def wait(promised):
        await promised
"""


def promises(worker, count=1):
    """Return the next messages, all of them promises."""
    return [worker.receive(Promise) for _ in range(count)]


def grant(worker, *given):
    for promise in given:
        worker.send(Recorded(promise.token, undo_id=promise.token))


def step(worker, action, number=1, *, undo_id=5, blobs=None, **arguments):
    """Have one effect undone and return the value or the failure."""
    text = json.dumps({"action": action, "arguments": arguments, "key": "nightly/k/1/1"})
    worker.dispatch(-1, text, task="undo", first=-undo_id, batch_id=0, number=number, blobs=blobs or {})
    outcome = worker.outcomes(-1)[-undo_id]
    return outcome if isinstance(outcome, Failure) else json.loads(outcome)


@pytest.mark.parametrize("source", [SYNC, ASYNC], ids=["sync", "async"])
def test_the_effect_waits_for_its_entry(start, folder, source):
    """The entry names its attempt, action and arguments, and nothing happens before its answer, whatever happens elsewhere."""
    worker = start(source)
    worker.dispatch(7, '"site"', first=3, number=2)
    (promise,) = promises(worker)
    assert (promise.dispatch_id, promise.item_id, promise.number, promise.sequence) == (7, 3, 2, 1)
    assert (promise.action, promise.arguments, promise.is_irreversible, promise.old) == ("drop", '{"name":"site"}', False, None)
    worker.send(Recorded(promise.token + 1))
    assert not (folder / "site").exists()
    grant(worker, promise)
    assert worker.outcomes(7) == {3: "null"}
    assert (folder / "site").exists()


def test_a_refused_entry_fails_the_item_before_its_effect(start, folder):
    """The refusal is what the handler gets, and the next item is none the worse for it."""
    worker = start(SYNC)
    worker.dispatch(1, '"a"', '"b"')
    (promise,) = promises(worker)
    worker.send(Recorded(promise.token, refusal="the item is no longer yours"))
    grant(worker, *promises(worker))
    outcomes = worker.outcomes(1)
    assert (outcomes[1].error_type, outcomes[1].message) == ("UndoError", "the undo entry 'drop' was not recorded: the item is no longer yours")
    assert (outcomes[2], (folder / "a").exists(), (folder / "b").exists()) == ("null", False, True)


def test_many_items_wait_at_once(start):
    """On a loop all entries are under way together, and the answers come in any order."""
    worker = start(ASYNC, concurrency=8)
    worker.dispatch(1, *(f'"f{n}"' for n in range(8)))
    waiting = promises(worker, 8)
    grant(worker, *reversed(waiting))
    assert worker.outcomes(1) == dict.fromkeys(range(1, 9), "null")


def test_several_entries_of_one_attempt_are_numbered(start):
    """Entries of one attempt, also of its threads, are numbered without gaps, in the order in which they are sent."""
    worker = start(
        WORLD + """
    def work(item, ctx):
        ctx.undo("mail", to="me")
        threads = [threading.Thread(target=ctx.undo, args=("drop",), kwargs={"name": f"t{n}"}) for n in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
    """
    )
    worker.dispatch(1, "1")
    first = promises(worker)
    assert (first[0].action, first[0].is_irreversible) == ("mail", True)
    grant(worker, *first)
    others = promises(worker, 4)
    assert [one.sequence for one in first + others] == [1, 2, 3, 4, 5]
    assert len({one.token for one in first + others}) == 5
    grant(worker, *others)
    assert worker.outcomes(1) == {1: "null"}


@pytest.mark.parametrize("item", ["gather", "late"])
def test_what_is_awaited_in_any_way_is_awaited(start, item):
    """Together with others, or later than it was called: the attempt succeeds."""
    worker = start(ASYNC)
    worker.dispatch(1, json.dumps(item))
    grant(worker, *promises(worker, 2 if item == "gather" else 1))
    assert worker.outcomes(1) == {1: "null"}


@pytest.mark.parametrize(
    ("item", "error", "message"),
    [
        ("forgotten", "UndoError", "ctx.undo('drop') was not awaited. An effect may come only when its undo entry is on disk."),
        ("cut", "UndoError", "ctx.undo('drop') was not awaited. An effect may come only when its undo entry is on disk."),
        ("forgotten file", "UndoError", "ctx.files.write was not awaited. An effect may come only when its undo entry is on disk."),
        ("raised", "ValueError", "v"),
        ("thread", "UndoError", "ctx.undo('drop') was called outside the loop of its async handler. Call and await it in the handler."),
    ],
)
def test_what_was_not_awaited_fails_the_item(start, folder, item, error, message):
    """An async handler that goes on without its entry has not succeeded; an error of its own is the one that is recorded."""
    worker = start(ASYNC)
    worker.dispatch(1, json.dumps(item))
    if item not in ("thread", "forgotten file"):
        assert promises(worker)[0].item_id == 1
    found = worker.outcomes(1)[1]
    assert (found.error_type, found.message) == (error, message)
    assert not (folder / "never").exists()


def test_a_check_and_a_forked_process_record_nothing(start):
    """Where an entry could not be fenced, ctx.undo says so at once."""
    worker = start(
        WORLD + """
    def check(item, ctx):
        ctx.undo("drop", name="a")

    def work(item, ctx):
        read, write = os.pipe()
        if os.fork() == 0:
            try: ctx.undo("drop", name="a")
            except BaseException as error: os.write(write, str(error).encode())
            os._exit(0)
        os.wait()
        return os.read(read, 1000).decode()
    """,
        preflight={"kind": "python", "target": "jobs:check"},
    )
    worker.dispatch(-1, "1", task="check")
    assert worker.outcomes(-1)[1].message.startswith("UndoError: ctx.undo works only in an attempt of a run, not in a preflight check")
    assert json.loads(worker.only()) == "an effect can be recorded only by the process that runs the handler, not by one that it has forked off"


def test_an_interruption_does_not_wait_for_an_answer(start, folder):
    """A worker whose handler waits for its entry ends at once, with the item in its cell and no effect."""
    worker = start(SYNC)
    worker.dispatch(1, '"a"')
    promises(worker)
    worker.send(Interrupt())
    assert worker.is_gone()
    assert (worker.wait(), worker.at().item_id, (folder / "a").exists()) == (0, 1, False)


@pytest.mark.parametrize("head", ["def work", "async def work"], ids=["sync", "async"])
def test_file_operations_record_the_old_content(start, folder, head):
    """Old content travels packed, with its size and digest; the file is touched after the answer; a limit refuses before anything."""
    wait = "await " if head.startswith("async") else ""
    worker = start(WORLD + f"\n    {head}(item, ctx): {wait}ctx.files.replace(here / item, b'new')\n", max_undo_bytes=10)
    (folder / "small").write_bytes(b"old")
    (folder / "big").write_bytes(b"x" * 11)
    worker.dispatch(1, '"small"', '"big"')
    (promise,) = promises(worker)
    assert (promise.action, promise.old_bytes, promise.old_digest) == ("files.replace", 3, frame_digest(b"old"))
    assert unpack_frame(promise.old, raw_bytes=3, limit_bytes=3) == b"old"
    assert (folder / "small").read_bytes() == b"old"
    grant(worker, promise)
    outcomes = worker.outcomes(1)
    assert (outcomes[1], outcomes[2].error_type) == ("null", "UndoError")
    assert [(folder / name).read_bytes() for name in ("small", "big")] == [b"new", b"x" * 11]
    found = step(worker, promise.action, blobs={-5: promise.old}, **json.loads(promise.arguments))
    assert (found, (folder / "small").read_bytes()) == ({"ran": True}, b"old")


def test_a_cancelled_attempt_ends_after_its_file_operation(start, folder):
    """Its effect must not come after its own undoing: neither a timeout nor a forgotten task ends the attempt before its thread has ended."""
    worker = start(
        WORLD + """
    async def work(item, ctx):
        if item == "hangs":
            await asyncio.Event().wait()
        writing = asyncio.ensure_future(wait(ctx.files.write(here / item, b"x")))
        if item == "waits":
            await writing
        while not ctx._undo_log._count:
            await asyncio.sleep(0.001)

    async def wait(promised):
        await promised
    """,
        timeout_s=0.3,
        concurrency=3,
    )
    worker.dispatch(1, '"waits"', '"leaves"')
    waiting = promises(worker, 2)
    worker.dispatch(2, '"hangs"', first=3)
    assert worker.outcomes(2)[3].outcome == "timed_out"
    assert worker.shown() == [1, 2]
    assert not (folder / "waits").exists()
    grant(worker, *waiting)
    outcomes = worker.outcomes(1)
    assert [outcomes[item].outcome for item in (1, 2)] == ["timed_out", "failed"]
    assert (folder / "waits").read_bytes() == (folder / "leaves").read_bytes() == b"x"


@pytest.mark.parametrize("source", [SYNC, ASYNC], ids=["sync", "async"])
def test_an_effect_is_undone_once(start, folder, source):
    """The action runs when there is something to undo, and only then; its context knows the try and the key."""
    worker = start(source)
    (folder / "site").touch()
    assert step(worker, "drop", 2, name="site") == {"ran": True}
    assert not (folder / "site").exists()
    assert step(worker, "drop", 3, name="site") == {"ran": False}
    assert worker.said() == "[k-5] nightly/k/1/1 2 False\n"
    (folder / "site").touch()
    assert step(worker, "adrop", name="site") == {"ran": True}
    assert not (folder / "site").exists()


FAULTS = WORLD + """
    @undo_action("lazy", verify=is_gone)
    def lazy(name): return None
    @undo_action("says", verify=None)
    def says(what):
        error = getattr(durabatch, what)
        raise error("1s") if what in ("Retry", "Snooze") else error("because")
    @undo_action("returns")
    async def returns(what): return durabatch.Fail(what)
    @undo_action("breaks")
    def breaks(): raise OSError("unreachable")
"""


@pytest.mark.parametrize("handler", ["def work(item): return item", "async def work(item): return item"], ids=["sync", "async"])
def test_each_way_not_to_undo_has_its_outcome(start, folder, handler):
    """What a further try may change is tried again; what it cannot is said in one line; what is irreversible is called that, and not called."""
    worker = start(f"{FAULTS}\n    {handler}\n")
    (folder / "site").touch()

    def end(action, **arguments):
        found = step(worker, action, **arguments)
        assert found.outcome == "failed"
        return found.error_type, found.message, found.retryable

    assert end("lazy", name="site") == ("UndoError", "'lazy' ran, but verify says it is not undone", True)
    assert end("breaks") == ("OSError", "unreachable", True)
    assert end("says", what="Retry")[::2] == ("Retry", True)
    assert end("says", what="Fail") == ("Fail", "because", False)
    assert end("returns", what="no") == ("Fail", "no", False)
    assert end("says", what="UndoError") == ("UndoError", "because", False)
    assert end("says", what="Skip")[::2] == end("says", what="Snooze")[::2] == ("UndoError", False)
    assert end("dorp", name="site") == ("UndoError", "no undo action 'dorp' is registered. Did you mean 'drop'?", False)
    assert end("drop", name="site", url=1)[1:] == ("action 'drop' no longer takes 'url'. Let jobs:drop take what older entries hold, too.", False)
    assert end("drop")[1:] == ("action 'drop' now needs 'name'. Let jobs:drop take what older entries hold, too.", False)
    assert end("files.fold")[1:] == ("no undo action 'files.fold': another version of durabatch has recorded it", False)
    assert end("mail", to="me") == ("Irreversible", "'mail' cannot be undone", False)
    assert ((folder / "called").exists(), (folder / "site").exists()) == (False, True)


def test_a_step_shows_in_its_cell_and_ends_with_its_worker(start, folder, eventually):
    """What undoes may hang and kill like any handler: the coordinator sees which step it is, below zero."""
    worker = start(WORLD + "\n    @undo_action('hang')\n    def hang(): (here / 'hangs').touch(); threading.Event().wait()\n    def work(item): pass\n")
    worker.dispatch(-4, '{"action": "hang", "arguments": {}, "key": "k"}', task="undo", first=-9, number=3)
    eventually((folder / "hangs").exists)
    (cell,) = worker.cells.of_worker(1)
    assert (cell.item_id, cell.dispatch_id, cell.number) == (-9, -4, 3) == (worker.at().item_id, -4, 3)
    os.kill(worker.pid, signal.SIGKILL)
    assert worker.is_gone()
    assert worker.shown() == [-9]


def test_an_async_step_ends_at_its_limit(start):
    """The timeout of an attempt is that of a step."""
    worker = start(
        WORLD + "\n    @undo_action('hang')\n    async def hang(): await asyncio.Event().wait()\n    async def work(item): pass\n", timeout_s=0.05
    )
    assert step(worker, "hang").outcome == "timed_out"


@pytest.mark.parametrize("kind", ["transaction", "none"])
def test_without_a_handler_there_are_actions_only(start, folder, kind):
    """The modules of a transaction are imported for their actions; items are refused."""
    worker = start(WORLD, handler={"kind": kind, "modules": [{"kind": "python", "target": f"{folder}/jobs.py:whatever"}]})
    (folder / "site").touch()
    assert step(worker, "drop", name="site") == {"ran": True}
    assert worker.only().message.startswith("this run has no handler")


def test_an_old_content_that_was_damaged_is_not_put_back(start, folder):
    """The frame carries its own checksum; the file stays as it is."""
    worker = start(WORLD + "\n    def work(item, ctx): ctx.files.replace(here / item, b'new')\n")
    (folder / "a").write_bytes(b"old")
    worker.dispatch(1, '"a"')
    (promise,) = promises(worker)
    grant(worker, promise)
    assert worker.outcomes(1) == {1: "null"}
    found = step(worker, promise.action, blobs={-5: pack_frame(b"old")[:-1] + b"!"}, **json.loads(promise.arguments))
    assert (found.error_type, (folder / "a").read_bytes()) == ("ResultError", b"new")
