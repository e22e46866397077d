"""
Ledgers for tests, built by the engine's own verbs: what a test finds in them, a run would have put there.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from durabatch.codec import frame_digest, pack_frame
from durabatch.engine import active as actives
from durabatch.engine.active import ActiveRun
from durabatch.engine.claim import Claim, claim, seal_when_exhausted
from durabatch.engine.finish import FailedAttempt, Finished, Returned, finish
from durabatch.engine.promise import Entry, record
from durabatch.engine.redo import redo
from durabatch.engine.start import create_run
from durabatch.engine.steer import order
from durabatch.engine.steps import ClaimedStep, StepsFinished, claim_steps, finish_steps
from durabatch.engine.submit import submit
from durabatch.flow.batching import FixedBatches
from durabatch.flow.retrying import RetryPolicy
from durabatch.ledger.connection import Connection
from durabatch.ledger.opening import open_ledger
from durabatch.states import AttemptOutcome

#: An instant for everything that needs one: 2027-01-15, so that a mix-up with the real clock shows.
NOW = 1_800_000_000_000_000
HANDLER = {"kind": "python", "target": "jobs:work"}


def rows(path: Path | str, text: str, *bindings: Any) -> list[tuple]:
    """Return the rows of a query, by another program than ours."""
    with contextlib.closing(sqlite3.connect(path)) as other:
        return other.execute(text, bindings).fetchall()


def sabotage(path: Path | str, *texts: str) -> None:
    """Change a ledger that nobody has open behind our back, CHECKs and all."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA ignore_check_constraints = 1")
        other.execute("PRAGMA foreign_keys = 0")
        for text in texts:
            other.execute(text)
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def tables(path: Path | str) -> dict[str, list[tuple]]:
    """Return every row of every table."""
    names = [row[0] for row in rows(path, "SELECT name FROM sqlite_schema WHERE type = 'table'")]
    return {name: rows(path, f"SELECT * FROM {name}") for name in names}


@contextlib.contextmanager
def tick(ledger: Connection, run: ActiveRun) -> Iterator[None]:
    """Do what the coordinator does between two waits: one transaction, its counters at the end."""
    with ledger.transaction():
        yield
        run.write_tally(ledger)


def new_run(ledger: Connection, series: str = "jobs", **columns: Any) -> ActiveRun:
    """Return a new run without items."""
    given = {"handler": HANDLER, "source": {"kind": "lines"}, "fingerprint": None, "settings": {}, **columns}
    return actives.load(ledger, create_run(ledger, series=series, now_us=NOW, **given))


def add(
    ledger: Connection, run: ActiveRun, keys: Iterable[str | None], *, complete: bool = False, payload: Callable[[str], str] = "{!r}".format, place: Any = None
) -> None:
    """Take one page of items in; the payload is the key as JSON text unless *payload* makes it."""
    page = [(key, payload(str(key)).replace("'", '"'), position) for position, key in enumerate(keys, run.total_count + 1)]
    with tick(ledger, run):
        submit(ledger, run, page, position=str(run.total_count + len(page)), complete=complete, place=place)


def run_of(ledger: Connection, count: int, *, series: str = "jobs", complete: bool = True) -> ActiveRun:
    """Return a run of *count* items with the keys k1, k2 ..."""
    run = new_run(ledger, series)
    add(ledger, run, [f"k{number}" for number in range(1, count + 1)], complete=complete)
    return run


def take(ledger: Connection, run: ActiveRun, limit: int, *, size: int = 10, max_bytes: int = 1 << 20, now_us: int = NOW) -> Claim | None:
    """Claim up to *limit* items for one dispatch, in batches of *size*."""
    with tick(ledger, run):
        made = claim(ledger, run, FixedBatches(size), limit=limit, max_bytes=max_bytes, now_us=now_us)
        seal_when_exhausted(ledger, run, now_us)
    return made


def ids(made: Claim) -> list[int]:
    """Return the ids of the items of a dispatch, in order."""
    return [work[0] for _, works in made.groups for work in works]


def keys(made: Claim) -> list[str]:
    """Return the keys of the items of a dispatch, in order."""
    return [work[2] for _, works in made.groups for work in works]


def answer(made: Claim, *, failing: Iterable[str] = (), packed: Iterable[str] = (), only: Iterable[str] | None = None, **error: Any) -> Returned:
    """
    Return what a worker sends back of a dispatch: values ``"<key>!"``, those of *packed* keys in one frame a batch.

    Args:
        failing: Keys of the items that fail, with *error* as columns of the attempt.
        only: Keys of the items that are sent; None sends all.
    """
    back = Returned(made.dispatch_id, inline=[], packed=[], frames=[], failed=[], batch_of={})
    for batch_id, works in made.groups:
        raw = b""
        for item_id, number, key, _ in works:
            if only is not None and key not in only:
                continue
            back.batch_of[item_id] = batch_id
            head, value = (item_id, number, 1, NOW, 500), f'"{key}!"'
            if key in failing:
                back.failed.append(failure(item_id, number, **error))
            elif key in packed:
                back.packed.append((*head, len(back.frames), len(raw), len(value)))
                raw += value.encode()
            else:
                back.inline.append((*head, value))
        if raw:
            back.frames.append((batch_id, len(raw), frame_digest(raw), pack_frame(raw)))
    return back


def failure(item_id: int, number: int, outcome: str = "failed", *, retryable: bool = True, **columns: Any) -> FailedAttempt:
    """Return an attempt that did not succeed."""
    is_error = outcome in ("failed", "timed_out", "crashed")
    row = {
        "item_id": item_id, "number": number, "worker": 1, "outcome": outcome, "started_at_us": NOW, "duration_us": 500,
        "error_type": "ValueError" if is_error else None, "error_message": "no" if is_error else None,
        "traceback": None, "exit_code": None, "stdout_tail": None, "stderr_tail": None, **columns,
    }  # fmt: skip
    return FailedAttempt(AttemptOutcome(outcome), retryable, row)


def failures(made: Claim, *outcomes: str, after_s: float | None = None, only: Iterable[str] | None = None, **columns: Any) -> Returned:
    """Return what comes back of a dispatch whose items do not succeed; the last of *outcomes* stands for all further items."""
    back = answer(made, only=())
    works = [(batch_id, work) for batch_id, works in made.groups for work in works if only is None or work[2] in only]
    for index, (batch_id, (item_id, number, _, _)) in enumerate(works):
        one = failure(item_id, number, outcomes[min(index, len(outcomes) - 1)], **columns)
        back.failed.append(replace(one, after_s=after_s))
        back.batch_of[item_id] = batch_id
    return back


def finished(ledger: Connection, run: ActiveRun, back: Returned, *, policy: RetryPolicy | None = None, now_us: int = NOW + 1000, luck: float = 1.0) -> Finished:
    """Record what a worker sent, by *policy* (one try)."""
    with tick(ledger, run):
        return finish(ledger, run, back, policy=policy or RetryPolicy(), now_us=now_us, luck=lambda: luck)


def give_back(ledger: Connection, run: ActiveRun, back: Returned, *, max_attempts: int = 1, now_us: int = NOW + 1000) -> int:
    """Record what a worker sent; further tries need not wait. Return how many attempts were new."""
    return finished(ledger, run, back, policy=RetryPolicy(max_attempts, backoff_s=0), now_us=now_us).recorded


def work_off(ledger: Connection, run: ActiveRun, *, limit: int = 7, size: int = 10, max_attempts: int = 1, **answered: Any) -> None:
    """Claim and finish until nothing is ready."""
    while made := take(ledger, run, limit, size=size):
        give_back(ledger, run, answer(made, **answered), max_attempts=max_attempts)


def promise(ledger: Connection, run: ActiveRun, made: Claim, *only: str, entries: int = 1, **entry: Any) -> list[int | None]:
    """Have the items of a dispatch (those with the keys *only*, if there are any) promise so many effects each; return the ids of the entries."""
    promised = [
        Entry(made.dispatch_id, item_id, number, sequence, "drop", f'{{"what":"{key}.{sequence}"}}')._replace(**entry)
        for _, works in made.groups for item_id, number, key, _ in works if not only or key in only
        for sequence in range(1, entries + 1)
    ]  # fmt: skip
    with tick(ledger, run):
        return record(ledger, run, promised, NOW)


def steps(ledger: Connection, run: ActiveRun, *, limit: int = 10, dispatch_id: int = -1, now_us: int = NOW, **how: Any) -> list[ClaimedStep]:
    """Claim up to *limit* steps for one dispatch."""
    with tick(ledger, run):
        return claim_steps(ledger, run, limit=limit, dispatch_id=dispatch_id, now_us=now_us, **how)


def stepped(
    ledger: Connection, run: ActiveRun, claimed: Iterable[ClaimedStep], *outcomes: str, dispatch_id: int = -1, max_attempts: int = 3,
    ran: bool = True, now_us: int = NOW, **error: Any,
) -> StepsFinished:  # fmt: skip
    """Record that these steps were undone or, where *outcomes* say so (the last one for all further steps), were not, with *error*."""
    back = Returned(dispatch_id, inline=[], failed=[])
    for index, one in enumerate(claimed):
        outcome = outcomes[min(index, len(outcomes) - 1)] if outcomes else "undone"
        if outcome == "undone":
            back.inline.append((-one.undo_id, one.try_number, 1, now_us, 500, '{"ran":true}' if ran else '{"ran":false}'))
        else:
            back.failed.append(failure(-one.undo_id, one.try_number, outcome, **error))
    with tick(ledger, run):
        return finish_steps(ledger, run, back, policy=RetryPolicy(max_attempts), now_us=now_us, luck=lambda: 1.0)


def undo_all(ledger: Connection, run: ActiveRun, *, now_us: int = NOW) -> list[str]:
    """Undo whatever is wanted; return the effects in the order in which they were taken back."""
    told: list[str] = []
    while claimed := steps(ledger, run, now_us=now_us):
        told += [one.step_json.split('"what":"')[1].split('"')[0] for one in claimed]
        stepped(ledger, run, claimed, now_us=now_us)
    return told


def worked_ledger(path: Path) -> None:
    """Leave a closed ledger at *path*: a run of 25 items in batches of 10 with packed results, one failure, one effect (of k1) and one redone item (20), and a half done one."""
    path.write_bytes(worked_bytes())


@functools.cache
def worked_bytes() -> bytes:
    """Return what stands in that ledger; it is made once, since many tests want it."""
    with tempfile.TemporaryDirectory(prefix="durabatch-factory-") as folder:
        path = Path(folder) / "l.db"
        make_worked_ledger(path)
        return path.read_bytes()


def make_worked_ledger(path: Path) -> None:
    """Make that ledger with the engine's verbs."""
    with contextlib.closing(open_ledger(path, create=True, durability="process")) as ledger:
        first, ended = run_of(ledger, 25), {"failing": {"k4"}, "packed": {"k2", "k3", "k12"}}
        made = take(ledger, first, 7)
        promise(ledger, first, made, "k1")
        give_back(ledger, first, answer(made, **ended))
        work_off(ledger, first, **ended)
        redo(ledger, first.run_id, [20], cause="redone", now_us=NOW)
        actives.reload(ledger, first)
        work_off(ledger, first)
        second = run_of(ledger, 12, series="other")
        give_back(ledger, second, answer(take(ledger, second, 4, size=5)))
        take(ledger, second, 3, size=5)
        order(ledger, second.run_id, "pause", {}, by={"pid": 1}, now_us=NOW)
