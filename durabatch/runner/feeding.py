"""
Intake beside the work: one page of the source a tick, while the ledger has little ahead or nothing else is to do.

The durable position is that of the source, plus the number of rows behind it that are taken already when a page was cut short by a bad or
repeated row. How a source is settled with the items of a run that exists is another module's: :mod:`durabatch.runner.settling`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

from pydantic_core import from_json, to_json

from durabatch.clock import now_us
from durabatch.codec import payload_digests
from durabatch.engine.active import ActiveRun
from durabatch.engine.dedupe import without_repeats
from durabatch.engine.notice import notice
from durabatch.engine.redo import amend
from durabatch.engine.submit import DuplicateKeyError, InputRow, note_read, submit
from durabatch.errors import InputError, NoItemsError
from durabatch.intake.opened import OpenedInput
from durabatch.intake.plan import repeated
from durabatch.intake.ranking import Place, first_misplaced, place_of
from durabatch.intake.source import Page, Source
from durabatch.ledger import event
from durabatch.ledger.connection import Connection
from durabatch.settings import RunSettings

__all__ = ["Feeder", "encode_position", "first_page", "note_left_out"]

#: Items ahead of the workers above which intake waits for idle moments.
ENOUGH_AHEAD = 20_000
#: Lines in a row at the start of an input that may be left out before it is taken for something else.
MOST_BAD_LINES = 100_000
#: Lines left out of which an event tells, for each run.
TOLD_LINES = 100


def first_page(opened: OpenedInput) -> tuple[Page, Iterator[Page]]:
    """
    Return the first page of a source that holds anything, and the pages after it.

    Raises:
        InputError: Something in the page is wrong. Nothing may be written.
        NoItemsError: There are no items at all.
    """
    source, pages = opened.source, opened.pages()
    left_out: list[InputError] = []
    page = next(pages)
    while not page.rows and not page.done and page.problem is None:
        left_out += page.left_out
        if len(left_out) > MOST_BAD_LINES:
            raise InputError(source.description, f"its first {len(left_out):,} lines cannot be items: {left_out[0].what}", "Is --format right?")
        page = next(pages)
    page.left_out = [*left_out, *page.left_out]
    if page.problem is not None:
        raise page.problem
    if opened.dedupe == "error":
        refuse_repeated(source, page)
    if not page.rows and page.done:
        lines = f": {len(page.left_out):,} lines cannot be items, the first is {page.left_out[0].what}" if page.left_out else ""
        raise NoItemsError(f"no items in {source.description}{lines}", "Check the input.")
    return page, pages


def refuse_repeated(source: Source, page: Page) -> None:
    """Raise InputError when a key stands twice in *page*."""
    seen: dict[str, int] = {}
    for key, _, position in page.rows:
        if key is not None and seen.setdefault(key, position) != position:
            raise repeated(source, position, key, seen[key])


def note_left_out(ledger: Connection, active: ActiveRun, left_out: Sequence[InputError]) -> None:
    """Count lines that cannot be items, and have an event for each of the first ones, inside the transaction of their page."""
    before = active.intake.get("bad", 0)
    active.intake["bad"] = before + len(left_out)
    for error in left_out[: max(0, TOLD_LINES - before)]:
        event.record(ledger, "line left out", run_id=active.run_id, now_us=now_us(), why=error.what)


class Feeder:
    """
    Takes the pages of one source into one run.

    Args:
        settings: What gives items places of their own.

    Attributes:
        problem: Bad input that ended intake; the run goes on with what was taken in and then halts.
        is_done: No more pages will come.
    """

    def __init__(self, ledger: Connection, active: ActiveRun, opened: OpenedInput, settings: RunSettings) -> None:
        self.place: Callable[[str], Place] | None = place_of(settings)
        self.ledger = ledger
        self.active = active
        self.opened = opened
        self.source = opened.source
        self.pages: Iterator[Page] = iter(())
        self.problem: InputError | None = None
        self.is_done = True
        self.position: str | None = None
        self.skip = 0
        self.behind = 0
        self.since_mark: list[Page] = []

    def begin(self, page: Page, pages: Iterator[Page]) -> None:
        """Start with the first page of a new run; nothing is written when it holds a repeated key."""
        self.pages, self.is_done = pages, False
        self.take(page)
        if self.problem is not None:
            raise self.problem

    def go_on(self, position: str | None) -> None:
        """Go on from the recorded position."""
        stored: dict[str, Any] = from_json(position) if position else {"at": None, "skip": 0}
        self.position, self.skip = stored["at"], int(stored["skip"])
        self.pages, self.is_done = self.opened.pages(self.position), False

    def go_on_within(self, page: Page, pages: Iterator[Page], *, before: str | None, known: int) -> None:
        """Go on behind the first *known* rows of *page*, which begins at the position *before*; *pages* follow it."""
        self.position, self.skip, self.behind = before, known, 0
        self.pages, self.is_done = pages, False
        with self.ledger.transaction():
            notice(self.ledger, self.active)
            self.take(page)
            self.active.write_tally(self.ledger)

    def wants_page(self, *, idle: bool) -> bool:
        """Tell whether this tick should take a page in: the workers run short, or there is nothing better to do."""
        if self.is_done or not self.source.ready():
            return False
        return idle or self.active.pending_count < ENOUGH_AHEAD

    def mark(self) -> tuple[InputError | None, bool, str | None, int, int]:
        """Return where it stands; the pages that are read from here on are kept in case that the transaction fails."""
        self.since_mark = []
        return self.problem, self.is_done, self.position, self.skip, self.behind

    def rewind(self, marked: tuple[InputError | None, bool, str | None, int, int]) -> None:
        """Stand where it stood at the mark, with the pages since then before it again."""
        self.problem, self.is_done, self.position, self.skip, self.behind = marked
        self.pages = chain(self.since_mark, self.pages)

    def feed(self) -> None:
        """Take one page in, inside the tick's transaction."""
        page = next(self.pages, None)
        self.since_mark += [page] if page is not None else []
        if page is None:
            self.is_done = True
        else:
            self.take(page)

    def take(self, page: Page) -> None:
        """Submit the rows of *page* that are new, and stop behind the last good one when something is wrong."""
        if page.left_out:
            note_left_out(self.ledger, self.active, page.left_out)
        if self.skip > len(page.rows):
            # The position that the known rows are counted from stays until they are all behind us.
            self.skip -= len(page.rows)
            self.behind += len(page.rows)
            self.problem, self.is_done = page.problem, page.done or page.problem is not None
            return
        rows = page.rows[self.skip :] if self.skip else page.rows
        problem = page.problem
        bad = first_misplaced(self.place, rows)
        if bad is not None:
            index, problem = bad
            self.problem, self.is_done = problem.at(f"{self.source.description}:{rows[index][2]}"), True
            self.submit_part(rows[:index])
            return
        try:
            position = encode_position(page.position, 0)
            submit(self.ledger, self.active, rows, position=position, complete=page.done and problem is None, place=self.place)
            self.position, self.skip, self.behind = page.position, 0, 0
        except DuplicateKeyError as error:
            problem = self.stop_at(rows, error) if self.dedupe == "error" else self.settle_repeats(page, rows)
        self.problem = problem
        self.is_done = page.done or problem is not None

    @property
    def dedupe(self) -> str:
        """What becomes of a key that comes again; in an open run somebody may have submitted the item before."""
        return "first" if self.active.is_open and self.opened.dedupe == "error" else self.opened.dedupe

    def stop_at(self, rows: list[InputRow], error: DuplicateKeyError) -> InputError:
        """Submit the rows before the one whose key stands in the run already; return what is wrong with it."""
        self.submit_part(rows[: error.index])
        return repeated(self.source, rows[error.index][2], error.key, error.first_position)

    def settle_repeats(self, page: Page, rows: list[InputRow]) -> InputError | None:
        """Submit *rows*, some of whose keys come again, as ``--dedupe`` says; return the page's own problem."""
        with self.ledger.transaction():
            distinct = without_repeats(self.ledger, self.active.run_id, rows, self.dedupe)
            self.active.intake["duplicates"] = self.active.intake.get("duplicates", 0) + len(distinct.dropped)
            note_read(self.active.intake, payload_digests(distinct.dropped))
            position, complete = encode_position(page.position, 0), page.done and page.problem is None
            submit(self.ledger, self.active, distinct.rows, position=position, complete=complete, place=self.place)
            # Nothing is handed out before all of the input is there, so these wait.
            amend(self.ledger, self.active.run_id, distinct.replaced, cause="changed", now_us=now_us(), place=self.place)
        self.position, self.skip, self.behind = page.position, 0, 0
        return page.problem

    def submit_part(self, rows: list[InputRow]) -> None:
        """Submit the head of a page; the recorded position stays where it was, with more rows behind it."""
        self.skip += len(rows)
        position = encode_position(self.position, self.behind + self.skip)
        submit(self.ledger, self.active, rows, position=position, complete=False, place=self.place)


def encode_position(at: Any, skip: int) -> str:
    """Return the position as stored on the run."""
    return to_json({"at": at, "skip": skip}).decode()
