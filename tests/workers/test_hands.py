"""Several sync items at once in one worker: threads, each with a cell of its own."""

from __future__ import annotations

import os
import signal
import time

import pytest

from durabatch.workers.protocol import Collect, Failure, Flush, Interrupt, Refused, Release, Released, Stop, Tune

#: Items wait in their handler until a file of their name is there.
GATED = """
    import pathlib, threading, time
    here = pathlib.Path(__file__).parent

    def work(item):
        (here / f"began{item}").touch()
        while not (here / f"go{item}").exists():
            time.sleep(0.002)
        return [item, threading.current_thread() is threading.main_thread()]
"""


def test_items_of_several_dispatches_run_at_once(start, gate):
    """As many items run as the concurrency says, across dispatches; each dispatch is finished when its own last item has ended."""
    worker = start(GATED, concurrency=3)
    worker.dispatch(1, "1", "2")
    worker.dispatch(2, "3", "4", first=3)
    gate.begun(1, 2, 3)
    assert (worker.shown(), gate.has_begun(4)) == ([1, 2, 3], False)
    gate.open(3, 4)
    assert worker.outcomes(2) == {3: "[3,false]", 4: "[4,false]"}
    gate.open(1, 2)
    assert worker.outcomes(1) == {1: "[1,false]", 2: "[2,false]"}


def test_one_at_a_time_runs_in_the_main_thread(start, gate):
    """Without concurrency the handler is called in the main thread, as programs expect that set signal handlers."""
    worker = start(GATED)
    gate.open(1)
    assert worker.only() == "[1,true]"


def test_an_idle_thread_leaves_its_cell(start, gate, eventually):
    """An item that has ended is not shown while its neighbour goes on."""
    worker = start(GATED, concurrency=2)
    worker.dispatch(1, "1", "2")
    gate.begun(1, 2)
    gate.open(1)
    eventually(lambda: worker.shown() == [2])
    assert [success[0] for success in worker.receive(Flush).succeeded] == [1]
    gate.open(2)
    assert worker.outcomes(1).keys() == {2}


def test_a_release_may_finish_what_is_partly_done(start, gate, eventually):
    """Unstarted items come back; when all that was started has ended already, the dispatch is finished with it."""
    worker = start(GATED, concurrency=2)
    worker.dispatch(1, "1", "2")
    worker.dispatch(2, "3", "4", first=3)
    gate.begun(1, 2)
    gate.open(1, 3)
    gate.begun(3)
    eventually(lambda: gate.has_begun(4) or worker.shown() == [2])
    worker.send(Release())
    released, ended = worker.receive(), {}
    while not isinstance(released, Released):
        ended |= {success[0]: released.dispatch_id for success in released.succeeded}
        released = worker.receive()
    gate.open(2, 4)
    assert released.items in ({}, {2: [4]})
    assert ended.items() <= {(1, 1), (3, 2)}


def test_every_item_ends_once_under_releases_in_threads(start):
    """However releases fall among items of eight threads, each item is sent or given back before its dispatch is finished, which is said once."""
    worker = start("def work(item): return item", concurrency=8)
    count, finished, found = 40, [], []
    for dispatch_id in range(1, count + 1):
        worker.dispatch(dispatch_id, *["1"] * 50, first=dispatch_id * 100)
        worker.send(Release(dispatch_id % 60))
    while len(finished) < count:
        message = worker.receive()
        if isinstance(message, Released):
            found += [item for items in message.items.values() for item in items]
        else:
            found += [success[0] for success in message.succeeded]
            if message.finished:
                finished.append(message.dispatch_id)
                assert {n for n in found if n // 100 == message.dispatch_id} == {message.dispatch_id * 100 + n for n in range(50)}
    assert sorted(found) == [dispatch_id * 100 + n for dispatch_id in range(1, count + 1) for n in range(50)]
    assert sorted(finished) == list(range(1, count + 1))


def test_an_interruption_leaves_all_items_in_their_cells(start, gate):
    """What had finished is sent, and every item that was running is shown as running."""
    worker = start(GATED, concurrency=3)
    worker.dispatch(1, "1", "2", "3", "4")
    gate.begun(1, 2, 3)
    gate.open(2)
    gate.begun(4)
    worker.send(Interrupt())
    assert worker.is_gone_after(found := [])
    assert [success[0] for flush in found for success in flush.succeeded] == [2]
    assert (worker.wait(), worker.shown()) == (0, [1, 3, 4])


def test_the_concurrency_can_be_changed(start, gate, eventually):
    """More items at once begin at once; fewer are reached as items end; never more than there are cells."""
    worker = start(GATED)
    worker.dispatch(1, *map(str, range(1, 21)))
    gate.begun(1)
    worker.dispatch(2, "21", first=21)
    worker.send(Tune(None, 3))
    gate.open(*range(1, 21))
    assert worker.outcomes(1).keys() == set(range(1, 21))
    gate.begun(21)
    worker.dispatch(3, *map(str, range(31, 51)), first=31)
    gate.begun(31, 32)
    worker.send(Tune(None, 100))
    gate.begun(*range(31, 38))
    assert worker.shown() == [21, *range(31, 38)]
    worker.send(Tune(None, 1))
    # A release is answered by the thread that obeyed the change before.
    worker.send(Release(1))
    assert worker.receive(Released).items == {3: [50]}
    gate.open(21, *range(31, 38))
    assert worker.outcomes(2).keys() == {21}
    eventually(lambda: len(worker.shown()) == 1)
    gate.open(*range(38, 51))
    assert worker.outcomes(3).keys() == set(range(31, 50))
    worker.send(Stop())
    assert worker.wait() == 0


def test_one_failing_thread_does_not_disturb_the_others(start):
    """Exceptions that mean something else elsewhere end their item alone, in threads too."""
    worker = start("def work(item):\n    if item: raise SystemExit(0)\n    return 'fine'", concurrency=4)
    worker.dispatch(1, *["1", "0"] * 20)
    outcomes = worker.outcomes(1)
    assert [isinstance(outcomes[item], Failure) for item in range(1, 41)] == [True, False] * 20
    assert {outcomes[item].error_type for item in range(1, 41, 2)} == {"SystemExit"}


def test_a_copy_made_in_a_thread_records_nothing(start):
    """Row 76: a handler that forks in a thread and returns twice counts once."""
    worker = start("import os\ndef work(item):\n    child = os.fork()\n    return [item, child == 0]", concurrency=3)
    worker.dispatch(1, "1", "2", "3", "4")
    assert worker.outcomes(1) == {item: f"[{item},false]" for item in (1, 2, 3, 4)}
    worker.send(Stop())
    assert worker.is_gone()
    assert worker.wait() == 0


def test_stop_finishes_the_queue_of_all_threads(start):
    """Stop lets everything that waits be done and sent, and the worker exits with status 0 and empty cells."""
    worker = start("def work(item): return item", concurrency=3)
    worker.dispatch(1, *["1"] * 50)
    worker.send(Stop())
    assert len(worker.outcomes(1)) == 50
    assert worker.is_gone()
    assert (worker.wait(), worker.shown()) == (0, [])


@pytest.mark.parametrize(
    "settings", [{}, {"concurrency": 2}, {"source": "async def work(item): return item"}], ids=["one", "threads", "async"]
)
def test_garbage_is_collected_when_asked_for(start, folder, eventually, settings):
    """An idle worker collects at once, whatever its model, and works on."""
    source = settings.pop("source", "def work(item): return item")
    worker = start(
        f"""
        import gc, pathlib
        seen = pathlib.Path(__file__).with_name("seen")
        gc.callbacks.append(lambda phase, info: seen.touch() if phase == "stop" and info["generation"] == 2 else None)
        {source}
        """,
        **settings,
    )
    seen = folder / "seen"
    seen.unlink(missing_ok=True)
    worker.send(Collect())
    eventually(seen.exists)
    assert worker.only() == "1"


def test_processor_time_ends_the_worker(start):
    """An item that computes for too long is ended by the kernel with its worker, and stands in the cell; its neighbours had theirs."""
    worker = start("def work(item):\n    while item == 'loop': pass\n    return sum(range(10**6))", cpu_limit_s=0.5)
    begun = time.monotonic()
    worker.dispatch(1, *["1"] * 30, '"loop"')
    assert worker.is_gone_after(found := [])
    assert worker.wait() == -signal.SIGXCPU
    assert worker.at().item_id == 31
    assert time.monotonic() - begun < 20
    assert sum(len(flush.succeeded) for flush in found) <= 30


@pytest.mark.parametrize(
    ("source", "settings"),
    [("def work(item): return item", {"concurrency": 2}), ("async def work(item): return item", {})],
    ids=["threads", "async"],
)
def test_processor_time_of_one_among_many_cannot_be_limited(start, source, settings):
    """Where items share a process the limit is refused, and not quietly ignored."""
    worker = start(source, ready=False, cpu_limit_s=1.0, **settings)
    assert worker.receive(Refused).message == "--cpu-limit needs concurrency 1, or a command. Give --concurrency 1."


def test_the_runs_marker_is_in_the_environment(start):
    """What a handler starts can be found by the marker of the run."""
    worker = start(
        "import subprocess\ndef work(item): return subprocess.run(['printenv', 'DURABATCH_RUN_MARKER'], capture_output=True, text=True).stdout"
    )
    assert worker.only() == f'"{worker.start["marker"]}\\n"'
    assert worker.start["marker"].startswith(f"test-{os.getpid()}")
