"""
Finished batches leave: to their files, and to the caller's callback, after the commit that finished them.

A batch is marked as published with the next tick. A crash in between writes it again, with the same content.

Batches leave as they finish, or, with ``keep_order``, in the order of their numbers: one that is finished waits for all lower ones. When the
run stops before them, those that wait stay in the ledger until the run goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from durabatch.clock import now_us
from durabatch.engine.results import results_of_batch
from durabatch.engine.status import status
from durabatch.ledger import batch
from durabatch.ledger.connection import Connection
from durabatch.output.batch_files import BatchFiles
from durabatch.output.summary_file import SummaryFile
from durabatch.runner.request import BatchOutput

__all__ = ["Publisher"]

#: Batches written between two ticks.
AT_ONCE = 50


class Publisher:
    """
    Writes out the batches of one run.

    Args:
        directory: Where the files go; None writes none.
        on_batch: Called for each batch after its file is on disk; None calls nobody.
        keep_order: No batch leaves before all lower numbers have.
    """

    def __init__(
        self,
        ledger: Connection,
        run_id: int,
        run_name: str,
        directory: str | None,
        on_batch: Callable[[BatchOutput], None] | None,
        *,
        keep_order: bool = False,
    ) -> None:
        self.ledger = ledger
        self.run_id = run_id
        self.run_name = run_name
        self.directory = directory
        self.files = BatchFiles(directory, run_name) if directory is not None else None
        self.on_batch = on_batch
        self.keep_order = keep_order
        self.written: list[int] = []

    @property
    def is_wanted(self) -> bool:
        """Whether anybody wants batches."""
        return self.files is not None or self.on_batch is not None

    def mark(self) -> None:
        """Note in the ledger what was written, inside the tick's transaction."""
        if self.written:
            batch.mark_published(self.ledger, self.written, now_us())
            self.written.clear()

    def publish(self) -> bool:
        """Write out batches that have finished; tell whether there may be more of them."""
        if not self.is_wanted:
            return False
        if self.written:
            with self.ledger.transaction():
                self.mark()
        ready = self.ready()
        for batch_id, number in ready:
            self.publish_one(batch_id, number)
        return len(ready) == AT_ONCE

    def ready(self) -> list[tuple[int, int]]:
        """Return (batch_id, number) of the next batches that may leave, lowest first."""
        finished = batch.list_unpublished(self.ledger, self.run_id, AT_ONCE)
        if not self.keep_order or not finished:
            return finished
        barrier = batch.first_open(self.ledger, self.run_id)
        return [one for one in finished if barrier is None or one[1] < barrier]

    def publish_one(self, batch_id: int, number: int) -> None:
        """Write one batch and tell the caller."""
        results = results_of_batch(self.ledger, batch_id)
        path: Path | None = self.files.write(number, results) if self.files is not None else None
        self.written.append(batch_id)
        if self.on_batch is not None:
            self.on_batch(BatchOutput(self.run_name, number, tuple(results), path))

    def finish(self) -> None:
        """Write out everything that has finished, and the summary file."""
        while self.publish():
            continue
        with self.ledger.transaction():
            self.mark()
        if self.directory is not None:
            finished = batch.list_finished(self.ledger, self.run_id)
            now = status(self.ledger, self.run_id)
            SummaryFile(self.directory).write(now, finished, retries=max(0, now.attempt_count - now.counts.ended))
