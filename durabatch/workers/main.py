"""
The worker process from its first to its last moment.

    Start ──▶ import the handler ──▶ Ready ──▶ dispatch by dispatch, item by item ──▶ Stop: exit 0
                                └──▶ Refused: exit 2

The main thread imports and runs; the link's thread talks to the coordinator meanwhile.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
import traceback

from durabatch import decorator, process
from durabatch.errors import DurabatchError
from durabatch.workers.cells import Cells
from durabatch.workers.failure import capped, one_line
from durabatch.workers.item_runner import ItemRunner, load_handler
from durabatch.workers.link import FLUSH_BYTES, Link, end
from durabatch.workers.protocol import Ready, Refused, Start
from durabatch.workers.surroundings import end_relatives, prepare, restorer, set_aside

__all__ = ["main"]

#: Exit status of a worker whose handler cannot be used.
REFUSED = 2
MAX_REFUSAL_BYTES = 64 * 1024


def main(arguments: list[str]) -> int:
    """
    Run a worker and return its exit status.

    Args:
        arguments: Numbers of three inherited descriptors: frames in, frames out, and the lock that says that workers live (only kept).
    """
    if len(arguments) != 3 or not all(argument.isdigit() for argument in arguments):
        sys.stderr.write("durabatch.workers is started by durabatch itself. Start a run with: durabatch run HANDLER INPUT\n")
        return REFUSED
    inbound, outbound, _lock = (set_aside(int(argument)) for argument in arguments)
    prepare()
    # Registered first, so called last: what a handler left running ends after its own exit functions ran.
    atexit.register(end_relatives)
    link = Link(inbound, outbound)
    link.open()
    link.started.wait()
    return serve(link, link.start) if link.start is not None else REFUSED


def serve(link: Link, start: Start) -> int:
    """Load the handler, run everything that comes, and return the exit status."""
    try:
        runner = make_runner(start)
    except BaseException as error:  # noqa: BLE001 - also SystemExit of a module that was written as a script
        link.send(refusal(error))
        return REFUSED
    link.attach(runner)
    link.send(Ready(os.getpid()))
    run_all(link, runner)
    hurry(start.term_grace_s)
    return 0


def make_runner(start: Start) -> ItemRunner:
    """Return the runner for a Start, with its cell occupied by this process."""
    restore = restorer()
    sys.path[:] = start.sys_path
    decorator.in_worker = True
    cells = Cells.open(start.cells_path, process.boot_id())
    cells.occupy(start.cell, os.getpid(), process.start_ticks(os.getpid()) or 0)
    handler = load_handler(start, end_relatives)
    # What is there by now stays: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    return ItemRunner(start, handler, window=cells.window(start.cell), restore=restore)


def run_all(link: Link, runner: ItemRunner) -> None:
    """Run dispatches until the coordinator says that there will be no more. Every item of each is sent or given back on return."""
    outcomes = runner.outcomes
    while (waiting := link.backlog.next()) is not None:
        link.begin(waiting.dispatch_id)
        runner.begin(waiting.dispatch_id)
        for batch_id, items in waiting.slices:
            while items:
                try:
                    work = items.popleft()
                except IndexError:
                    # Given back between the look and the step.
                    break
                runner.run(batch_id, work)
                if link.is_asleep:
                    link.wake()
                if outcomes.waiting_bytes >= FLUSH_BYTES:
                    link.settle(finished=False)
        link.settle(finished=True)


def refusal(error: BaseException) -> Refused:
    """Return the message that says why the handler cannot be used."""
    what = str(error) if isinstance(error, DurabatchError) else f"cannot load the handler: {type(error).__name__}: {error}"
    return Refused(capped(one_line(what), MAX_REFUSAL_BYTES), capped("".join(traceback.format_exception(error)), MAX_REFUSAL_BYTES))


def hurry(grace_s: float) -> None:
    """Have the process end after *grace_s* even if threads and exit functions of the handler's module do not come to an end."""
    timer = threading.Timer(grace_s, end, args=(0,))
    timer.daemon = True
    timer.start()
