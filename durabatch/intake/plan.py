"""
The plan: what a source that is read again says beside what the ledger holds.

    read the source in pages  →  compare each with the ledger  →  new, changed, gone, and everything that stays

Items are known by key and content, wherever they stand now. Memory does not grow with their number. A plan says what there is; what is done
about it is the caller's choice (``--on-change``), carried out by :mod:`durabatch.runner.settling`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from durabatch.clock import monotonic_s
from durabatch.engine.compare import Compared, Comparison, Kind
from durabatch.errors import InputError
from durabatch.intake.plan_file import PlanWriter
from durabatch.intake.source import Page, Source
from durabatch.states import ItemState

__all__ = ["ACTIONS", "Continuation", "Plan", "Survey", "known_rows", "repeated"]

#: Keys shown of each kind.
SHOWN_KEYS = 5
#: Seconds between two sentences about how far the reading is.
NOTE_S = 5.0
#: What is proposed for each kind of row in a plan that a person may edit: what ``merge`` does.
ACTIONS = {"new": "add", "back": "add", "changed": "redo", "gone": "keep", "failed": "keep", "unfinished": "keep"}
#: States of items that have not ended, and of those that ended badly.
UNFINISHED = frozenset({ItemState.PENDING, ItemState.SCHEDULED, ItemState.RUNNING})
BROKEN = frozenset({ItemState.FAILED, ItemState.QUARANTINED})


@dataclass(slots=True)
class Plan:
    """
    What source and ledger say of each other.

    Attributes:
        counts: Items that are ``new`` (those that have come back included), ``changed``, ``gone`` and the ``same``; of the ledger's,
            ``failed``, ``unfinished`` and ``done``.
        keys: The first keys of each of them; for items that are known by their content their numbers.
        notes: What else differs: version, code, parameters, environment.
        is_new_version: The handler's declared version has changed, so that finished items count as changed.
        left_out: Lines that cannot be items.
        repeated: Rows whose key had come before.
    """

    run: str | None
    input: str
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("new", "changed", "gone", "same", "failed", "unfinished", "done"), 0)
    )
    keys: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    is_new_version: bool = False
    left_out: int = 0
    repeated: int = 0

    @property
    def is_changed(self) -> bool:
        """Whether the source is another one than the run was started with; a new run has none to differ from."""
        return self.run is not None and any(self.counts[kind] for kind in ("new", "changed", "gone"))

    @property
    def needs_choice(self) -> bool:
        """Whether somebody must say what to do."""
        return self.is_changed or self.is_new_version

    def note(self, kind: str, key: str | None) -> None:
        """Count one item of *kind*."""
        self.counts[kind] += 1
        if key is not None and kind != "same":
            shown = self.keys.setdefault(kind, [])
            if len(shown) < SHOWN_KEYS:
                shown.append(key)

    def sentence(self) -> str:
        """Return the differences in one line: ``5 changed (r0010, r0500, …), 5 new, 0 gone, 1,995 same``."""
        return ", ".join(self.part(kind) for kind in ("changed", "new", "gone", "same"))

    def part(self, kind: str) -> str:
        """Return one kind with its number and first keys."""
        keys = self.keys.get(kind, [])
        more = ", …" if self.counts[kind] > len(keys) else ""
        return f"{self.counts[kind]:,} {kind}" + (f" ({', '.join(keys)}{more})" if keys else "")

    def as_json(self) -> dict[str, Any]:
        """Return the plan with the keys of ``plan --json``."""
        return {
            "run": self.run, "input": self.input, "counts": self.counts, "keys": self.keys, "notes": self.notes,
            "is_new_version": self.is_new_version, "needs_choice": self.needs_choice, "left_out": self.left_out, "repeated": self.repeated,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Continuation:
    """
    The source begins with exactly the rows that were taken in before, and intake had not ended: what follows is simply its rest.

    Attributes:
        page: The page in which the known rows end, after *known* of its rows.
        pages: The pages behind it.
        before: The position at which it begins.
    """

    page: Page
    pages: Iterator[Page]
    before: str | None
    known: int


def known_rows(intake: dict[str, Any], total_count: int) -> int:
    """Return the rows of the source that were taken in; runs of before that was recorded took in one an item."""
    return int(intake.get("rows", total_count))


class Survey:
    """
    One comparison of a source, from its start, with the items of a run. Nothing is written.

    Args:
        comparison: Of the run.
        plan: Takes the numbers.
        note: Told every few seconds how far the reading is.
        writer: Takes a line for each item about which something may be decided; None for none.
    """

    def __init__(self, comparison: Comparison, plan: Plan, *, note: Callable[[str], None], writer: PlanWriter | None = None) -> None:
        self.comparison = comparison
        self.plan = plan
        self.note = note
        self.writer = writer
        self.rows_read = 0
        self.told_s = monotonic_s()
        #: Items that differ from their first row, where a later row with the same key may agree with them again.
        self.doubtful: set[int] = set()

    def read(self, source: Source, pages: Iterator[Page], *, known: int | None) -> Continuation | None:
        """
        Read *pages* to their end, or to where only the rest of an unfinished intake follows.

        Args:
            known: Rows that were taken in before intake was cut off; None when it had ended.

        Raises:
            InputError: Something in the source is wrong.
        """
        is_same, before = known is not None, None
        for page in pages:
            compared = self.comparison.page(page.rows)
            if known is not None and is_same:
                left = known - self.rows_read
                is_same = all(one.kind in (Kind.SAME, Kind.REPEATED) for one in compared[:left])
                if is_same and left <= len(compared) and (left < len(compared) or page.done or page.problem):
                    return Continuation(page, pages, before, left)
            self.take(source, page, compared)
            before = page.position
        self.finish()
        return None

    def take(self, source: Source, page: Page, compared: list[Compared]) -> None:
        """Note what became of one page."""
        self.rows_read += len(page.rows)
        self.plan.left_out += len(page.left_out)
        for row, one in zip(page.rows, compared, strict=True):
            self.look(source, row, one)
        if page.problem is not None:
            raise page.problem
        if monotonic_s() - self.told_s > NOTE_S:
            self.told_s = monotonic_s()
            self.note(f"comparing the input with the ledger: {self.rows_read:,} rows so far")

    def look(self, source: Source, row: tuple[str | None, str, int], one: Compared) -> None:
        """Note what became of one row."""
        kind = self.settled(source, row, one)
        if kind is None:
            return
        name = one.key or f"item {row[2]}"
        self.plan.note("new" if kind is Kind.BACK else str(kind), name)
        if kind is not Kind.SAME:
            self.write(str(kind), one, row)
        elif one.state in BROKEN:
            self.write("failed", one, row)
        elif one.state in UNFINISHED:
            self.write("unfinished", one, row)

    def settled(self, source: Source, row: tuple[str | None, str, int], one: Compared) -> Kind | None:
        """Return the kind of a row, None for one that counts for nothing."""
        if one.kind is not Kind.REPEATED:
            if one.kind is Kind.CHANGED and self.comparison.dedupe == "last" and one.item_id is not None:
                self.doubtful.add(one.item_id)
            return one.kind
        if self.comparison.dedupe == "error":
            raise repeated(source, row[2], str(row[0]), one.first_position or 0)
        self.plan.repeated += 1
        if self.comparison.dedupe == "last" and one.item_id is not None and one.is_equal == (one.item_id in self.doubtful):
            step = 1 if one.is_equal else -1
            (self.doubtful.discard if one.is_equal else self.doubtful.add)(one.item_id)
            self.plan.counts["same"] += step
            self.plan.counts["changed"] -= step
        return None

    def write(self, status: str, one: Compared, row: tuple[str | None, str, int]) -> None:
        """Write a line of the plan."""
        if self.writer is not None:
            self.writer.write(ACTIONS[status], one.key or "", status, row[2], one.digest)

    def finish(self) -> None:
        """Note the items that no row has met."""
        for page in self.comparison.gone():
            for _, key, _state in page:
                self.plan.note("gone", key)
                if self.writer is not None:
                    self.writer.write(ACTIONS["gone"], key, "gone", 0, b"")


def repeated(source: Source, position: int, key: str, first_position: int) -> InputError:
    """Return what is wrong with an input in which a key stands twice."""
    return InputError(
        f"{source.description}:{position}",
        f"key {key!r} was already on line {first_position}",
        "Make the keys unique, choose another field with --key, or say --dedupe first, last or keep.",
    )
