"""The worker process: frames in, frames out, and nothing lost between."""

from __future__ import annotations

import array
import fcntl
import os
import signal
import termios
import time

import pytest

from durabatch import process
from durabatch.codec import frame_digest, unpack_frame
from durabatch.workers.protocol import Dispatch, Flush, Group, Interrupt, Ready, Refused, Release, Released, Stop

GATED = """
    import pathlib, time
    here = pathlib.Path(__file__).parent

    def work(item):
        (here / f"began{item}").touch()
        while item in (2, "held") and not (here / "go").exists():
            time.sleep(0.002)
        return item
"""


def test_items_come_back_with_their_values(start):
    """Every item of a dispatch comes back once, and the last flush says that it is finished."""
    worker = start("def work(item): return {'n': item['n'] + 1}")
    worker.dispatch(1, *(f'{{"n":{n}}}' for n in range(500)))
    assert worker.outcomes(1) == {n + 1: f'{{"n":{n + 1}}}' for n in range(500)}


def test_a_success_carries_its_times_and_its_worker(start):
    """A success names item, attempt number, worker, the wall-clock instant of its start and how long it took."""
    worker = start("import time\ndef work(item): time.sleep(0.02)")
    before = time.time_ns() // 1000
    worker.dispatch(1, "1", first=8, number=3)
    (flush,) = worker.flushes(1)
    ((item_id, number, worker_number, started_at_us, duration_us, value),) = flush.succeeded
    assert (item_id, number, worker_number, value) == (8, 3, 1, "null")
    assert before <= started_at_us <= time.time_ns() // 1000
    assert 20_000 <= duration_us < 5_000_000


def test_an_empty_dispatch_is_finished(start):
    """A dispatch without items is answered too."""
    worker = start()
    worker.send(Dispatch(1, [Group(1, [])]))
    assert is_empty(worker.receive(Flush), 1)


def test_the_context_knows_the_item(start):
    """The optional second parameter tells key, attempt, run and a key that is the same at every try; its log lines name the item."""
    worker = start(
        """
        def work(item, ctx):
            ctx.log("first\\nsecond")
            return [ctx.item_key, ctx.attempt, ctx.run_name, ctx.idempotency_key]
        """
    )
    worker.dispatch(1, "1", number=2)
    assert worker.outcomes(1)[1] == '["k1",2,"nightly","nightly/k1"]'
    assert worker.said() == "[k1] first\n[k1] second\n"


def test_params_reach_the_handler(start):
    """Keyword-only parameters get their values from the Start."""
    worker = start("def work(item, *, factor: int): return item * factor", params={"factor": "3"})
    assert worker.only("5") == "15"


def test_big_values_travel_packed_by_batch(start):
    """Values beyond the inline limit come in one checked frame per batch, with the place of each."""
    worker = start("def work(item): return 'é' * item")
    groups = [Group(7, [(1, 1, "a", "600"), (2, 1, "b", "3")]), Group(8, [(3, 1, "c", "513"), (4, 1, "d", "1000")])]
    worker.send(Dispatch(1, groups))
    (flush,) = worker.flushes(1)
    assert [success[0] for success in flush.succeeded] == [2]
    assert [frame.batch_id for frame in flush.frames] == [7, 8]
    values = {}
    for item_id, *_, index, offset, size in flush.packed:
        frame = flush.frames[index]
        raw = unpack_frame(frame.data, raw_bytes=frame.raw_bytes, limit_bytes=1 << 20)
        assert frame.digest == frame_digest(raw)
        values[item_id] = raw[offset : offset + size].decode()
    assert values == {1: f'"{"é" * 600}"', 3: f'"{"é" * 513}"', 4: f'"{"é" * 1000}"'}


def test_many_waiting_bytes_are_sent_before_the_dispatch_is_finished(start):
    """Results of 256 KiB together are sent at once: a worker's memory does not grow with its dispatch."""
    worker = start("def work(item): return 'x' * 1000")
    worker.dispatch(1, *["1"] * 2000)
    flushes = worker.flushes(1)
    assert sum(len(flush.succeeded) for flush in flushes) == 2000
    assert max(len(flush.succeeded) for flush in flushes) <= 300


def test_finished_results_are_sent_while_the_next_item_runs(start, folder):
    """A result does not wait for its neighbour: it is sent within the flush time."""
    worker = start(GATED)
    worker.dispatch(1, "1", "2", "3")
    flush = worker.receive(Flush)
    assert ([success[0] for success in flush.succeeded], flush.finished) == ([1], False)
    assert worker.at().item_id == 2
    (folder / "go").touch()
    assert worker.outcomes(1) == {2: "2", 3: "3"}


def test_release_is_answered_while_an_item_runs(start, folder, eventually):
    """What has not been started comes back at once; the item that runs is finished and its dispatch with it."""
    worker = start(GATED)
    worker.dispatch(1, "2", "5", "6")
    worker.dispatch(2, "7", "8", first=4)
    eventually((folder / "began2").exists)
    worker.send(Release())
    assert worker.receive(Released).items == {1: [2, 3], 2: [4, 5]}
    assert is_empty(worker.receive(Flush), 2)
    (folder / "go").touch()
    assert worker.outcomes(1) == {1: "2"}
    assert not (folder / "began5").exists()


def test_a_limited_release_takes_from_the_end(start, folder, eventually):
    """Released items are the last ones; the others still run."""
    worker = start(GATED)
    worker.dispatch(1, "2", "5", "6", "7")
    eventually((folder / "began2").exists)
    worker.send(Release(2))
    assert worker.receive(Released).items == {1: [3, 4]}
    (folder / "go").touch()
    assert worker.outcomes(1) == {1: "2", 2: "5"}


def test_release_of_nothing_is_answered(start):
    """A worker without work says that it has nothing to give back, and goes on."""
    worker = start()
    worker.send(Release())
    assert worker.receive(Released).items == {}
    assert worker.only("4") == "4"


def test_every_item_ends_once_under_releases(start):
    """However releases fall among running items, each item is either sent or given back, before its dispatch is finished."""
    worker = start("def work(item): return item")
    count, finished, found = 40, 0, []
    for dispatch_id in range(1, count + 1):
        worker.dispatch(dispatch_id, *["1"] * 50, first=dispatch_id * 100)
        worker.send(Release(dispatch_id % 60))
    while finished < count:
        message = worker.receive()
        if isinstance(message, Released):
            found += [item for items in message.items.values() for item in items]
        else:
            found += [success[0] for success in message.succeeded]
            finished += message.finished
            if message.finished:
                assert {n for n in found if n // 100 == message.dispatch_id} == {message.dispatch_id * 100 + n for n in range(50)}
    assert sorted(found) == [dispatch_id * 100 + n for dispatch_id in range(1, count + 1) for n in range(50)]


def test_interrupt_flushes_what_is_finished_and_leaves_the_item_in_its_cell(start, folder):
    """An interruption loses no finished item, starts no further one, and the cell says which one was cut off."""
    worker = start(GATED)
    worker.dispatch(1, "1", "2", "5")
    worker.dispatch(2, "6", first=4)
    found = [success[0] for success in worker.receive(Flush).succeeded]
    worker.send(Interrupt())
    assert worker.is_gone()
    assert (found, worker.wait()) == ([1], 0)
    assert (worker.at().item_id, worker.at().dispatch_id, worker.at().number) == (2, 1, 1)
    assert not (folder / "began5").exists()


def test_interrupt_flushes_what_nobody_asked_for_yet(start, folder, eventually):
    """Items that finished within the flush time before the interruption are sent by it."""
    worker = start(
        """
        import pathlib, time
        here = pathlib.Path(__file__).parent
        def work(item):
            if item == 2:
                (here / "began2").touch()
                time.sleep(60)
            return item
        """
    )
    worker.dispatch(1, "1", "1", "2")
    eventually((folder / "began2").exists)
    worker.send(Interrupt())
    found = []
    while True:
        try:
            found += worker.receive(Flush).succeeded
        except EOFError:
            break
    assert [success[0] for success in found] == [1, 2]
    assert worker.at().item_id == 3


def test_a_slow_reader_loses_nothing(start, eventually):
    """A worker whose pipe is full waits; an interruption then waits for the reader, and what was finished comes whole."""
    worker = start("def work(item): return 'x' * 1000")
    worker.dispatch(1, *["1"] * 8000)
    # Nothing moves, neither in the pipe nor from item to item: the worker is held up by the full pipe.
    seen = [(0, None), (0, None)]

    def is_held_up():
        seen[:] = seen[1], (waiting_bytes(worker.from_worker), worker.at().item_id)
        return seen[0] == seen[1] and seen[0][0] >= fcntl.fcntl(worker.from_worker, fcntl.F_GETPIPE_SZ) // 2

    eventually(is_held_up)
    worker.send(Interrupt())
    found = []
    while True:
        try:
            found += [success[0] for success in worker.receive(Flush).succeeded]
        except EOFError:
            break
    assert found == list(range(1, len(found) + 1))
    assert len(found) > 500
    assert worker.wait() == 0


def test_interrupt_ends_the_children_of_the_handler(start, folder, eventually):
    """Processes that the handler started are gone with the worker, also those in process groups of their own."""
    worker = start(
        """
        import pathlib, subprocess
        def work(item):
            children = [subprocess.Popen(["sleep", "600"]), subprocess.Popen(["sleep", "600"], process_group=0)]
            pathlib.Path("pids.new").write_text(" ".join(str(child.pid) for child in children))
            pathlib.Path("pids.new").rename("pids")
            children[0].wait()
        """
    )
    worker.dispatch(1, "1")
    eventually((folder / "pids").exists)
    worker.send(Interrupt())
    assert worker.wait() == 0
    assert worker.is_gone(), "the end of a child is no outcome of the item"
    assert worker.at().item_id == 1
    for pid in map(int, (folder / "pids").read_text().split()):
        eventually(lambda pid=pid: process.start_ticks(pid) is None or is_zombie(pid))


def test_stop_finishes_the_queue(start):
    """Stop lets everything that waits be done and sent, and the worker exits with status 0 and an empty cell."""
    worker = start()
    worker.dispatch(1, "1", "2")
    worker.dispatch(2, "3", first=3)
    worker.send(Stop())
    assert worker.outcomes(1) == {1: "1", 2: "2"}
    assert worker.outcomes(2) == {3: "3"}
    assert worker.is_gone()
    assert (worker.wait(), worker.at().item_id) == (0, None)


def test_exit_functions_run_at_stop(start, folder):
    """A module's exit functions run when the worker is stopped, with its children still alive."""
    worker = start("import atexit, pathlib\natexit.register(lambda: pathlib.Path('bye').touch())\ndef work(item): return item")
    worker.send(Stop())
    assert worker.wait() == 0
    assert (folder / "bye").exists()


@pytest.mark.parametrize(
    "hang",
    ["threading.Thread(target=time.sleep, args=(600,)).start()", "atexit.register(time.sleep, 600)"],
    ids=["thread", "exit function"],
)
def test_what_never_ends_is_ended_after_the_grace(start, hang):
    """Threads and exit functions that do not end hold a stopped worker up for the grace and no longer."""
    worker = start(f"import atexit, threading, time\n{hang}\ndef work(item): return item")
    worker.dispatch(1, "1")
    worker.send(Stop())
    assert worker.outcomes(1) == {1: "1"}
    assert worker.wait() == 0


def test_a_lost_coordinator_ends_the_worker_and_its_children(start, folder, eventually):
    """When the inbound pipe ends, in the middle of an item, the worker and what it started are gone at once."""
    worker = start(
        """
        import pathlib, subprocess
        def work(item):
            child = subprocess.Popen(["sleep", "600"])
            pathlib.Path("pid.new").write_text(str(child.pid))
            pathlib.Path("pid.new").rename("pid")
            child.wait()
        """
    )
    worker.dispatch(1, "1")
    eventually((folder / "pid").exists)
    os.close(worker.to_worker)
    assert worker.wait() != 0
    child = int((folder / "pid").read_text())
    eventually(lambda: process.start_ticks(child) is None or is_zombie(child))
    assert worker.at().item_id == 1


def test_a_cell_survives_the_death_of_its_worker(start, folder, eventually):
    """After kill -9 the cell still says who ran what since when."""
    worker = start(GATED)
    ticks = process.start_ticks(worker.pid)
    worker.dispatch(5, "1", "2", number=4)
    eventually((folder / "began2").exists)
    os.kill(worker.pid, signal.SIGKILL)
    assert worker.wait() == -signal.SIGKILL
    cell = worker.at()
    assert (cell.pid, cell.start_ticks, cell.item_id, cell.dispatch_id, cell.number) == (worker.pid, ticks, 2, 5, 4)
    assert abs(time.time_ns() // 1000 - cell.started_at_us) < 60_000_000


def test_an_idle_worker_has_an_empty_cell(start, eventually):
    """Between dispatches the cell shows the process and no item."""
    worker = start()
    worker.only("1")
    # The cell is left behind the flush.
    eventually(lambda: worker.at().item_id is None)
    assert worker.at().pid == worker.pid


def test_a_handler_that_cannot_be_imported_is_refused(start):
    """The refusal is one line and the worker ends with status 2."""
    worker = start("import no_such_module_anywhere\ndef work(item): return item", ready=False)
    refused = worker.receive(Refused)
    assert "no_such_module_anywhere" in refused.message
    assert "\n" not in refused.message
    assert "Traceback" in refused.traceback
    assert worker.wait() == 2


def test_a_cell_that_is_not_there_is_refused(start, folder):
    """A worker that could not show what it does does not start doing it."""
    worker = start(ready=False, cells_path=str(folder / "absent"))
    assert "no cell" in worker.receive(Refused).message


def test_noise_on_the_inbound_pipe_ends_the_worker(start):
    """Bytes that are no frame are not obeyed and not skipped: the worker is gone, and says why on its stderr."""
    worker = start()
    os.write(worker.to_worker, b"x" * 64)
    assert worker.is_gone()
    assert worker.wait() != 0
    assert "no frame" in worker.said()


def test_a_worker_holds_nothing_of_the_upper_rooms(start, monkeypatch):
    """No database, no command line and no terminal package is loaded in a worker; the handler's module knows that it is in one."""
    for name in [name for name in os.environ if name.startswith(("COV_CORE_", "COVERAGE_"))]:
        # Measuring coverage loads sqlite3.
        monkeypatch.delenv(name)
    worker = start(
        """
        import sys
        from durabatch import decorator
        IN_WORKER = decorator.in_worker
        def work(item):
            return [IN_WORKER, sorted({"apsw", "click", "rich", "psutil", "pydantic", "sqlite3"} & set(sys.modules))]
        """
    )
    assert worker.only() == "[true,[]]"


def test_descriptors_of_the_worker_are_closed_in_its_children(start):
    """A program that a handler starts holds the standard descriptors and nothing else."""
    worker = start(
        """
        import os, subprocess
        def work(item):
            with open(__file__):
                return subprocess.run(["ls", "/proc/self/fd"], capture_output=True, text=True, close_fds=False).stdout.split()
        """
    )
    assert worker.only() == '["0","1","2","3"]'


def test_signals_are_as_a_fresh_process_has_them(start, eventually, folder):
    """SIGINT does not disturb an item and is not ignored in children; SIGTERM ends the worker."""
    worker = start(
        """
        import os, pathlib, signal, subprocess
        def work(item):
            os.kill(os.getpid(), signal.SIGINT)
            status = subprocess.run(["sh", "-c", "kill -INT $$; sleep 60"]).returncode
            return [status, signal.getsignal(signal.SIGTERM) == signal.SIG_DFL]
        """
    )
    assert worker.only() == "[-2,true]"
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait() == -signal.SIGTERM


def test_a_module_beside_the_input_does_not_replace_the_standard_library(start, folder):
    """Files in the working directory are importable for the handler, and cannot break the worker itself."""
    (folder / "msgspec.py").write_text("raise SystemExit('taken')")
    (folder / "helper.py").write_text("ANSWER = 42")
    worker = start("import helper\ndef work(item): return helper.ANSWER")
    assert worker.only() == "42"


def test_workers_die_with_the_process_that_started_them_even_in_c_code(start, folder, eventually):
    """A worker that holds the interpreter for ever is ended by the kernel a second after its parent's death."""
    worker = start(
        """
        def work(item):
            return sum(range(10**15))
        """
    )
    # The signal that the parent's death sends; the sum lets nothing else of Python run.
    worker.dispatch(1, "1")
    eventually(lambda: worker.at().item_id == 1)
    os.kill(worker.pid, signal.SIGHUP)
    assert worker.wait() == -signal.SIGALRM


def test_the_worker_asked_for_a_signal_at_its_parents_death(start):
    """The kernel will send SIGHUP when the parent dies."""
    worker = start(
        """
        import ctypes
        def work(item):
            number = ctypes.c_int()
            ctypes.CDLL(None).prctl(2, ctypes.byref(number), 0, 0, 0)
            return number.value
        """
    )
    assert worker.only() == "1"


def test_a_worker_is_not_started_by_hand(capfd):
    """Without its descriptors the program says what it is and exits with status 2."""
    from durabatch.workers.main import main

    assert main([]) == 2
    assert "durabatch run" in capfd.readouterr().err


def test_ready_comes_before_any_outcome(start):
    """Dispatches sent before the handler is imported wait for it."""
    worker = start("import time\ntime.sleep(0.1)\ndef work(item): return item", ready=False)
    worker.dispatch(1, "1")
    worker.receive(Ready)
    assert worker.outcomes(1) == {1: "1"}


def is_empty(flush, dispatch_id):
    """Whether a flush says that a dispatch is finished, and nothing else."""
    return (flush.dispatch_id, flush.finished) == (dispatch_id, True) and not (flush.succeeded or flush.packed or flush.failed)


def is_zombie(pid):
    """Whether a process has ended and only waits to be noticed."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def waiting_bytes(descriptor):
    """How many bytes of a pipe have not been read."""
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]
