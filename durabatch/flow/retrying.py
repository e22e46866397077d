"""
What becomes of an item after an attempt that did not succeed.

    failed, timed_out   another try after a wait, while there are tries left; else the item is failed
    crashed             another try at once; deaths have a budget of their own, and an item that exhausts it alone is quarantined
    interrupted         another try at once, nothing charged
    snoozed             another try when the handler said, nothing charged, a hundred times at most
    skipped, cancelled  the end

The wait is drawn at random between 0 and a bound that grows with every try ("full jitter": Brooker, Exponential Backoff And Jitter, AWS
Architecture Blog, 2015), so that items that failed together do not come back together. Due times are instants of the wall clock: they are
kept in the ledger, and a resume goes by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from durabatch.limits import shown_duration
from durabatch.options import MAX_DURATION_S
from durabatch.settings import RunSettings
from durabatch.states import AttemptOutcome, ItemState

__all__ = ["MAX_SNOOZES", "AttemptEnd", "Decision", "ItemHistory", "RetryPolicy", "after_attempt"]

#: An item that asks for later more often than this never means to run.
MAX_SNOOZES = 100
#: Names by which ``retry_on`` and ``give_up_on`` know a timeout, whoever noticed it.
TIMEOUT_KINDS = ("ItemTimeoutError", "TimeoutError")
#: Outcomes after which the item has ended.
ENDS = frozenset({AttemptOutcome.SUCCEEDED, AttemptOutcome.SKIPPED, AttemptOutcome.CANCELLED})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and after which failures an item is tried again; the fields are those of :class:`durabatch.settings.RunSettings`."""

    max_attempts: int = 1
    backoff_s: float = 1.0
    backoff_factor: float = 2.0
    backoff_cap_s: float = 300.0
    retry_on: tuple[str, ...] = ()
    give_up_on: tuple[str, ...] = ()
    retry_exit: tuple[int, ...] = ()
    max_deaths: int = 3
    item_deadline_s: float | None = None

    @classmethod
    def of(cls, settings: RunSettings) -> RetryPolicy:
        """Return the policy of a run."""
        return cls(**{name: getattr(settings, name) for name in cls.__slots__})


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """
    How an attempt ended.

    Attributes:
        kinds: Names of the exception's class and of its bases, short (``ConnectionError``) and qualified (``requests.exceptions.Timeout``).
        exit_code: Of a command.
        after_s: The wait that the handler asked for; None when it left that to the policy.
        retryable: False when the handler said that no further try makes sense.
        alone: For a crash: no other item was in the cells of the worker that died.
    """

    outcome: AttemptOutcome
    kinds: Sequence[str] = ()
    exit_code: int | None = None
    after_s: float | None = None
    retryable: bool = True
    alone: bool = False


@dataclass(frozen=True, slots=True)
class ItemHistory:
    """
    What was before this attempt.

    Attributes:
        first_started_at_us: Start of the item's first attempt, this one if it is the first; None when that is not known and counts as now.
    """

    charged_count: int
    snooze_count: int = 0
    death_count: int = 0
    first_started_at_us: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """
    The next state of the item, when it is due (0 = at once, None = it does not wait), and whether the attempt counts.

    Attributes:
        why: What ended the item, where the attempt itself does not say it.
    """

    state: ItemState
    due_at_us: int | None
    charged: bool
    why: str | None = None


def after_attempt(end: AttemptEnd, history: ItemHistory, policy: RetryPolicy, *, now_us: int, luck: float) -> Decision:
    """
    Return what follows an attempt.

    Args:
        luck: A random number from 0 up to 1, the share of the longest wait that is waited.
    """
    if end.outcome == AttemptOutcome.INTERRUPTED:
        return Decision(ItemState.PENDING, 0, charged=False)
    if end.outcome in ENDS:
        return Decision(ItemState(end.outcome), None, charged=True)
    if end.outcome == AttemptOutcome.CRASHED:
        return after_death(end, history, policy)
    if end.outcome == AttemptOutcome.SNOOZED:
        return after_snooze(end, history, policy, now_us)
    if not wants_retry(end, policy) or history.charged_count + 1 >= policy.max_attempts:
        return Decision(ItemState.FAILED, None, charged=True)
    delay_s = backoff(history.charged_count, policy, luck) if end.after_s is None else end.after_s
    return wait(delay_s, history, policy, now_us, charged=True)


def after_death(end: AttemptEnd, history: ItemHistory, policy: RetryPolicy) -> Decision:
    """Return what follows the death of a worker: the end, when it died of this item alone and too often; else another try."""
    deaths = history.death_count + 1
    if end.alone and deaths >= policy.max_deaths:
        return Decision(
            ItemState.QUARANTINED, None, charged=True, why=f"its worker died {times(deaths)} (--max-deaths {policy.max_deaths})"
        )
    return Decision(ItemState.PENDING, 0, charged=False)


def after_snooze(end: AttemptEnd, history: ItemHistory, policy: RetryPolicy, now_us: int) -> Decision:
    """Return what follows when the handler asks to be called later."""
    if history.snooze_count >= MAX_SNOOZES:
        return Decision(ItemState.FAILED, None, charged=False, why=f"snoozed {times(MAX_SNOOZES)} before")
    return wait(end.after_s or 0.0, history, policy, now_us, charged=False)


def wants_retry(end: AttemptEnd, policy: RetryPolicy) -> bool:
    """Tell whether another try may help, going by what failed and not by how often."""
    kinds = {*end.kinds, *TIMEOUT_KINDS} if end.outcome == AttemptOutcome.TIMED_OUT else {*end.kinds}
    if not end.retryable or not kinds.isdisjoint(policy.give_up_on):
        return False
    if policy.retry_on and kinds.isdisjoint(policy.retry_on):
        return False
    # The exit code of a command that was ended for its time is not its own.
    is_own = end.exit_code is not None and end.outcome != AttemptOutcome.TIMED_OUT
    return not policy.retry_exit or not is_own or end.exit_code in policy.retry_exit


def backoff(charged_count: int, policy: RetryPolicy, luck: float) -> float:
    """Return the seconds to wait after the failure that follows *charged_count* charged attempts."""
    try:
        longest_s = policy.backoff_s and policy.backoff_s * policy.backoff_factor**charged_count
    except OverflowError:
        longest_s = policy.backoff_cap_s
    return luck * min(policy.backoff_cap_s, longest_s)


def wait(delay_s: float, history: ItemHistory, policy: RetryPolicy, now_us: int, *, charged: bool) -> Decision:
    """Return the decision to try again in *delay_s*, or the end when the item's time is over before."""
    delay_us = round(min(max(0.0, delay_s), MAX_DURATION_S) * 1e6)
    started_at_us = now_us if history.first_started_at_us is None else history.first_started_at_us
    if policy.item_deadline_s is not None and now_us + delay_us > started_at_us + policy.item_deadline_s * 1e6:
        return Decision(ItemState.FAILED, None, charged, why=f"item deadline of {shown_duration(policy.item_deadline_s)}")
    if not delay_us:
        return Decision(ItemState.PENDING, 0, charged)
    return Decision(ItemState.SCHEDULED, now_us + delay_us, charged)


def times(count: int) -> str:
    """Return *count* in words that fit behind a verb."""
    return "once" if count == 1 else f"{count} times"
