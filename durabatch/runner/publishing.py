"""
Finished batches leave: to their files, and to whoever wants to be called about them, after the commit that finished them.

    finished  →  written, marked as published  →  called about (another thread), marked as delivered

A batch is marked after it was written, with how far the file has grown that all batches share. A crash in between writes it again, with the
same content, in the same place.

Batches leave as they finish, or, with ``keep_order``, in the order of their numbers: one that is finished waits for all lower ones. When the
run stops before them, those that wait stay in the ledger until the run goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from durabatch.clock import now_us
from durabatch.engine.results import results, results_of_batch
from durabatch.engine.status import status
from durabatch.ledger import batch, export, item, run
from durabatch.ledger.connection import Connection
from durabatch.models import Result
from durabatch.output.batch_files import BatchFiles
from durabatch.output.failures import sibling, write_failures
from durabatch.output.one_file import OneFile, one_file
from durabatch.output.places import file_format
from durabatch.output.summary_file import SummaryFile, build
from durabatch.runner.delivering import Deliverer, Failure
from durabatch.runner.request import BatchOutput, BatchResults
from durabatch.settings import RunSettings
from durabatch.states import RunState

__all__ = ["Publisher"]

#: States of a run that is over.
OVER = (RunState.FINISHED, RunState.CANCELLED, RunState.ROLLED_BACK)
#: Batches written between two ticks, and handed over to be called about.
AT_ONCE = 50
#: Failed items whose payloads are looked up at once.
PAGE = 1000


class Publisher:
    """
    Writes out the batches of one run, and has them delivered.

    Args:
        settings: Say where to, and in which order.
        deliverer: Calls whoever wants to be called about batches; None calls nobody.

    Raises:
        UsageError: The output cannot go there.
    """

    def __init__(self, ledger: Connection, run_id: int, run_name: str, settings: RunSettings, deliverer: Deliverer | None = None) -> None:
        self.ledger = ledger
        self.run_id = run_id
        self.run_name = run_name
        self.keep_order = settings.keep_order
        self.output = settings.output
        self.deliverer = deliverer
        self.record: dict[str, Any] = run.get(ledger, run_id).output
        self.place = self.place_of(settings)
        #: What was written and is not marked yet, and what is to be remembered with it.
        self.unmarked: list[int] = []
        self.record_to_be: dict[str, Any] = {}
        self.published_count = 0
        self.take_up()

    def place_of(self, settings: RunSettings) -> BatchFiles | OneFile | None:
        """Return where batches go; None when no output is wanted."""
        if settings.output is None:
            return None
        found = file_format(settings.output)
        if found is None:
            return BatchFiles(settings.output, self.run_name, settings.output_format)
        return one_file(Path(settings.output), *found, is_known=self.record.get("path") == settings.output)

    def take_up(self) -> None:
        """Go on where an earlier session ended, or have everything written from the start: to another place, or in another form."""
        if self.place is None:
            return
        self.published_count = batch.count_published(self.ledger, self.run_id)
        if self.place.take_up(self.record, self.published_count):
            return
        self.published_count = 0
        with self.ledger.transaction():
            batch.mark_all_unpublished(self.ledger, self.run_id)
            self.remember({"path": self.output, **self.beside})

    def heed_restart(self) -> bool:
        """Begin anew where results that stand in the output were taken back since it was written; tell whether that was so."""
        if self.place is None or "batches" not in self.record or not run.is_output_restarted(self.ledger, self.run_id):
            return False
        self.place.undo()
        self.unmarked = []
        self.record = run.get(self.ledger, self.run_id).output
        self.take_up()
        return True

    @property
    def failure(self) -> Failure | None:
        """The call that failed, and must halt the run; None while all went well."""
        return self.deliverer.failure if self.deliverer is not None else None

    @property
    def is_delivered(self) -> bool:
        """Whether nobody is to be called about any batch that may leave now; after a failure nobody is."""
        if self.deliverer is None or self.failure is not None:
            return True
        return self.deliverer.is_idle and not self.deliverer.delivered() and not self.undelivered(self.deliverer)

    def publish(self) -> bool:
        """
        Write out batches that have finished, and have them delivered; tell whether there may be more of them.

        Raises:
            OutputError: A batch could not be written; it is written by the next call. OutputFullError for lack of room.
        """
        if self.unmarked:
            self.heed_restart()
        self.mark()
        ready = self.ready() if self.place is not None and self.place.streams else []
        if ready and self.heed_restart():
            ready = self.ready()
        if ready:
            self.write(ready)
            self.mark()
        self.deliver()
        return len(ready) == AT_ONCE

    def ready(self) -> list[tuple[int, int]]:
        """Return (batch_id, number) of the next batches that may be written, lowest first."""
        finished = batch.list_unpublished(self.ledger, self.run_id, AT_ONCE)
        below = self.barrier() if finished else None
        return finished if below is None else [one for one in finished if one[1] < below]

    def barrier(self) -> int | None:
        """Return the number below which batches may leave; None when all may that have finished."""
        return batch.first_open(self.ledger, self.run_id) if self.keep_order else None

    def write(self, ready: list[tuple[int, int]]) -> None:
        """Write batches; on return they are on disk, and in ``unmarked``."""
        if self.place is None:
            return
        try:
            for batch_id, number in ready:
                self.place.write(number, BatchRows(self.ledger, batch_id))
            self.record_to_be = self.place.settle()
        except BaseException:
            self.place.undo()
            raise
        self.unmarked = [batch_id for batch_id, _ in ready]

    def mark(self) -> None:
        """Note in the ledger what was written and what was delivered."""
        delivered = self.deliverer.delivered() if self.deliverer is not None else []
        if not self.unmarked and not delivered:
            return
        count = self.published_count + len(self.unmarked)
        with self.ledger.transaction():
            if self.unmarked:
                batch.mark_published(self.ledger, self.unmarked, now_us())
                self.remember({**self.record_to_be, **self.beside, "batches": count})
            batch.mark_delivered(self.ledger, delivered, now_us())
        self.published_count = count
        self.unmarked = []
        if self.deliverer is not None:
            self.deliverer.forget(delivered)

    @property
    def beside(self) -> dict[str, Any]:
        """What stays true of the output when it is written anew: whether a file of failures of ours lies beside it."""
        return {name: True for name in ("failures",) if self.record.get(name)}

    def remember(self, record: dict[str, Any]) -> None:
        """Have what is known of the output on the run row; inside a transaction."""
        self.record = record
        run.set_output(self.ledger, self.run_id, record)

    def deliver(self) -> None:
        """Hand over what has been written, and nobody was called about; what is handed over is bounded, what waits stands in the ledger."""
        if self.deliverer is not None and self.failure is None:
            for batch_id, number, count in self.undelivered(self.deliverer):
                path = self.place.path_of(number) if self.place is not None else None
                self.deliverer.hand_over(
                    batch_id, BatchOutput(self.run_name, number, BatchResults(self.ledger.files.ledger, batch_id, count), path)
                )

    def undelivered(self, deliverer: Deliverer) -> list[tuple[int, int, int]]:
        """Return (batch_id, number, items) of the next batches to be handed over, lowest first."""
        outstanding = deliverer.outstanding
        if deliverer.is_held or len(outstanding) >= AT_ONCE:
            return []
        published = self.place is not None and self.place.streams
        found = batch.list_undelivered(self.ledger, self.run_id, AT_ONCE, published=published)
        below = self.barrier() if found else None
        return [one for one in found if one[0] not in outstanding and (below is None or one[1] < below)]

    def wait(self, timeout_s: float) -> None:
        """Wait until somebody who is called about a batch has returned, but no longer than that."""
        if self.deliverer is not None:
            self.deliverer.wait(timeout_s)

    def hurry(self, *, at_once: bool, grace_s: float) -> None:
        """Have nobody called any more but about the batch at hand; *at_once* ends that call, too, if it is a command."""
        if self.deliverer is not None:
            self.deliverer.drop()
            if at_once:
                self.deliverer.end(grace_s)

    def settle(self, *, drain_s: float, grace_s: float) -> None:
        """Give the call at hand some time to return, end it then, and note what was delivered."""
        self.hurry(at_once=False, grace_s=grace_s)
        if self.deliverer is not None:
            self.deliverer.wait_idle(drain_s)
            self.hurry(at_once=True, grace_s=grace_s)
        self.mark()

    def close(self) -> None:
        """Let go of files and threads; what is not marked is written and delivered another time."""
        if self.deliverer is not None:
            self.deliverer.close()
        if self.place is not None:
            self.place.close()

    def finish(self) -> None:
        """
        Write out everything that has finished; when the run is over the file that all batches share gets its name; then the summary file.

        Nobody is waited for who is called about batches.
        """
        while self.publish():
            continue
        if isinstance(self.place, BatchFiles):
            self.place_summary(self.place)
        elif self.place is not None and run.get(self.ledger, self.run_id).state in OVER:
            self.complete(self.place)

    def complete(self, place: OneFile) -> None:
        """Give the one file its end and its name, and put the failed items beside it."""
        if self.record.get("done") and not batch.list_unpublished(self.ledger, self.run_id, 1):
            return
        failed = self.write_failures(place.path)
        record = place.complete(lambda: results(self.ledger, self.run_id))
        with self.ledger.transaction():
            batch.mark_all_published(self.ledger, self.run_id, now_us())
            self.published_count = batch.count_published(self.ledger, self.run_id)
            self.remember({**record, "batches": self.published_count, "failures": failed})
        place.put_in_place()

    def write_failures(self, path: Path) -> bool:
        """Write the failed items beside the file, if there are any, and tell whether there are; those of an earlier end go."""
        target = sibling(path)
        if item.list_failed_ids(self.ledger, self.run_id, 0, 1):
            write_failures(target, self.failed_payloads())
            return True
        if self.record.get("failures"):
            target.unlink(missing_ok=True)
        return False

    def failed_payloads(self) -> Iterator[str]:
        """Yield the failed items themselves."""
        after = 0
        while page := item.list_failed_ids(self.ledger, self.run_id, after, PAGE):
            yield from export.payloads(self.ledger, page)
            after = page[-1]

    def place_summary(self, place: BatchFiles) -> None:
        """Write the summary beside the batches."""
        SummaryFile(place.directory).write(self.summary())

    def summary(self) -> dict[str, Any]:
        """Return how the run went, as ``summary.json`` has it."""
        finished = batch.list_finished(self.ledger, self.run_id)
        now = status(self.ledger, self.run_id)
        output_bytes = max(0, self.place.output_bytes()) if self.place is not None else 0
        return build(now, finished, retries=max(0, now.attempt_count - now.counts.ended), output_bytes=output_bytes)


class BatchRows:
    """The items of a batch, read anew each time that they are asked for."""

    def __init__(self, ledger: Connection, batch_id: int) -> None:
        self.ledger = ledger
        self.batch_id = batch_id

    def __iter__(self) -> Iterator[Result]:
        """Yield one after the other."""
        return results_of_batch(self.ledger, self.batch_id)
