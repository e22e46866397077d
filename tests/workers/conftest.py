"""A real worker process on real pipes, driven frame by frame."""

from __future__ import annotations

import os
import select
import sys
import textwrap
import time

import pytest

from durabatch import process
from durabatch.workers import protocol
from durabatch.workers.cells import Cells
from durabatch.workers.spawn import spawn_argv
from tests.nursery import started

PATIENCE_S = 30
#: Cells of each worker: as many as any test wants items at once.
CELLS = 8


class WorkerProcess:
    """The coordinator's view of one worker."""

    def __init__(self, folder, *, cells, number=1, handler=None, params=None, **limits):
        self.cells, self.number, self.cell = cells, number, (number - 1) * cells.per_worker
        self.errors = folder / f"worker{number}.err"
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
        inbound, self.to_worker = os.pipe()
        self.from_worker, outbound = os.pipe()
        with self.errors.open("wb") as errors:
            pipes = (inbound, outbound, lock)
            self.process = started(spawn_argv(*pipes), pass_fds=pipes, cwd=folder, stdout=errors, stderr=errors)
        for descriptor in (inbound, outbound, lock):
            os.close(descriptor)
        self.frames = protocol.FrameBuffer()
        self.inbox = []
        self.start = {
            "worker": number,
            "run_id": 1,
            "run_name": "nightly",
            "handler": handler or {"kind": "python", "target": "jobs:work"},
            "params": params or {},
            "sys_path": [str(folder), *sys.path],
            "cells_path": str(folder / "cells"),
            "cell": self.cell,
            "cell_count": cells.per_worker,
            "inline_bytes": 1024,
            "max_result_bytes": 1 << 20,
            "term_grace_s": 0.3,
            "marker": f"test-{os.getpid()}-{folder.name}",
            **limits,
        }
        self.send(protocol.Start(**self.start))

    @property
    def pid(self):
        return self.process.pid

    def send(self, message):
        os.write(self.to_worker, protocol.encode(message))

    def dispatch(self, dispatch_id, *payloads, batch_id=1, first=1, number=1, **more):
        """Send items with the keys k1, k2, ... and ids that begin with *first*."""
        items = [(first + index, number, f"k{first + index}", payload) for index, payload in enumerate(payloads)]
        self.send(protocol.Dispatch(dispatch_id, [protocol.Group(batch_id, items)], **more))

    def receive(self, kind=None):
        """Return the next message, of the given kind if one is given; EOFError when the worker is gone."""
        until = time.monotonic() + PATIENCE_S
        while not self.inbox:
            assert select.select([self.from_worker], [], [], max(0, until - time.monotonic()))[0], f"nothing came: {self.said()}"
            data = os.read(self.from_worker, 1 << 20)
            if not data:
                raise EOFError
            self.inbox += map(protocol.decode_from_worker, self.frames.feed(data))
        message = self.inbox.pop(0)
        assert kind is None or isinstance(message, kind), message
        return message

    def flushes(self, dispatch_id):
        """Return everything that comes of a dispatch until it is finished."""
        found = []
        while not found or not found[-1].finished:
            message = self.receive(protocol.Flush)
            assert message.dispatch_id == dispatch_id
            found.append(message)
        return found

    def outcomes(self, dispatch_id):
        """Return item id to value (JSON text) or Failure of a dispatch whose values are all small."""
        found = {}
        for flush in self.flushes(dispatch_id):
            assert not flush.packed
            for outcome in flush.succeeded:
                assert outcome[0] not in found
                found[outcome[0]] = outcome[5]
            for failure in flush.failed:
                assert failure.item_id not in found
                found[failure.item_id] = failure
        return found

    def only(self, payload="1"):
        """Run one item alone and return its value or Failure."""
        self.dispatch(99, payload)
        return self.outcomes(99)[1]

    def is_gone(self):
        """Whether the pipe is at its end, with nothing left in it."""
        try:
            return bool(self.receive() and False)
        except EOFError:
            return True

    def is_gone_after(self, found):
        """Put the flushes that still come into *found*; True when the worker is gone."""
        try:
            while True:
                found.append(self.receive(protocol.Flush))
        except EOFError:
            return True

    def wait(self):
        return self.process.wait(PATIENCE_S)

    def said(self):
        return self.errors.read_text(errors="replace")

    def at(self):
        """The worker's first cell."""
        return self.cells.at(self.cell)

    def shown(self):
        """The ids of the items that the worker's cells show."""
        return sorted(cell.item_id for cell in self.cells.of_worker(self.number))

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.pid, 9)
        self.process.wait()
        for descriptor in (self.to_worker, self.from_worker):
            try:
                os.close(descriptor)
            except OSError:
                pass


@pytest.fixture(autouse=True)
def measured(measured_children):
    """Have coverage look at the workers, which it does in no other room."""


@pytest.fixture
def folder(tmp_path):
    """Where the worker is started and where its module lies."""
    return tmp_path


@pytest.fixture
def start(folder):
    """Start workers: ``start(source)`` with the text of jobs.py, waits for Ready unless told not to."""
    cells = Cells.create(folder / "cells", 4 * CELLS, process.boot_id(), 1, CELLS)
    started = []

    def start_worker(source="def work(item): return item", *, ready=True, **settings):
        (folder / "jobs.py").write_text(textwrap.dedent(source))
        worker = WorkerProcess(folder, cells=cells, number=len(started) + 1, **settings)
        started.append(worker)
        if ready:
            assert worker.receive(protocol.Ready).pid == worker.pid
        return worker

    yield start_worker
    for worker in started:
        worker.close()


@pytest.fixture
def command(start):
    """Start workers that run a command: ``command("cat", "{}", parse="json")``."""

    def start_command(*argv, shell=False, parse="none", **settings):
        return start(handler={"kind": "command", "argv": list(argv), "shell": shell, "parse": parse}, **settings)

    return start_command


@pytest.fixture
def eventually():
    """Wait until a condition that another process brings about holds."""

    def wait_for(condition):
        until = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < until, "it never came true"
            time.sleep(0.002)

    return wait_for


@pytest.fixture
def gate(folder, eventually):
    """Wait until items have begun, and let items go: for handlers that touch ``beganITEM`` and wait for ``goITEM``."""

    class Gate:
        def begun(self, *items):
            eventually(lambda: all((folder / f"began{item}").exists() for item in items))

        def has_begun(self, item):
            return (folder / f"began{item}").exists()

        def open(self, *items):
            for item in items:
                (folder / f"go{item}").touch()

    return Gate()
