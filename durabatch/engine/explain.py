"""
What happened to an item, what the ledger has of it, and why it would run next, or would not: in words.

The facts are gathered in one look at the ledger; the sentences follow from them alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from durabatch.clock import iso
from durabatch.engine import status as standing
from durabatch.engine import undo_words
from durabatch.engine.submit import locate
from durabatch.errors import NotFoundError
from durabatch.ledger import batch, item, result, result_history, rollback, run, span, suspect, undo
from durabatch.ledger.changing import HELD_AT_US, KEPT
from durabatch.ledger.executor import Executor
from durabatch.ledger.item import StoredItem
from durabatch.ledger.result_history import PastResult
from durabatch.ledger.rollback import EntryRow
from durabatch.limits import shown_duration
from durabatch.models import AttemptView, Explanation, RunStatus
from durabatch.sizes import size_text
from durabatch.states import AttemptOutcome, ItemState

__all__ = ["Facts", "Place", "explain", "happened", "next_steps", "recorded"]

#: What became of a try.
ENDS = {
    AttemptOutcome.SUCCEEDED: "succeeded",
    AttemptOutcome.FAILED: "failed",
    AttemptOutcome.TIMED_OUT: "ran out of time",
    AttemptOutcome.CRASHED: "ended its worker, or ended with it",
    AttemptOutcome.INTERRUPTED: "was interrupted: the run was stopped, or its coordinator died; it counts for nothing",
    AttemptOutcome.SNOOZED: "asked to be called later; it counts for nothing",
    AttemptOutcome.SKIPPED: "found that there is nothing to do",
    AttemptOutcome.CANCELLED: "was cancelled by a person",
}
#: Why a result is one of before.
CAUSES = {
    "redone": "somebody asked to run the item again",
    "changed": "the item's payload or the handler's version changed",
    "gone": "the item was taken out",
    "undone": "its effects were undone",
}


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where an item stands.

    Attributes:
        number: Among the items of its run, from 1.
        batch: Number of its batch, None before the first claim; *is_finished* says whether all of that has ended.
        before: Fresh items that may run before it; None when it does not stand in input order.
        deaths: Workers that died while it ran; *is_apart* says that it runs apart from other items for that.
    """

    number: int
    batch: int | None = None
    is_finished: bool = False
    before: int | None = None
    deaths: int = 0
    is_apart: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """
    What is known of an item and its run.

    Attributes:
        effects: Its undo entries, oldest first; *then* is what it becomes once those are undone that are to be, None when none is.
    """

    stored: StoredItem
    place: Place
    run: RunStatus
    max_attempts: int
    attempts: tuple[AttemptView, ...]
    value_bytes: int | None
    past: tuple[PastResult, ...]
    now_us: int
    effects: tuple[EntryRow, ...] = ()
    then: str | None = None

    @property
    def charged(self) -> int:
        """Tries that count against the limit."""
        return self.stored.attempt_count - self.stored.uncharged_count

    @property
    def is_lost(self) -> bool:
        """Whether the item was taken out because the input no longer has it."""
        return self.stored.state == ItemState.CANCELLED and self.stored.source_position == 0


def explain(ledger: Executor, run_id: int, key: str, *, now_us: int) -> Explanation:
    """
    Return the item with this key in words.

    Raises:
        NotFoundError: The run has no such item.
    """
    with ledger.snapshot():
        facts = gathered(ledger, run_id, key, now_us)
    return Explanation(
        facts.run.name, facts.stored.key, facts.place.number, facts.stored.state,
        tuple(happened(facts)), tuple(recorded(facts)), tuple(next_steps(facts)),
    )  # fmt: skip


def gathered(ledger: Executor, run_id: int, key: str, now_us: int) -> Facts:
    """Return the facts of an item; NotFoundError when the run has none with this key."""
    row = run.get(ledger, run_id)
    item_id = locate(ledger, run_id, key)
    stored = None if item_id is None else item.get(ledger, item_id)
    if stored is None:
        more = "" if row.intake_complete else ", as far as its input has been read"
        raise NotFoundError(f"no item {key!r} in run {row.name}{more}", "`durabatch items` lists the keys.")
    now = standing.status_of(ledger, row, standing.held_run(ledger))
    past = tuple(result_history.list_of_item(ledger, stored.item_id))
    tries = tuple(standing.attempts(ledger, stored.item_id))
    then = undo.get_undoing(ledger, stored.item_id)
    return Facts(
        stored, placed(ledger, stored, row.next_item_id), now, int(row.settings.get("max_attempts", 1)), tries,
        value_bytes(ledger, stored.item_id), past, now_us, tuple(rollback.list_of_item(ledger, stored.item_id)), then and then[0],
    )  # fmt: skip


def placed(ledger: Executor, stored: StoredItem, watermark: int) -> Place:
    """Return where an item stands."""
    number = sum(min(last, stored.item_id) - first + 1 for first, last in span.list_of_run(ledger, stored.run_id) if first <= stored.item_id)
    found = (None, False) if stored.batch_id is None else batch.standing(ledger, stored.batch_id)
    is_fresh = stored.state == ItemState.PENDING and stored.due_at_us is None
    before = max(0, stored.item_id - watermark) if is_fresh else None
    deaths, is_apart = suspect.deaths(ledger, stored.item_id), bool(suspect.grouped(ledger, [stored.item_id]))
    return Place(number, found[0], found[1], before, deaths, is_apart)


def value_bytes(ledger: Executor, item_id: int) -> int | None:
    """Return the size of the item's result, None when it has none."""
    found = result.get(ledger, item_id)
    if found is None:
        return None
    return found[3] if found[0] is None else len(found[0].encode())


def happened(facts: Facts) -> Iterator[str]:
    """Yield what happened to the item, in its order."""
    yield origin(facts)
    for one in facts.attempts:
        yield tried(one)
    if not facts.attempts and facts.stored.state != ItemState.RUNNING:
        yield "no try has ended yet"
    yield from undo_words.happened(facts.effects)
    if facts.is_lost:
        yield "the input no longer had it, and it was taken out"
    elif facts.stored.state == ItemState.CANCELLED:
        yield "it was cancelled"


def origin(facts: Facts) -> str:
    """Return where the item comes from."""
    position = facts.stored.source_position
    if position > 0:
        return f"it came from row {position:,} of the input"
    if position == KEPT:
        return "it came from the input, which no longer has it; it was kept"
    return "it came from the input" if position == 0 else "it was submitted by a program"


def tried(one: AttemptView) -> str:
    """Return one try in words."""
    said = f": {one.error}" if one.error else ""
    if one.cached:
        return f"try {one.number}, at {one.started_at}: the cache had the result of the same payload, nothing was run"
    end = ENDS[AttemptOutcome(one.outcome)]
    return f"try {one.number}, at {one.started_at} by worker {one.worker}, {end} after {lasted(one.duration_s)}{said}"


def lasted(seconds: float) -> str:
    """Return how long a try took: ``12.3 s``."""
    return "less than a millisecond" if seconds < 0.001 else f"{seconds:.3g} s"


def recorded(facts: Facts) -> Iterator[str]:
    """Yield what the ledger has of the item."""
    yield f"a payload of {size_text(len(facts.stored.payload.encode()))}"
    if facts.place.batch is not None:
        yield f"batch {facts.place.batch:,}, which is {'finished' if facts.place.is_finished else 'not finished'}"
    if facts.value_bytes is not None:
        yield f"a result of {size_text(facts.value_bytes)}, from try {facts.stored.attempt_count}"
    for one in facts.past:
        yield f"an earlier result of {size_text(one.value_bytes)}, from try {one.number}, replaced at {iso(one.moved_at_us)} because {CAUSES[one.cause]}"
    yield from undo_words.recorded(facts.effects)
    if facts.place.deaths:
        yield f"{facts.place.deaths} {'worker' if facts.place.deaths == 1 else 'workers'} died while it ran"


def next_steps(facts: Facts) -> Iterator[str]:
    """Yield why the item would run next, or would not."""
    state = facts.stored.state
    if facts.then is not None:
        yield undo_words.after_undoing(facts.effects, facts.then)
        yield from of_the_run(facts.run)
    elif state == ItemState.RUNNING:
        yield at_work(facts)
    elif state in (ItemState.PENDING, ItemState.SCHEDULED):
        yield waiting(facts)
        yield from of_the_run(facts.run)
    else:
        yield ended(facts)


def at_work(facts: Facts) -> str:
    """Return what comes next for an item that was handed out."""
    if facts.run.state in ("running", "paused"):
        return f"a worker has it: this is try {facts.stored.attempt_count + 1}"
    return "a worker had it when the coordinator ended; the next start of the run takes it back and runs it"


def waiting(facts: Facts) -> str:
    """Return what an item waits for."""
    due_at_us, place = facts.stored.due_at_us, facts.place
    if due_at_us is not None and due_at_us >= HELD_AT_US:
        return "it is held back: the run was started to begin behind it (--from-item, --from-batch); a start without that runs it"
    if place.is_apart:
        return "it is suspected to end its worker, and runs apart from other items, before them"
    if facts.stored.state == ItemState.SCHEDULED and due_at_us is not None:
        left_s = max(0, due_at_us - facts.now_us) // 1_000_000
        wait = f"until {iso(due_at_us)}, for {shown_duration(left_s)} from now," if left_s else "no longer, its time has come,"
        return f"it waits {wait} for try {facts.stored.attempt_count + 1} ({facts.charged} of {facts.max_attempts} tries used)"
    if due_at_us is not None:
        return "it stands outside the order of the input (its rank or priority, or it is to run again), and runs when its turn comes"
    return f"it waits for its turn, behind at most {place.before:,} items in the order of the input" if place.before else "it is next in the order of the input"


def of_the_run(now: RunStatus) -> Iterator[str]:
    """Yield what keeps the waiting items of a run from running."""
    why = f" ({now.reason})" if now.reason else ""
    if now.state == "paused":
        yield f"the run is paused{why}: `durabatch unpause` lets it go on"
    elif now.state == "halted":
        yield f"the run is halted{why}: `durabatch resume {now.name}` goes on with it"
    elif now.state != "running":
        yield f"nobody works on the run, which is {now.state}{why}: `durabatch resume {now.name}` goes on with it"
    elif now.binding_limit:
        yield f"the run is at work, and held back by its limit on {now.binding_limit}"
    if now.state == "running" and not now.binding_limit:
        yield "the run is at work"


def ended(facts: Facts) -> str:
    """Return what would have to happen before an item that ended runs again."""
    state, name, key = facts.stored.state, facts.run.name, facts.stored.key
    if facts.is_lost:
        return "it does not run, until its row is in the input again and --on-change merge or source takes that in"
    if state == ItemState.SUCCEEDED:
        again = f"it does not run again: it has succeeded. --from-item {key} runs it and all behind it again"
        return f"{again}, `durabatch rollback {name} --item {key}` undoes it" if facts.effects else again
    is_broken = state in (ItemState.FAILED, ItemState.QUARANTINED)
    chosen = "" if is_broken else " --undone" if state == ItemState.UNDONE else f" --state {state}"
    retry = f"`durabatch retry {name} --key {key}{chosen}` runs it again"
    if is_broken and (left := undo_words.remains(facts.effects)):
        effects = "an effect of it remains" if left == 1 else f"{left:,} effects of it remain"
        return f"it does not run again by itself: {effects}. {retry}, after what can be undone is undone"
    if state == ItemState.FAILED:
        used = "all its tries are used" if facts.charged >= facts.max_attempts else "its error is none that is tried again, or its time is over"
        return f"it does not run again by itself: {used} ({facts.charged} of {facts.max_attempts}). {retry}"
    if state == ItemState.QUARANTINED:
        return f"it does not run again by itself: too many workers died of it. {retry}"
    return f"it does not run again by itself: it is {state}. {retry}"
