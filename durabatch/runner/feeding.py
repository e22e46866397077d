"""
Intake beside the work: one page of the source a tick, while the ledger has little ahead or nothing else is to do.

The durable position is that of the source, plus the number of rows behind it that are taken already when a page was cut short by a bad or
repeated row. A source that cannot tell what it is (a pipe, an iterable, a directory) is read from its start and matched with the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from pydantic_core import from_json, to_json

from durabatch.engine.active import ActiveRun
from durabatch.engine.match import Matcher
from durabatch.engine.submit import DuplicateKeyError, InputRow, submit
from durabatch.errors import InputChangedError, InputError, NoItemsError
from durabatch.intake.ranking import Place, first_misplaced
from durabatch.intake.source import Page, Source
from durabatch.ledger.connection import Connection

__all__ = ["Feeder", "first_page"]

#: Rows and input bytes of a page. A page is one insert: bigger ones spread random keys over fewer passes through the index.
PAGE_ITEMS, PAGE_BYTES = 10_000, 8 << 20
#: Items ahead of the workers above which intake waits for idle moments.
ENOUGH_AHEAD = 20_000


def first_page(source: Source) -> tuple[Page, Iterator[Page]]:
    """
    Return the first page of a source and the pages after it.

    Raises:
        InputError: Something in the first page is wrong. Nothing may be written.
        NoItemsError: There are no items at all.
    """
    pages = source.pages(None, max_items=PAGE_ITEMS, max_bytes=PAGE_BYTES)
    page = next(pages)
    if page.problem is not None:
        raise page.problem
    refuse_repeated(source, page)
    if not page.rows and page.done:
        raise NoItemsError(f"no items in {source.description}", "Check the input.")
    return page, pages


def refuse_repeated(source: Source, page: Page) -> None:
    """Raise InputError when a key stands twice in *page*."""
    seen: dict[str, int] = {}
    for key, _, position in page.rows:
        if key is not None and seen.setdefault(key, position) != position:
            raise repeated(source, position, key, seen[key])


def repeated(source: Source, position: int, key: str, first_position: int) -> InputError:
    """Return what is wrong with an input in which a key stands twice."""
    return InputError(
        f"{source.description}:{position}", f"key {key!r} was already on line {first_position}", "Make the keys unique, or choose another field with --key."
    )


class Feeder:
    """
    Takes the pages of one source into one run.

    Args:
        place: Returns priority and rank of an item by its payload; None where all stand in the order of the input.

    Attributes:
        problem: Bad input that ended intake; the run goes on with what was taken in and then halts.
        is_done: No more pages will come.
    """

    def __init__(self, ledger: Connection, active: ActiveRun, source: Source, place: Callable[[str], Place] | None = None) -> None:
        self.place = place
        self.ledger = ledger
        self.active = active
        self.source = source
        self.pages: Iterator[Page] = iter(())
        self.problem: InputError | None = None
        self.is_done = True
        self.position: str | None = None
        self.skip = 0
        self.behind = 0
        self.matcher: Matcher | None = None
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
        self.pages, self.is_done = self.source.pages(self.position, max_items=PAGE_ITEMS, max_bytes=PAGE_BYTES), False

    def match(self) -> None:
        """
        Read the source from its start and compare it with the items that are there; go on behind them.

        Raises:
            InputChangedError: The source does not begin with the items of the ledger. Nothing was changed.
        """
        self.matcher = Matcher(self.ledger, self.active.run_id)
        self.go_on(None)
        known = self.active.total_count
        for page in self.pages:
            before = self.matcher.position
            difference = self.matcher.first_difference(page.rows)
            if difference is not None:
                raise changed(self.source, before + difference + 1)
            if self.matcher.position >= known:
                self.skip = known - before
                self.take_matched(page)
                return
            if page.done or page.problem is not None:
                raise page.problem or changed(self.source, self.matcher.position + 1)
            self.position = page.position
        raise changed(self.source, self.matcher.position + 1)

    def take_matched(self, page: Page) -> None:
        """Take the part of *page* that is new, the first one behind the known items."""
        if self.active.intake_complete and self.has_more(page):
            raise changed(self.source, self.active.total_count + 1)
        if self.active.intake_complete:
            self.is_done = True
            return
        with self.ledger.transaction():
            self.take(page)
            self.active.write_tally(self.ledger)

    def has_more(self, page: Page) -> bool:
        """Tell whether the source goes on behind the known items, which end in *page*."""
        while page.problem is None and len(page.rows) <= self.skip:
            if page.done:
                return False
            self.skip -= len(page.rows)
            page = next(self.pages)
        return True

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
            problem = repeated(self.source, rows[error.index][2], error.key, error.first_position)
            self.submit_part(rows[: error.index])
        self.problem = problem
        self.is_done = page.done or problem is not None

    def submit_part(self, rows: list[InputRow]) -> None:
        """Submit the head of a page; the recorded position stays where it was, with more rows behind it."""
        self.skip += len(rows)
        position = encode_position(self.position, self.behind + self.skip)
        submit(self.ledger, self.active, rows, position=position, complete=False, place=self.place)


def encode_position(at: Any, skip: int) -> str:
    """Return the position as stored on the run."""
    return to_json({"at": at, "skip": skip}).decode()


def changed(source: Source, ordinal: int) -> InputChangedError:
    """Return the error for a source that does not begin with the recorded items."""
    return InputChangedError(
        f"{source.description} has changed since the run was started: item {ordinal:,} differs",
        "Nothing was run. Use --fresh to start the next run with it, or `durabatch resume` to finish what the ledger holds.",
    )
