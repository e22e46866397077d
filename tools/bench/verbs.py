"""
The verbs of the engine one by one, nothing else going on: taking in, handing out, recording. Each function is called in a fresh process.

They name the engine's own functions, so they measure the checkout that they are part of and no other.
"""

from __future__ import annotations

import os
import time

from ours import peak_mib

from durabatch.clock import now_us
from durabatch.engine.active import ActiveRun, load
from durabatch.engine.claim import Claim, claim
from durabatch.engine.finish import Returned, finish
from durabatch.engine.start import create_run, open_session
from durabatch.flow.batching import FixedBatches
from durabatch.flow.retrying import RetryPolicy
from durabatch.intake.open import open_source
from durabatch.intake.opened import OpenedInput
from durabatch.intake.remarks import Remarks
from durabatch.intake.source import Source
from durabatch.ledger.connection import Connection
from durabatch.ledger.opening import open_ledger
from durabatch.runner.feeding import Feeder, first_page
from durabatch.settings import RunSettings

__all__ = ["claim_all", "claims", "filled", "finding", "finishes", "opened_input", "pages", "reading", "submits"]

#: Items of a claim or a finish that is measured alone; one transaction each.
DISPATCH_ITEMS, DISPATCH_BYTES, BATCH_ITEMS = 1000, 1 << 20, 100
#: Pages of the log after which it is moved into the ledger.
LOG_FRAMES = 4000
#: Memory of a worker that recorded attempts tell of.
PEAK_BYTES = 40 << 20


def opened_input(source: Source) -> OpenedInput:
    """Return *source* as the input of a run."""
    return OpenedInput(source, Remarks(skips=False), "error")


def pages(*, directory: str, source: str) -> dict[str, float]:  # noqa: ARG001 - every measurement gets a directory
    """Return the rows a second of reading, parsing and checking alone."""
    started = time.perf_counter()
    count = sum(len(page.rows) for page in opened_input(open_source((source,), key="k")).pages())
    return {"value": count / (time.perf_counter() - started), "coordinator_mib": peak_mib()}


def reading(*, directory: str, ledger: str, source: str) -> dict[str, float]:  # noqa: ARG001 - as the sides beside it
    """Return the seconds of the same."""
    started = time.perf_counter()
    pages(directory=directory, source=source)
    return {"value": time.perf_counter() - started, "coordinator_mib": peak_mib()}


def finding(*, directory: str, ledger: str, source: str) -> dict[str, float]:  # noqa: ARG001 - as the sides beside it
    """Return the seconds of finding all files below a directory, as items."""
    started = time.perf_counter()
    if not sum(len(page.rows) for page in opened_input(open_source((source,))).pages()):
        raise RuntimeError("there were no files")
    return {"value": time.perf_counter() - started, "coordinator_mib": peak_mib()}


def filled(directory: str, source: Source) -> tuple[Connection, ActiveRun, float]:
    """Return a ledger with all items of a source in it, one transaction a page, and the rows a second that took."""
    ledger = open_ledger(os.path.join(directory, "bench.db"), create=True)
    open_session(ledger, {}, now_us=now_us())
    opened, settings = opened_input(source), RunSettings()
    started = time.perf_counter()
    page, rest = first_page(opened)
    run_id = create_run(ledger, series="bench", handler={}, source={}, fingerprint=None, settings=settings.as_json(), now_us=now_us())
    active = load(ledger, run_id)
    feeder = Feeder(ledger, active, opened, settings)
    with ledger.transaction():
        feeder.begin(page, rest)
        active.write_tally(ledger)
    while not feeder.is_done:
        feeder.mark()
        with ledger.transaction():
            feeder.feed()
            active.write_tally(ledger)
        if ledger.wal_frames > LOG_FRAMES:
            ledger.checkpoint()
    return ledger, active, active.total_count / (time.perf_counter() - started)


def submits(*, directory: str, source: str) -> dict[str, float]:
    """Return the rows a second from a file into the ledger, nothing else going on."""
    ledger, _, rate = filled(directory, open_source((source,), key="k"))
    ledger.close()
    return {"value": rate, "coordinator_mib": peak_mib()}


def claim_all(ledger: Connection, active: ActiveRun) -> tuple[list[Claim], float]:
    """Return every item of the run, claimed, and the items a second that took."""
    made: list[Claim] = []
    batches = FixedBatches(BATCH_ITEMS)
    started = time.perf_counter()
    while active.pending_count:
        with ledger.transaction():
            found = claim(ledger, active, batches, limit=DISPATCH_ITEMS, max_bytes=DISPATCH_BYTES, now_us=now_us())
            active.write_tally(ledger)
        if found is None:
            break
        made.append(found)
        if ledger.wal_frames > LOG_FRAMES:
            ledger.checkpoint()
    return made, active.total_count / (time.perf_counter() - started)


def claims(*, directory: str, source: str) -> dict[str, float]:
    """Return the items a second that can be handed out, nothing else going on."""
    ledger, active, _ = filled(directory, open_source((source,), key="k"))
    _, rate = claim_all(ledger, active)
    ledger.close()
    return {"value": rate}


def returned_of(made: Claim) -> Returned:
    """Return what a worker would send back for a claim."""
    inline = [(work[0], work[1], 1, 1_700_000_000_000_000 + work[0], 2, f'{{"n":{work[0]}}}') for _, works in made.groups for work in works]
    batch_of = {work[0]: batch_id for batch_id, works in made.groups for work in works}
    return Returned(made.dispatch_id, inline=inline, batch_of=batch_of, peak_rss_bytes=PEAK_BYTES)


def finishes(*, directory: str, source: str) -> dict[str, float]:
    """Return the items a second that can be recorded, nothing else going on."""
    ledger, active, _ = filled(directory, open_source((source,), key="k"))
    made, _ = claim_all(ledger, active)
    policy = RetryPolicy.of(RunSettings())
    spent_s, count = 0.0, 0
    for one in made:
        returned = returned_of(one)
        started = time.perf_counter()
        with ledger.transaction():
            count += finish(ledger, active, returned, policy=policy, now_us=now_us()).recorded
            active.write_tally(ledger)
        if ledger.wal_frames > LOG_FRAMES:
            ledger.checkpoint()
        spent_s += time.perf_counter() - started
    ledger.close()
    return {"value": count / spent_s}
