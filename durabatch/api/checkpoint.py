"""
Checkpoints of a run, as Python users hold them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from durabatch.api.place import LedgerFile, closing
from durabatch.engine import checkpoints
from durabatch.engine.checkpoints import CheckpointFacts
from durabatch.models import Finding

__all__ = ["Checkpoint", "Checkpointed"]


@dataclass(frozen=True, kw_only=True)
class Checkpoint(CheckpointFacts):
    """A finished batch, and what the run held when it finished; the fields are as of the call that returned it."""

    ledger: LedgerFile = field(repr=False, compare=False)
    run_id: int = field(repr=False)

    def remaining(self) -> Iterator[str]:
        """
        Yield the keys of the items that it does not hold, in input order: not done when it was made, or run again since.

        Raises:
            NotFoundError: Its batch is open again.
        """
        with self.ledger.reader() as reader:
            found = checkpoints.point(reader, self.run_id, self.number)
        reader = self.ledger.reader()
        return closing(reader, checkpoints.remaining(reader, self.run_id, found.number, found.finished_at_us or 0))


class Checkpointed:
    """What a run has to do with checkpoints."""

    ledger: LedgerFile
    run_id: int

    def checkpoints(self) -> list[Checkpoint]:
        """Return the checkpoints by number: every batch that has finished is one."""
        with self.ledger.reader() as reader:
            return [self.made(facts) for facts in checkpoints.list_checkpoints(reader, self.run_id)]

    def checkpoint(self, wanted: str | int | None = None) -> Checkpoint:
        """
        Return the checkpoint of that number or name; None is the one that was made last.

        Raises:
            NotFoundError: There is none, or its batch is open again.
        """
        with self.ledger.reader() as reader, reader.snapshot():
            number = checkpoints.point(reader, self.run_id, wanted).number
            return self.made(next(one for one in checkpoints.list_checkpoints(reader, self.run_id) if one.number == number))

    def made(self, facts: CheckpointFacts) -> Checkpoint:
        """Return a checkpoint of this run with these facts."""
        return Checkpoint(**asdict(facts), ledger=self.ledger, run_id=self.run_id)

    def mark(self, label: str, checkpoint: str | int | None = None) -> Checkpoint:
        """
        Give the checkpoint of that number or name (None: the one that was made last) one more name, also while the run is on; return it.

        Raises:
            NotFoundError: There is no such checkpoint.
            UsageError: The name is none, or another checkpoint of the run has it.
        """
        from durabatch.runner.marking import marked

        held = self.ledger
        number = marked(held.path, self.run_id, label, checkpoint, durability=held.durability, allow_network_fs=held.allow_network_fs)
        return self.checkpoint(number)

    def validate(self, checkpoint: str | int | None = None) -> list[Finding]:
        """
        Return what differs from what was recorded, up to a checkpoint (None: in all of the run): results, counters, input files, undo entries.

        Raises:
            NotFoundError: There is no such checkpoint.
        """
        from durabatch.engine.validating import validate

        with self.ledger.reader() as reader:
            return validate(reader, self.run_id, checkpoint)
