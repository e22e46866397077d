"""
The worker process from its first to its last moment.

    Start ──▶ import the handler ──▶ set-up ──▶ Ready ──▶ dispatch by dispatch, item by item ──▶ Stop: tear-down, exit 0
                                └──▶ Refused: exit 2

The main thread imports and runs, by itself or by threads of its own; the link's thread talks to the coordinator meanwhile.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
import traceback
from collections.abc import Callable

from durabatch import decorator, process
from durabatch.errors import DurabatchError
from durabatch.workers.allowance import Allowance
from durabatch.workers.cells import Cells
from durabatch.workers.failure import capped, message_of, one_line
from durabatch.workers.handlers import Handlers, check_cpu_limit, load_handlers
from durabatch.workers.hands import Hands
from durabatch.workers.link import Link, Model, end
from durabatch.workers.protocol import Ready, Refused, Start
from durabatch.workers.surroundings import RUN_MARKER, end_relatives, prepare, restorer, set_aside

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
        model = make_model(link, start)
    except BaseException as error:  # noqa: BLE001 - also SystemExit of a module that was written as a script
        link.send(refusal(error))
        return REFUSED
    link.attach(model)
    link.send(Ready(os.getpid()))
    model.run()
    hurry(start.term_grace_s)
    model.close()
    return 0


def make_model(link: Link, start: Start) -> Model:
    """Return what runs the items for a Start, set up, with the worker's cells occupied by this process."""
    restore = restorer()
    sys.path[:] = start.sys_path
    decorator.in_worker = True
    if start.marker:
        os.environ[RUN_MARKER] = start.marker
    windows = occupy(start)
    allowance = Allowance(start.timeout_s, start.term_grace_s, start.cpu_limit_s, start.marker or f"pid-{os.getpid()}")
    handlers = load_handlers(start, allowance)
    check_cpu_limit(start, handlers.handler, inline=False)
    model = set_up(link, start, handlers, allowance, windows, restore)
    # What is there by now stays: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    return model


def occupy(start: Start) -> list[memoryview]:
    """Give the worker's cells to this process and return their windows."""
    cells = Cells.open(start.cells_path, process.boot_id())
    ticks = process.start_ticks(os.getpid()) or 0
    numbers = range(start.cell, start.cell + start.cell_count)
    for number in numbers:
        cells.occupy(number, os.getpid(), ticks)
    return [cells.window(number) for number in numbers]


def set_up(
    link: Link, start: Start, handlers: Handlers, allowance: Allowance, windows: list[memoryview], restore: Callable[[], None]
) -> Model:
    """Return the model that fits the handler, with the handler's own set-up done."""
    if not handlers.handler.is_async:
        handlers.resources.set_up()
        return Hands(link, start, handlers, allowance, windows, restore)
    # Here: only an async handler needs a loop.
    from durabatch.workers.tasks import Tasks

    tasks = Tasks(link, link.backlog, start, handlers, allowance, windows, restore, link.promises)
    tasks.set_up()
    return tasks


def refusal(error: BaseException) -> Refused:
    """Return the message that says why the handler cannot be used."""
    what = (
        message_of(error) if isinstance(error, DurabatchError) else f"cannot load the handler: {type(error).__name__}: {message_of(error)}"
    )
    return Refused(capped(one_line(what), MAX_REFUSAL_BYTES), capped("".join(traceback.format_exception(error)), MAX_REFUSAL_BYTES))


def hurry(grace_s: float) -> None:
    """Have the process end after *grace_s* even if threads and exit functions of the handler's module do not come to an end."""
    timer = threading.Timer(grace_s, end, args=(0,))
    timer.daemon = True
    timer.start()
