from __future__ import annotations

import dataclasses
import random

import pytest

from durabatch.flow.retrying import MAX_SNOOZES, AttemptEnd, Decision, ItemHistory, RetryPolicy, after_attempt
from durabatch.settings import RunSettings
from durabatch.states import AttemptOutcome, ItemState

NOW = 1_700_000_000_000_000
HOUR_US = 3_600_000_000
UNCHARGED = (AttemptOutcome.INTERRUPTED, AttemptOutcome.SNOOZED, AttemptOutcome.CRASHED)


def after(outcome="failed", charged=0, *, luck=1.0, policy=None, history=None, now_us=NOW, **end):
    """Decide with everything that is not given at its plainest: three tries, and the longest wait."""
    return after_attempt(
        AttemptEnd(AttemptOutcome(outcome), **end),
        ItemHistory(charged, **(history or {})),
        RetryPolicy(**{"max_attempts": 3, **(policy or {})}),
        now_us=now_us,
        luck=luck,
    )


def delay_s(decision: Decision) -> float:
    """Return the wait of a decision."""
    assert decision.state is ItemState.SCHEDULED
    return (decision.due_at_us - NOW) / 1e6


# -- what follows what --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["failed", "timed_out"])
def test_a_failure_is_charged_and_tried_again_after_a_wait(outcome):
    """While tries are left the item is scheduled; the attempt counts."""
    assert after(outcome) == Decision(ItemState.SCHEDULED, NOW + 1_000_000, charged=True)


@pytest.mark.parametrize("outcome", ["failed", "timed_out"])
@pytest.mark.parametrize(("tries", "charged"), [(1, 0), (3, 2), (3, 7)])
def test_the_last_try_ends_the_item(outcome, tries, charged):
    """With the tries used up the item is failed; so is one whose budget was made smaller since."""
    assert after(outcome, charged, policy={"max_attempts": tries}) == Decision(ItemState.FAILED, None, charged=True)


def test_a_handler_may_rule_out_another_try():
    """What is not retryable fails at once, whatever else says otherwise."""
    assert after(retryable=False, after_s=1.0, kinds=["OSError"], policy={"retry_on": ("OSError",)}).state is ItemState.FAILED


def test_an_interruption_charges_nothing_and_goes_on_at_once():
    """A stopped run is not the item's fault, even without tries left."""
    assert after("interrupted", 5, policy={"max_attempts": 1}) == Decision(ItemState.PENDING, 0, charged=False)


@pytest.mark.parametrize("outcome", ["skipped", "cancelled", "succeeded"])
def test_what_has_ended_stays_ended(outcome):
    """These are ends; tries left do not matter."""
    assert after(outcome) == Decision(ItemState(outcome), None, charged=True)


@pytest.mark.parametrize("outcome", list(AttemptOutcome))
def test_every_outcome_has_a_plain_word_for_its_state(outcome):
    """The engine may hand in the word as it stands in the ledger."""
    end = dataclasses.replace(AttemptEnd(outcome, after_s=2.0), outcome=str(outcome))
    args = ItemHistory(0), RetryPolicy(max_attempts=2)
    assert after_attempt(end, *args, now_us=NOW, luck=0.5) == after_attempt(AttemptEnd(outcome, after_s=2.0), *args, now_us=NOW, luck=0.5)


# -- which failures -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "kinds", "retried"),
    [
        ({}, [], True),
        ({}, ["ValueError"], True),
        ({"retry_on": ("ConnectionError",)}, ["ConnectionResetError", "ConnectionError", "OSError", "Exception"], True),
        ({"retry_on": ("ConnectionError",)}, ["ValueError", "Exception"], False),
        ({"retry_on": ("ConnectionError",)}, [], False),
        ({"retry_on": ("requests.exceptions.Timeout",)}, ["ReadTimeout", "Timeout", "requests.exceptions.Timeout"], True),
        ({"retry_on": ("other.Timeout",)}, ["Timeout", "requests.exceptions.Timeout"], False),
        ({"give_up_on": ("ValueError",)}, ["UnicodeError", "ValueError"], False),
        ({"give_up_on": ("ValueError",)}, ["KeyError"], True),
        ({"retry_on": ("OSError",), "give_up_on": ("FileNotFoundError",)}, ["FileNotFoundError", "OSError"], False),
        ({"retry_on": ("OSError",), "give_up_on": ("FileNotFoundError",)}, ["PermissionError", "OSError"], True),
    ],
)
def test_classes_of_exceptions_decide(policy, kinds, retried):
    """A name hits the class and its bases, short or qualified; giving up goes before trying again."""
    assert (after(kinds=kinds, policy=policy).state is ItemState.SCHEDULED) is retried


@pytest.mark.parametrize("name", ["TimeoutError", "ItemTimeoutError"])
def test_a_timeout_has_a_name_whoever_noticed_it(name):
    """A worker that was killed cannot tell what its exception was; the rules know it all the same."""
    assert after("timed_out", policy={"retry_on": (name,)}).state is ItemState.SCHEDULED
    assert after("timed_out", policy={"give_up_on": (name,)}).state is ItemState.FAILED
    assert after("failed", policy={"retry_on": (name,)}).state is ItemState.FAILED


@pytest.mark.parametrize(
    ("retry_exit", "exit_code", "retried"),
    [((), 1, True), ((75, 111), 75, True), ((75, 111), 1, False), ((75, 111), None, True), ((75,), -9, False), ((0,), 0, True)],
)
def test_exit_codes_decide(retry_exit, exit_code, retried):
    """Of a command only the codes that were named are tried again; a failure without a code is not one of those."""
    assert (after(exit_code=exit_code, policy={"retry_exit": retry_exit}).state is ItemState.SCHEDULED) is retried


def test_the_exit_code_of_a_command_that_took_too_long_says_nothing():
    """It was ended by us: its signal is no reason not to try it again."""
    assert after(AttemptOutcome.TIMED_OUT, exit_code=-15, policy={"retry_exit": (75,)}).state is ItemState.SCHEDULED


# -- how long -----------------------------------------------------------------------------------------------------------------


def test_the_wait_doubles_up_to_its_cap():
    """With the worst luck the waits are the bounds themselves."""
    policy = {"max_attempts": 100, "backoff_cap_s": 10.0}
    assert [delay_s(after(charged=charged, policy=policy)) for charged in range(6)] == [1, 2, 4, 8, 10, 10]


def test_the_wait_is_anything_between_nothing_and_its_bound(seed):
    """Full jitter: the share of the bound that is waited is the luck, so waits spread evenly."""
    rng = random.Random(seed)
    waits = sorted(delay_s(after(charged=3, luck=rng.random() or 0.5, policy={"max_attempts": 9})) for _ in range(2000))
    assert 0 <= waits[0] < 0.2
    assert 7.8 < waits[-1] <= 8
    assert 3.6 < waits[1000] < 4.4


@pytest.mark.parametrize(("charged", "factor"), [(5000, 2.0), (2**31 - 3, 1.5), (400, 1e300), (1, 1e308)])
def test_no_number_of_tries_is_too_large_for_the_wait(charged, factor):
    """The bound is the cap long before numbers overflow."""
    assert delay_s(after(charged=charged, policy={"max_attempts": 2**31 - 1, "backoff_factor": factor})) == 300


@pytest.mark.parametrize("policy", [{"backoff_s": 0.0}, {"backoff_cap_s": 0.0}, {"backoff_s": 0.0, "backoff_factor": 1e300}])
def test_no_backoff_means_at_once(policy):
    """Nothing to wait for is not scheduled: it is pending, due at 0, like what was given back."""
    policy = {"max_attempts": 10_000, **policy}
    assert after(charged=4000, policy=policy) == Decision(ItemState.PENDING, 0, charged=True)
    assert after(luck=0.0) == Decision(ItemState.PENDING, 0, charged=True)


def test_the_handler_may_set_the_wait():
    """``Retry(after=…)`` goes before the policy's wait and knows neither luck nor cap; tries are counted all the same."""
    assert delay_s(after(after_s=1000.0, luck=0.1)) == 1000
    assert after(after_s=0.0) == Decision(ItemState.PENDING, 0, charged=True)
    assert after(charged=2, after_s=1.0).state is ItemState.FAILED


@pytest.mark.parametrize(("after_s", "delay"), [(-5.0, None), (float("nan"), None), (float("inf"), 3650 * 86400), (1e30, 3650 * 86400)])
def test_impossible_waits_become_possible_ones(after_s, delay):
    """A wait below nothing is none; one beyond ten years is ten years, which is still a date."""
    decision = after(after_s=after_s)
    assert (decision.state is ItemState.PENDING) if delay is None else delay_s(decision) == delay


# -- snoozing -----------------------------------------------------------------------------------------------------------------


def test_a_snooze_waits_and_charges_nothing():
    """The tries of the item are as they were."""
    assert after("snoozed", 2, after_s=60.0, policy={"max_attempts": 3}) == Decision(ItemState.SCHEDULED, NOW + 60_000_000, charged=False)
    assert after("snoozed") == Decision(ItemState.PENDING, 0, charged=False)


def test_a_hundred_snoozes_are_enough():
    """The hundredth is granted, the next one ends the item and says why."""
    assert after("snoozed", after_s=1.0, history={"snooze_count": MAX_SNOOZES - 1}).state is ItemState.SCHEDULED
    assert after("snoozed", after_s=1.0, history={"snooze_count": MAX_SNOOZES}) == Decision(
        ItemState.FAILED, None, charged=False, why="snoozed 100 times before"
    )


# -- deaths -------------------------------------------------------------------------------------------------------------------


def test_deaths_do_not_use_up_tries():
    """An item whose worker died goes on at once, whatever its tries."""
    assert after("crashed", 9, policy={"max_attempts": 1}, alone=True) == Decision(ItemState.PENDING, 0, charged=False)


def test_the_third_death_alone_is_quarantine():
    """Deaths in company count too, but only one that runs alone is found guilty."""
    assert after("crashed", alone=True, history={"death_count": 1}).state is ItemState.PENDING
    assert after("crashed", alone=False, history={"death_count": 50}).state is ItemState.PENDING
    assert after("crashed", alone=True, history={"death_count": 2}) == Decision(
        ItemState.QUARANTINED, None, charged=True, why="its worker died 3 times (--max-deaths 3)"
    )


def test_one_death_may_be_enough():
    """``--max-deaths 1`` quarantines at the first one."""
    decision = after("crashed", alone=True, policy={"max_deaths": 1})
    assert (decision.state, decision.why) == (ItemState.QUARANTINED, "its worker died once (--max-deaths 1)")


# -- the item's deadline ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("started_before_us", "after_s", "state"),
    [
        (0, 3600.0, ItemState.SCHEDULED),
        (0, 3600.001, ItemState.FAILED),
        (HOUR_US - 1_000_000, 1.0, ItemState.SCHEDULED),
        (HOUR_US - 1_000_000, 1.1, ItemState.FAILED),
        (HOUR_US, 0.0, ItemState.PENDING),
        (HOUR_US + 1, 0.0, ItemState.FAILED),
        (None, 3600.0, ItemState.SCHEDULED),
        (None, 3601.0, ItemState.FAILED),
        (-HOUR_US, 3600.0, ItemState.SCHEDULED),
    ],
)
@pytest.mark.parametrize("outcome", ["failed", "snoozed"])
def test_no_try_begins_after_the_items_deadline(started_before_us, after_s, state, outcome):
    """A wait that would end after it ends the item now, with the deadline as the reason."""
    history = {"first_started_at_us": None if started_before_us is None else NOW - started_before_us}
    decision = after(outcome, after_s=after_s, history=history, policy={"item_deadline_s": 3600.0})
    assert decision.state is state
    assert decision.why == ("item deadline of 1h" if state is ItemState.FAILED else None)
    assert decision.charged is (outcome == "failed")


def test_an_interruption_does_not_look_at_the_deadline():
    """What was stopped from outside is tried once more; its worker is told how little time is left."""
    assert after("interrupted", history={"first_started_at_us": 0}, policy={"item_deadline_s": 1.0}).state is ItemState.PENDING


# -- as a whole ---------------------------------------------------------------------------------------------------------------


def test_the_policy_is_read_from_the_settings_of_the_run():
    """Each field of the policy is a setting of the same name, with the same default."""
    settings = RunSettings(max_attempts=4, backoff_s=0.5, retry_on=("OSError",), retry_exit=(75,), max_deaths=2, item_deadline_s=60.0)
    policy = RetryPolicy.of(settings)
    names = [field.name for field in dataclasses.fields(RetryPolicy)]
    assert {name: getattr(policy, name) for name in names} == {name: getattr(settings, name) for name in names}
    assert RetryPolicy.of(RunSettings()) == RetryPolicy()


def test_any_decision_is_one_that_a_row_can_hold(seed, scaled):
    """Waiting states have a due time, ended ones none; nothing that runs again was charged for a death, stop or snooze."""
    rng = random.Random(seed)
    for _ in range(scaled(20_000)):
        outcome = rng.choice(list(AttemptOutcome))
        policy = {"max_attempts": rng.randint(1, 5), "item_deadline_s": rng.choice([None, 1.0, 1e6]), "max_deaths": rng.randint(1, 4)}
        history = {
            "snooze_count": rng.randint(0, 120),
            "death_count": rng.randint(0, 4),
            "first_started_at_us": rng.choice([None, NOW - rng.randrange(10**12)]),
        }
        end = {"after_s": rng.choice([None, 0.0, 5.0, 1e9]), "retryable": rng.random() < 0.8, "alone": rng.random() < 0.5}
        made = after(outcome, rng.randint(0, 6), luck=rng.random(), policy=policy, history=history, **end)
        assert (made.due_at_us is not None) is (made.state in (ItemState.PENDING, ItemState.SCHEDULED))
        assert (made.due_at_us == 0) is (made.state is ItemState.PENDING)
        assert made.state is not ItemState.SCHEDULED or made.due_at_us > NOW
        assert not (made.charged and outcome in UNCHARGED) or made.state is ItemState.QUARANTINED
