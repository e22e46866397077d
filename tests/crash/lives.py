"""
One run in this process with stand-ins at both ends: a source of numbered rows, and workers that answer by rule instead of running anything.

Everything between them is real: session, coordinator, engine, ledger. ``live`` plays one process that works on the run until it ends or its
storage fails, and reports what its caller was told, which is what must never be lost.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
from unittest import mock

from durabatch import codec
from durabatch.api import Ledger
from durabatch.engine import results as reading
from durabatch.errors import DurabatchError
from durabatch.intake.source import Page
from durabatch.models import Summary
from durabatch.runner import coordinator, log_moving, room, session
from durabatch.runner.delivering import Deliverer
from durabatch.runner.pool import Arrived, Died
from durabatch.runner.request import RunRequest
from durabatch.runner.room import Room
from durabatch.settings import RunSettings
from durabatch.states import ENDED_ITEM_STATES
from durabatch.workers.cells import Cell
from durabatch.workers.protocol import Dispatch, Failure, Flush, Frame, Ready, Release, Released

ITEMS = 72
PAGE_ITEMS = 8
MAX_ATTEMPTS = 6
#: Times that a full disk is tried again.
TRIES = 5
#: Frames of the log after which it is moved into the ledger: few, so that a short trace has several such moves.
CHECKPOINT_FRAMES = 60


class Rows:
    """The input: *count* numbered items in small pages, with a position to go on from."""

    description = "rows"
    key_note = None
    repeatable = True

    def __init__(self, count: int = ITEMS) -> None:
        self.count = count

    def fingerprint(self):
        return [{"path": "/rows", "bytes": self.count, "mtime_ns": 1}]

    def ready(self) -> bool:
        return True

    def pages(self, position, *, max_items, max_bytes):
        done = int(position or 0)
        while done < self.count:
            upto = min(done + PAGE_ITEMS, self.count)
            yield Page([(f"k{n}", str(n), n) for n in range(done + 1, upto + 1)], str(upto), done=upto == self.count)
            done = upto


def expected_state(key: str) -> str:
    """Return how an item ends: every eleventh fails for good."""
    return "failed" if int(key[1:]) % 11 == 0 else "succeeded"


class ImpatientRoom(Room):
    """Waits for room like the real one, but only a few moments: then it is as if a signal had come."""

    def __init__(self, *args, **rest) -> None:
        looks = itertools.count(1)
        super().__init__(*args, **{**rest, "is_told_to_stop": lambda: next(looks) > TRIES})


class PromptDeliverer(Deliverer):
    """Calls at once, in the thread of the coordinator: what happens to storage, and when, is the same each time."""

    def hand_over(self, batch_id, batch) -> None:
        """Make the call."""
        self.current = batch_id
        for call in self.calls:
            call(batch)
        self.returned(None)


class RulePool:
    """
    Two workers that answer by rule. Every item's number decides what becomes of it; every step's number decides what is sent.

    Args:
        life: Stands in every value, so that a result that was recorded twice shows.
    """

    inline = False

    def __init__(self, life: int) -> None:
        self.life = life
        self.events: deque = deque()
        #: Worker to (dispatch id, batch id, work), in the order in which they would run.
        self.waiting: dict[int, deque] = {}
        self.steps = itertools.count(1)

    def start(self, number: int) -> None:
        self.waiting[number] = deque()
        self.events.append(Arrived(number, Ready(number)))

    def send(self, worker, message) -> None:
        if isinstance(message, Dispatch):
            self.waiting[worker].extend((message.dispatch_id, group.batch_id, work) for group in message.groups for work in group.items)
        elif isinstance(message, Release):
            self.give_back(worker, message.limit)

    def give_back(self, worker: int, limit: int | None) -> None:
        """Return items from the end; a dispatch of which nothing is left is over."""
        mine = self.waiting[worker]
        taken = [mine.pop() for _ in range(len(mine) if limit is None else min(limit, len(mine)))][::-1]
        items: dict[int, list[int]] = {}
        for dispatch_id, _, work in taken:
            items.setdefault(dispatch_id, []).append(work[0])
        self.events.append(Arrived(worker, Released(items)))
        left = {dispatch_id for dispatch_id, _, _ in mine}
        self.events.extend(Arrived(worker, Flush(one, [], [], [], [], finished=True)) for one in items if one not in left)

    def poll(self, timeout_s: float) -> list:
        """Return one event a call."""
        if not self.events:
            self.act(next(self.steps))
        return [self.events.popleft()] if self.events else []

    def act(self, step: int) -> None:
        """Let one worker that has something to do do something."""
        busy = [worker for worker, waiting in self.waiting.items() if waiting]
        if not busy:
            return
        worker = busy[step % len(busy)]
        if step % 17 == 0:
            self.die(worker)
        elif step % 13 == 0 and len(self.waiting[worker]) > 1:
            self.give_back(worker, 1)
        else:
            self.flush(worker, 1 + step % 4)

    def die(self, worker: int) -> None:
        """Let a worker be killed at its first item."""
        dispatch_id, _, (item_id, number, _, _) = self.waiting.pop(worker)[0]
        self.events.append(Died(worker, -9, (Cell(worker - 1, worker, 1, item_id, dispatch_id, number, 1),), was_ready=True, tail=""))

    def flush(self, worker: int, limit: int) -> None:
        """Send up to *limit* outcomes of one dispatch."""
        mine = self.waiting[worker]
        dispatch_id = mine[0][0]
        succeeded, failed = [], []
        packed: dict[int, list] = {}
        while mine and mine[0][0] == dispatch_id and len(succeeded) + len(failed) < limit:
            _, batch_id, (item_id, number, key, _) = mine.popleft()
            n, head = int(key[1:]), (item_id, number, worker, 1_000_000 * number, 25_000)
            if expected_state(key) == "failed" or (n % 7 == 0 and number == 1):
                failed.append(Failure(*head, "failed", "ValueError", "by rule", "", retryable=n % 11 != 0))
            elif n % 5 == 0:
                packed.setdefault(batch_id, []).append((head, self.value(key, dispatch_id, 1200)))
            else:
                succeeded.append((*head, self.value(key, dispatch_id, 10)))
        frames, rows = self.frames(packed)
        is_last = not mine or mine[0][0] != dispatch_id
        self.events.append(Arrived(worker, Flush(dispatch_id, succeeded, rows, frames, failed, finished=is_last)))

    def value(self, key: str, dispatch_id: int, size: int) -> str:
        return codec.encode_value({"key": key, "life": self.life, "dispatch": dispatch_id, "pad": "x" * size}, limit_bytes=1 << 20)

    def frames(self, packed):
        """Return the values of each batch as one frame, and the rows that point into it."""
        frames, rows = [], []
        for index, (batch_id, values) in enumerate(packed.items()):
            raw = b""
            for head, value in values:
                rows.append((*head, index, len(raw), len(value)))
                raw += value.encode()
            frames.append(Frame(batch_id, len(raw), codec.frame_digest(raw), codec.pack_frame(raw)))
        return frames, rows

    def running(self, worker: int) -> list[Cell]:
        return []

    def pids(self) -> dict[int, int]:
        return {}

    def terminate(self, worker: int) -> None:
        self.kill_one(worker)

    def kill_one(self, worker: int) -> None:
        if worker in self.waiting:
            self.waiting.pop(worker)
            self.events.append(Died(worker, -9, (), was_ready=True, tail=""))

    def interrupt(self) -> None:
        self.kill()

    def kill(self) -> None:
        for worker in list(self.waiting):
            self.kill_one(worker)

    def close(self, grace_s: float) -> None:
        self.waiting.clear()


@dataclass
class Life:
    """
    What one process came to, and what it had told its caller by then.

    Attributes:
        told: Key to (state, value as JSON) of every item that was reported.
        error: What ended it, when it did not end by itself.
    """

    told: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    summary: Summary | None = None
    error: DurabatchError | None = None
    ticks: int = 0


def live(path, *, life=1, vfs=None, recorder=None, durability="power", count=ITEMS) -> Life:
    """
    Work on the run until it ends or cannot go on; what is told is marked in *recorder* at the moment at which it is told.

    Errors that are not durabatch's own come out.
    """
    done = Life()

    def tell(results) -> None:
        new = {one.key: (one.state, one.value_json) for one in results if one.state in ENDED_ITEM_STATES}
        done.told |= new
        if recorder is not None and new:
            recorder.mark(new)

    request = RunRequest(
        verb="run", ledger=str(path), settings=RunSettings(workers=2, batch_size=10, max_attempts=MAX_ATTEMPTS, backoff_s=0), function=lambda item: item,
        source=Rows(count), series="sweep", durability=durability, vfs=vfs, on_batch=lambda batch: tell(batch.results),
    )  # fmt: skip
    work = session.Session(request)
    pool = RulePool(life)
    with (
        mock.patch.object(session, "make_pool", lambda *_: pool),
        mock.patch.object(session, "Room", ImpatientRoom),
        mock.patch.object(session, "deliverer_of", lambda on_batch, *_: PromptDeliverer((on_batch,))),
        mock.patch.object(room, "PAUSE_S", 0),
        mock.patch.object(log_moving, "FRAMES", CHECKPOINT_FRAMES),
        # A commit for every flush: the more commits, the more instants there are to lose power at.
        mock.patch.object(coordinator, "TOGETHER_S", 0),
    ):
        try:
            for ledger, ended in work.ticks():
                done.ticks += 1
                tell(reading.chosen(ledger, list(ended)))
        except DurabatchError as error:
            done.error = error
    done.summary = work.summary
    return done


def faults_of_end(path, told, *, count=ITEMS) -> list[str]:
    """Return what is wrong with a finished ledger: every item once, as expected, and everything that was *told* as it was told."""
    ledger = Ledger(path)
    problems = [f"verify: {finding}" for finding in ledger.verify()]
    found = {one.key: (one.state, one.value_json) for one in ledger["sweep"].results()}
    problems += [f"{key} was told as {was} and is {found.get(key)}" for key, was in told.items() if found.get(key) != was]
    wanted = {f"k{n}": expected_state(f"k{n}") for n in range(1, count + 1)}
    states = {key: state for key, (state, _) in found.items()}
    return problems + ([] if states == wanted else [f"items ended as {states}"])
