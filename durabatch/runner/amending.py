"""
The items of a run are brought in line with another input: what is new is added, what has changed runs again, what is gone is cancelled.

    each page: compare  →  decide  →  add, amend, redo, cancel, in one write transaction; then the gone; then the input is the recorded one

Until the last step no input counts as the recorded one, and the run bears a mark, so that a crash in between leads back to the comparison: how
many rows were read says nothing then about where the input goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from durabatch.clock import now_us
from durabatch.engine.active import ActiveRun, reload
from durabatch.engine.compare import KEPT, Compared, Comparison, Kind
from durabatch.engine.notice import notice
from durabatch.engine.redo import amend, redo, reposition
from durabatch.engine.start import reopen_over
from durabatch.engine.submit import InputRow, note_read, submit
from durabatch.engine.withdraw import withdraw
from durabatch.errors import UsageError
from durabatch.intake.plan import repeated
from durabatch.intake.plan_file import PlanFile, read_plan
from durabatch.intake.source import Page
from durabatch.ledger import item, run
from durabatch.ledger.connection import Connection
from durabatch.ledger.run import RunRow
from durabatch.runner.feeding import Feeder, encode_position, note_left_out

__all__ = ["MODES", "apply", "is_half_done", "mode_of", "note_in_line"]

#: What the intake of a run has while its items are being brought in line: the way in which that is done.
MARK = "amending"

#: Items put right in one transaction.
PAGE = 5000
#: Rows of a plan that do not fit, of which a message tells.
SHOWN_MISFITS = 5

#: From a row and what became of it to what is done: add, redo, keep or cancel. For the gone the row is None.
Mode = Callable[[InputRow | None, Compared], str]


def merge(_row: InputRow | None, one: Compared) -> str:
    """Add what is new, redo what has changed, keep what is gone."""
    return {Kind.NEW: "add", Kind.BACK: "add", Kind.CHANGED: "redo"}.get(one.kind, "keep")


def source_alone(row: InputRow | None, one: Compared) -> str:
    """Do the same, and cancel what is gone."""
    return "cancel" if one.kind is Kind.GONE else merge(row, one)


MODES: dict[str, Mode] = {"merge": merge, "source": source_alone}


def is_half_done(row: RunRow) -> bool:
    """Tell whether a crash has cut the items of the run off while they were brought in line."""
    return MARK in row.intake


def way(choice: str) -> str:
    """Return what a run that was cut off is known by: the word, or a digest of the plan as it is written."""
    if choice in MODES:
        return choice
    with open(choice, "rb") as plan:
        return hashlib.file_digest(plan, "blake2b").hexdigest()


def mode_of(ledger: Connection, choice: str, feeder: Feeder, note: Callable[[str], None]) -> Mode:
    """
    Return what is to be done, by a word or by an edited plan; UsageError when a row of that no longer fits.

    A plan that was carried out in part before a crash need not fit: what was done of it stays as it is when it is carried out again.
    """
    if choice in MODES:
        return MODES[choice]
    if not feeder.source.repeatable:
        raise UsageError("--on-change: a plan needs an input that can be read twice", "Write it to a file, or use merge or source.")
    plan = read_plan(choice)
    if feeder.active.intake.get(MARK) != way(choice):
        check_fit(ledger, feeder, plan, note)

    def planned(row: InputRow | None, one: Compared) -> str:
        found = plan.find(one.key or "", 0 if row is None else row[2], one.digest)
        return "keep" if found is None else found.action

    return planned


def check_fit(ledger: Connection, feeder: Feeder, plan: PlanFile, note: Callable[[str], None]) -> None:
    """Read the source once to see whether every row of the plan still fits; UsageError when one does not. Nothing is changed."""
    misfits: list[str] = []
    with closing(Comparison(ledger, feeder.active.run_id, dedupe=feeder.opened.dedupe)) as comparison:
        for page in feeder.opened.pages():
            for row, one in zip(page.rows, comparison.page(page.rows), strict=True):
                plan.check(one.key or "", str(one.kind), row[2], one.digest, misfits)
        for gone in comparison.gone():
            for _, key, _ in gone:
                plan.check(key, "gone", 0, b"", misfits)
    misfits += [f"line {one.line}: {one.action} {one.key!r}: neither the input nor the ledger has it" for one in plan.unused()]
    if misfits:
        for sentence in misfits[SHOWN_MISFITS:]:
            note(f"plan: {sentence}")
        raise UsageError(
            f"{plan.path}: {len(misfits):,} rows no longer fit: {'; '.join(misfits[:SHOWN_MISFITS])}",
            "Nothing was changed. Make the plan anew.",
        )


def apply(ledger: Connection, feeder: Feeder, choice: str, note: Callable[[str], None], *, undo: bool = False) -> None:
    """
    Bring the items of the run in line with its source, in pages, as *choice* says: a word, or the path of a plan.

    With *undo* what items did is undone before they run again, or are out. On return the source is taken in to its end. After an error or a crash the pages before it stay, and the next start compares again.

    Raises:
        UsageError: The plan does not fit. Nothing was changed.
    """
    active, mode = feeder.active, mode_of(ledger, choice, feeder, note)
    with closing(Comparison(ledger, active.run_id, dedupe=feeder.opened.dedupe)) as comparison:
        amending = Amending(ledger, feeder, comparison, mode, undo)
        with ledger.transaction():
            notice(ledger, active)
            reopen_over(ledger, active.run_id)
            run.forget_fingerprint(ledger, active.run_id)
            active.intake = {**uncounted(active.intake), MARK: way(choice), "ended": False}
            run.set_intake(ledger, active.run_id, position=None, complete=False, intake=active.intake)
        last: Page | None = None
        for page in feeder.opened.pages():
            amending.take(page)
            last = page
        amending.finish(last)
    feeder.is_done, feeder.problem = True, None
    reload(ledger, active)
    note(f"the items are in line with the input: {amending.summary()}")


def uncounted(intake: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of an intake apart from what is counted anew when the source is read from its start."""
    return {name: value for name, value in intake.items() if name not in {"rows", "digest", "duplicates", "bad", MARK}}


def note_in_line(ledger: Connection, active: ActiveRun) -> None:
    """Note that all of the source was read, and that the items of the run are in line with it; how it was counted before says nothing of it."""
    told = {name: active.intake[name] for name in active.intake.keys() & {"bad", "duplicates"}}
    with ledger.transaction():
        notice(ledger, active)
        active.intake = {**uncounted(active.intake), **told, "ended": True}
        run.set_intake(ledger, active.run_id, position=None, complete=not active.is_open, intake=active.intake)
    reload(ledger, active)


def moved_rows(rows: list[InputRow], compared: list[Compared]) -> list[tuple[int, int]]:
    """Return item and position of rows that stand elsewhere than they did, or were not of the input before."""
    pairs = ((one, row[2]) for row, one in zip(rows, compared, strict=True) if one.kind is Kind.SAME and one.position != row[2])
    return [(one.item_id, position) for one, position in pairs if one.item_id is not None]


@dataclass(slots=True)
class Amending:
    """One pass over a source in which the items of a run are brought in line with it."""

    ledger: Connection
    feeder: Feeder
    comparison: Comparison
    mode: Mode
    undo: bool = False
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("add", "redo", "cancel"), 0))
    #: Changes that wait for the end, since a later row with the same key may replace them.
    late: dict[int, tuple[int, str, int]] = field(default_factory=dict)
    intake: dict[str, Any] = field(default_factory=dict)

    def take(self, page: Page) -> None:
        """Bring the items of one page in line; one write transaction."""
        if page.problem is not None:
            raise page.problem
        active = self.feeder.active
        with self.ledger.transaction():
            notice(self.ledger, active)
            note_left_out(self.ledger, active, page.left_out)
            compared = self.comparison.page(page.rows)
            note_read(active.intake, [one.digest for one in compared])
            self.intake = dict(active.intake)
            adds: dict[str | int, InputRow] = {}
            chosen: dict[str, list[Any]] = {"amend": [], "redo": [], "cancel": []}
            reposition(self.ledger, moved_rows(page.rows, compared))
            for row, one in zip(page.rows, compared, strict=True):
                self.sort(row, one, adds, chosen)
            self.add(list(adds.values()))
            self.carry_out(chosen, lost=False)
            active.intake = self.intake
            active.write_tally(self.ledger)

    def sort(self, row: InputRow, one: Compared, adds: dict[str | int, InputRow], chosen: dict[str, list[Any]]) -> None:
        """Note what is to be done about one row."""
        if one.kind is Kind.REPEATED:
            self.sort_repeated(row, one, adds)
            return
        action = self.mode(row, one)
        if one.kind is Kind.NEW:
            if action == "add":
                adds[row[2] if one.key is None else one.key] = (one.key, row[1], row[2])
        elif action == "cancel":
            chosen["cancel"].append(one.item_id)
        elif one.kind is Kind.SAME and action == "redo":
            chosen["redo"].append(one.item_id)
        elif one.kind is not Kind.SAME and action in {"add", "redo"} and one.item_id is not None:
            change = (one.item_id, row[1], row[2])
            if self.feeder.opened.dedupe == "last":
                self.late[one.item_id] = change
            else:
                chosen["amend"].append(change)

    def sort_repeated(self, row: InputRow, one: Compared, adds: dict[str | int, InputRow]) -> None:
        """Note what is to be done about a row whose key had come before."""
        if self.feeder.opened.dedupe == "error":
            raise repeated(self.feeder.source, row[2], str(row[0]), one.first_position or 0)
        self.intake["duplicates"] = self.intake.get("duplicates", 0) + 1
        if self.feeder.opened.dedupe != "last":
            return
        if row[0] in adds:
            adds[row[0]] = row
        elif one.item_id is not None and one.is_equal:
            self.late.pop(one.item_id, None)
        elif one.item_id is not None:
            self.late[one.item_id] = (one.item_id, row[1], row[2])

    def add(self, rows: list[InputRow]) -> None:
        """Add new items."""
        first = item.last_id(self.ledger) + 1
        submit(self.ledger, self.feeder.active, rows, position=None, complete=False, place=self.feeder.place)
        self.comparison.took(range(first, first + len(rows)), rows)
        self.counts["add"] += len(rows)

    def carry_out(self, chosen: dict[str, list[Any]], *, lost: bool) -> None:
        """Redo and cancel items; *lost* says that the input does not have them."""
        ledger, run_id, now = self.ledger, self.feeder.active.run_id, now_us()
        amend(ledger, run_id, chosen["amend"], cause="changed", now_us=now, place=self.feeder.place, undo=self.undo)
        redo(ledger, run_id, chosen["redo"], cause="redone", now_us=now, undo=self.undo)
        withdraw(ledger, run_id, chosen["cancel"], now_us=now, lost=lost, undo=self.undo)
        self.counts["redo"] += len(chosen["amend"]) + len(chosen["redo"])
        self.counts["cancel"] += len(chosen["cancel"])

    def finish(self, last: Page | None) -> None:
        """Settle what is gone, and note that the source was taken in to its end."""
        ledger, active = self.ledger, self.feeder.active
        changes = list(self.late.values())
        for start in range(0, len(changes), PAGE):
            with ledger.transaction():
                self.carry_out({"amend": changes[start : start + PAGE], "redo": [], "cancel": []}, lost=False)
        for page in self.comparison.gone(kept=self.mode is source_alone):
            with ledger.transaction():
                self.settle_gone(page)
        with ledger.transaction():
            active.intake = {name: value for name, value in self.intake.items() if name != MARK} | self.remembered()
            position = encode_position(None if last is None else last.position, 0)
            run.set_intake(ledger, active.run_id, position=position, complete=not active.is_open, intake=active.intake)

    def settle_gone(self, page: list[tuple[int, str, str]]) -> None:
        """Settle what is gone; what is kept is not asked about again."""
        chosen: dict[str, list[Any]] = {"amend": [], "redo": [], "cancel": [], "keep": []}
        for item_id, key, state in page:
            action = self.mode(None, Compared.gone(item_id, key, state))
            chosen[action if action in chosen else "keep"].append(item_id)
        self.carry_out(chosen, lost=True)
        kept = [*chosen["keep"], *chosen["redo"]]
        reposition(self.ledger, [(item_id, KEPT) for item_id in kept])
        self.intake["kept"] = self.intake.get("kept", 0) + len(kept)

    def remembered(self) -> dict[str, Any]:
        """Return what the next start must know of this one: what was kept though it is gone, and whether a plan has left things as they are."""
        kept = 0 if self.mode is source_alone else self.intake.get("kept", 0)
        return {"ended": True, "kept": kept, "by_plan": self.mode not in MODES.values()}

    def summary(self) -> str:
        """Return in words what was done."""
        return f"{self.counts['add']:,} added, {self.counts['redo']:,} run again, {self.counts['cancel']:,} cancelled"
