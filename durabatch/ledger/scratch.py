"""
An anonymous database on disk for one operation, for things that may be as many as items: memory stays flat, and nothing is left behind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Self

import apsw

from durabatch.ledger.executor import BORDER_ERRORS, Bindings, Executor, apply_pragma, translate
from durabatch.ledger.paths import LedgerFiles
from durabatch.ledger.stretch import carray

__all__ = ["Scratch", "TakenItem"]

#: What messages call it; it has no name in any directory.
NAME = "temporary database"
#: KiB of page cache; what is more goes to the disk.
CACHE_KIB = 8_000
#: (item_id, state, attempts, charged attempts)
TakenItem = tuple[int, str, int, int]


class Scratch(Executor):
    """
    An empty database of one thread of one process, which is gone with its end. A context manager.

    Its tables are made by the methods that first put something into them.
    """

    def __init__(self) -> None:
        super().__init__(LedgerFiles(**dict.fromkeys((field.name for field in dataclasses.fields(LedgerFiles)), NAME)))
        with self.border():
            self.raw = apsw.Connection("")
            # Nobody else can see it, and it does not outlive the process: neither a journal nor a sync is of any use.
            apply_pragma(self.raw, "journal_mode", "off")
            apply_pragma(self.raw, "synchronous", 0)
            apply_pragma(self.raw, "cache_size", -CACHE_KIB)

    def __enter__(self) -> Self:
        """Return the database itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        self.close()

    def close(self) -> None:
        """Remove the database with all that is in it."""
        self.raw.close(force=True)

    def executemany(self, name: str, rows: Iterable[Bindings]) -> None:
        """Run the statement *name* once for each of *rows*, as one transaction. Errors as for ``execute``; what *rows* raises goes on as it is."""
        self.check_owner()
        try:
            self.raw.execute("BEGIN")
            self.raw.executemany(self.sql[name], rows)
            self.raw.execute("COMMIT")
        except BORDER_ERRORS as error:
            raise translate(error, self.files.ledger) from error

    # -- what an export takes ---------------------------------------------------------------------------------------------

    def make_taken(self) -> None:
        """Make room for what an export takes."""
        self.execute("scratch_make_taken")

    def take(self, rows: Iterable[TakenItem]) -> None:
        """Note items as they stand now, in any order."""
        self.executemany("scratch_take", rows)

    def count_taken(self) -> dict[str, int]:
        """Return how many of the items stood in each state."""
        return dict(self.rows("scratch_count_taken"))

    def list_taken(self, after: int, limit: int) -> list[TakenItem]:
        """Return up to *limit* of the items behind the id *after*, in input order."""
        return [(row[0], row[1], row[2], row[3]) for row in self.rows("scratch_list_taken", (after, limit))]

    # -- what a comparison with a source remembers -----------------------------------------------------------------------

    def make_comparison(self) -> None:
        """Make room for what a comparison remembers of rows."""
        for name in ("scratch_make_new_key", "scratch_make_met", "scratch_make_repeat"):
            self.execute(name)

    def fill_unmet(self, rows: Iterable[tuple[bytes, int]]) -> None:
        """Note the items that wait for a row with their content: (digest, rank) each. May be called once."""
        self.execute("scratch_make_unmet")
        self.executemany("scratch_add_unmet", rows)
        self.execute("scratch_index_unmet")

    def pop_unmet(self, digest: bytes) -> int | None:
        """Return the lowest rank of the items that wait for this content, which then waits no longer; None when none does."""
        found = self.value("scratch_pop_unmet", (digest,))
        return None if found is None else int(found)

    def add_new_keys(self, rows: Sequence[tuple[int, str, int]]) -> None:
        """Note keys that no item has: (hash, key, source position) each. Of equal keys the first one stays."""
        self.executemany("scratch_add_new_key", sorted(rows))

    def new_keys(self, hashes: Sequence[int]) -> dict[str, int]:
        """Return the keys with these hashes that were noted, with their positions."""
        return dict(self.rows("scratch_list_new_keys", (carray(hashes),))) if hashes else {}

    def add_met(self, rows: Sequence[tuple[int, int]]) -> None:
        """Note where the rows of items stand: (item_id, source position) each."""
        self.executemany("scratch_add_met", rows)

    def position_met(self, item_id: int) -> int | None:
        """Return the noted position of an item's row, or None. Reads all that was noted."""
        found = self.value("scratch_position_met", (item_id,))
        return None if found is None else int(found)

    def occurrence(self, key: str) -> int:
        """Return the last number given to a repeated key, 1 at first."""
        return int(self.value("scratch_get_repeat", (key,)) or 1)

    def set_occurrence(self, key: str, occurrence: int) -> None:
        """Note the last number given to a repeated key."""
        self.execute("scratch_set_repeat", (key, occurrence))

    def leave(self, item_ids: Iterable[int]) -> None:
        """Forget items that were taken."""
        self.executemany("scratch_leave", ((item_id,) for item_id in item_ids))

    # -- the rows of an edited plan --------------------------------------------------------------------------------------

    def make_plan(self) -> None:
        """Make room for the rows of a plan."""
        self.execute("scratch_make_plan")

    def add_planned(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Note all rows of a plan: (identity, line, action, key, status, position, digest) each. What *rows* raises goes on as it is."""
        self.executemany("scratch_add_planned", rows)
        self.execute("scratch_index_planned")

    def repeated_planned(self) -> tuple[int, str, int] | None:
        """Return (line, key, line of the first one) of the first row of a plan whose identity had come before, or None."""
        row = self.row("scratch_repeated_planned")
        return None if row is None else (row[0], row[1], row[2])

    def planned(self, identity: str) -> tuple[Any, ...] | None:
        """Return the row of the plan with this identity, as it was added but without that, or None."""
        return self.row("scratch_get_planned", (identity,))

    def use_planned(self, identity: str) -> None:
        """Note that there is something to which the row applies."""
        self.execute("scratch_use_planned", (identity,))

    def unused_planned(self, after_line: int, limit: int) -> list[tuple[Any, ...]]:
        """Return up to *limit* rows behind a line to which nothing applies, in their order."""
        return self.rows("scratch_list_unused_planned", (after_line, limit))
