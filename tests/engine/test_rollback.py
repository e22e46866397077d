from __future__ import annotations

from dataclasses import replace

import pytest

from durabatch.cli.status import amount_text, status_lines
from durabatch.engine import active as actives
from durabatch.engine.explain import explain
from durabatch.engine.promise import Entry, record
from durabatch.engine.redo import redo, redo_from
from durabatch.engine.retry import Chosen, retry
from durabatch.engine.returned import FailedAttempt, Returned
from durabatch.engine.rollback import (
    Scope,
    abandon,
    choose,
    count_unresolved,
    is_rolled_back,
    planned,
    undo_broken_batch,
    unresolved,
)
from durabatch.engine.status import status
from durabatch.engine.steps import claim_steps, finish_steps
from durabatch.errors import NotFoundError, SqlError
from durabatch.flow.retrying import RetryPolicy
from durabatch.ledger.reader import Reader
from durabatch.models import Counts, RunStatus
from durabatch.states import AttemptOutcome
from tests.factory import NOW, add, answer, failures, finished, give_back, keys, new_run, run_of, take, tick

LATER = NOW + 10_000_000


def promise(ledger, run, made, *wanted, entries=1, irreversible=False):
    """Have the items with these keys promise something before they end."""
    promised = [
        Entry(made.dispatch_id, item_id, number, sequence, "drop", f'{{"what":"{key}.{sequence}"}}', is_irreversible=irreversible)
        for _, works in made.groups for item_id, number, key, _ in works if key in wanted
        for sequence in range(1, entries + 1)
    ]  # fmt: skip
    with tick(ledger, run):
        assert None not in record(ledger, run, promised, NOW)


def worked(ledger, count=6, *, size=2, effects=(), entries=1, series="jobs", failing=()):
    """Return a run of *count* items in batches of *size* that all ended, those of *effects* with that many entries each."""
    run = run_of(ledger, count, series=series)
    while made := take(ledger, run, 1, size=size):
        promise(ledger, run, made, *effects, entries=entries)
        give_back(ledger, run, answer(made, failing=failing))
    return run


def steps(ledger, run, *, failing=(), limit=10, messages=100, dispatch_id=-1):
    """Undo what is wanted; return what was undone or tried, message by message. *failing* names what fails for good."""
    told = []
    while len(told) < messages:
        with tick(ledger, run):
            claimed = claim_steps(ledger, run, limit=limit, dispatch_id=dispatch_id, now_us=LATER)
        if not claimed:
            break
        back = Returned(dispatch_id, inline=[], failed=[])
        names = [one.step_json.split('"what":"')[1].split('"')[0] for one in claimed]
        for one, name in zip(claimed, names, strict=True):
            if name in failing:
                row = {"item_id": -one.undo_id, "number": 1, "worker": 1, "outcome": "failed", "started_at_us": NOW, "duration_us": 5}
                columns = {"error_type": "OSError", "error_message": "busy", "error_group": "OSError: busy"}
                back.failed.append(FailedAttempt(AttemptOutcome.FAILED, False, {**row, **columns}))
            else:
                back.inline.append((-one.undo_id, one.try_number, 1, NOW, 5, '{"ran":true}'))
        with tick(ledger, run):
            finish_steps(ledger, run, back, policy=RetryPolicy(), now_us=LATER, luck=lambda: 0.0)
        told.append(names)
    return told


def chosen(ledger, run, scope=Scope(), *, in_order=True, **rest):  # noqa: B008 - it is frozen
    """Choose as the coordinator does, and have *run* know."""
    with ledger.transaction():
        run.write_tally(ledger)
        made = choose(ledger, run.run_id, scope, in_order=in_order, now_us=NOW + 5000, **rest)
    actives.reload(ledger, run)
    return made


def rows(ledger, text, *bindings):
    """Return the rows of a query."""
    return ledger.raw.execute(text, bindings).fetchall()


def states(ledger, run_id=1):
    """Return the states of the items of a run by key."""
    return dict(rows(ledger, "SELECT key, state FROM item WHERE run_id = ? ORDER BY item_id", run_id))


def entries(ledger):
    """Return the states of the entries by what they stand for."""
    return dict(rows(ledger, "SELECT arguments ->> '$.what', state FROM undo ORDER BY undo_id"))


def test_a_run_is_undone_newest_first_and_a_second_time_does_nothing(ledger, path):
    """Items without effects are undone at once, the others when their last step is; results are kept among those of before."""
    run = worked(ledger, 6, effects={"k1", "k3", "k6"}, entries=2)
    made = chosen(ledger, run)
    assert (made.items, made.steps, made.irreversible, made.plain) == (6, 6, 0, 3)
    assert [key for key, state in states(ledger).items() if state == "undone"] == ["k2", "k4", "k5"]
    with Reader(path) as reader:
        now = status(reader, "jobs")
        assert (now.undo_left, now.unresolved, now.is_rolling_back) == (6, 0, True)
        assert not is_rolled_back(reader, 1)
    assert steps(ledger, run) == [["k6.2"], ["k6.1"], ["k3.2"], ["k3.1"], ["k1.2"], ["k1.1"]]
    assert set(states(ledger).values()) == {"undone"}
    assert is_rolled_back(ledger, 1)
    assert rows(ledger, "SELECT count(*), min(cause) FROM result_history") == [(6, "undone")]
    assert rows(ledger, "SELECT min(failed_count), max(published_at_us), count(finished_at_us) FROM batch") == [(2, None, 3)]
    again = chosen(ledger, run)
    assert (again.items, again.steps, steps(ledger, run)) == (0, 0, [])


def test_items_that_do_not_depend_on_each_other_are_undone_beside_each_other(ledger):
    """Newest first in each, one at a time; a rollback that was cut off goes on in the order that is asked for then."""
    run = worked(ledger, 3, effects={"k1", "k2", "k3"}, entries=2)
    chosen(ledger, run)
    assert steps(ledger, run, messages=1) == [["k3.2"]]
    made = chosen(ledger, run, in_order=False)
    assert (made.items, made.steps) == (3, 5)
    assert steps(ledger, run) == [["k3.1", "k2.2", "k1.2"], ["k2.1", "k1.1"]]


@pytest.mark.parametrize(
    ("scope", "meant"),
    [
        (Scope(batch=2), {"k3", "k4"}),
        (Scope(to_batch=2), {"k5", "k6"}),
        (Scope(to_batch=0), {"k1", "k2", "k3", "k4", "k5", "k6"}),
        (Scope(keys=("k5", "k2")), {"k2", "k5"}),
        (Scope(where="payload ->> '$' > 'k4'"), {"k5", "k6"}),
        (Scope(where="batch < 3", to_batch=1), {"k3", "k4"}),
        (Scope(keys=("k1", "k4"), where="batch = 2"), {"k4"}),
        (Scope(keys=("k1", "k4"), to_batch=1), {"k4"}),
        (Scope(from_item_id=5), {"k5", "k6"}),
        (Scope(batch=1, from_item_id=2), {"k2"}),
        (Scope(batch=1, keys=("k5",)), set()),
    ],
)
def test_all_that_is_said_holds_of_what_is_chosen_and_of_what_is_planned(ledger, path, scope, meant):
    """The plan names just the steps that are made then, newest first, and choosing leaves all else alone."""
    run = worked(ledger, 6, effects={"k1", "k2", "k3", "k4", "k5", "k6"})
    with Reader(path) as reader:
        plan = list(planned(reader, 1, scope))
    assert [one.key for one in plan] == sorted(meant, reverse=True)
    assert [(one.batch, one.state, one.action, one.attempt) for one in plan] == [((int(one.key[1]) + 1) // 2, "recorded", "drop", 1) for one in plan]
    made = chosen(ledger, run, scope)
    assert (made.items, made.steps, made.plain) == (len(meant), len(meant), 0)
    assert [one[0] for one in steps(ledger, run)] == [f"{key}.1" for key in sorted(meant, reverse=True)]
    assert {key for key, state in states(ledger).items() if state == "undone"} == meant
    assert is_rolled_back(ledger, 1) == (len(meant) == 6)


@pytest.mark.parametrize("scope", [Scope(batch=9), Scope(to_batch=9), Scope(keys=("k1", "nobody")), Scope(where="nonsense(")])
def test_what_is_not_there_is_refused_and_nothing_is_changed(ledger, scope):
    """Neither an unknown batch, checkpoint or key nor a wrong expression undoes anything."""
    run = worked(ledger, 2, effects={"k1"})
    before = rows(ledger, "SELECT * FROM undo"), states(ledger)
    with pytest.raises((NotFoundError, SqlError)):
        chosen(ledger, run, scope)
    assert (rows(ledger, "SELECT * FROM undo"), states(ledger)) == before


def test_what_cannot_be_undone_is_told_and_the_rest_is(ledger):
    """An irreversible effect stands in the plan, is counted and listed; its item is undone as far as it can be."""
    run = run_of(ledger, 2)
    made = take(ledger, run, 2)
    promise(ledger, run, made, "k1", irreversible=True)
    promise(ledger, run, made, "k2")
    give_back(ledger, run, answer(made))
    assert unresolved(ledger, 1, 10) == []
    assert [(one.key, one.state) for one in planned(ledger, 1, Scope())] == [("k2", "recorded"), ("k1", "irreversible")]
    got = chosen(ledger, run)
    assert (got.items, got.steps, got.irreversible, got.plain) == (2, 1, 1, 1)
    assert steps(ledger, run) == [["k2.1"]]
    (left,) = unresolved(ledger, 1, 10)
    assert (left.key, left.batch, left.attempt, left.action, left.arguments, left.state, left.error) == ("k1", 1, 1, "drop", '{"what":"k1.1"}', "irreversible", None)
    assert is_rolled_back(ledger, 1)
    assert status(ledger, "jobs").unresolved == 0


def test_an_effect_that_remains_keeps_its_item_and_is_tried_again_by_the_next_rollback(ledger):
    """The item stays succeeded with what is left of it listed; all others are undone; then a second rollback makes only the missing steps."""
    run = worked(ledger, 3, effects={"k1", "k2", "k3"}, entries=3)
    chosen(ledger, run, in_order=False)
    steps(ledger, run, failing={"k2.2"})
    assert states(ledger) == {"k1": "undone", "k2": "succeeded", "k3": "undone"}
    assert [(one.arguments, one.state, one.error) for one in unresolved(ledger, 1, 10)] == [
        ('{"what":"k2.2"}', "failed", "OSError: busy"),
        ('{"what":"k2.1"}', "recorded", None),
    ]
    assert (count_unresolved(ledger, 1), len(unresolved(ledger, 1, 1)), is_rolled_back(ledger, 1)) == (2, 1, False)
    assert (status(ledger, "jobs").unresolved, status(ledger, "jobs").undo_left) == (1, 0)
    made = chosen(ledger, run)
    assert (made.items, made.steps, made.plain) == (1, 2, 0)
    assert steps(ledger, run) == [["k2.2"], ["k2.1"]]
    assert is_rolled_back(ledger, 1)


def test_giving_up_in_order_leaves_the_rest_and_lists_what_is_half_undone(ledger):
    """Nothing older than the step that failed is undone; an item of which a part is undone is not silently taken for whole."""
    run = run_of(ledger, 2)
    made = take(ledger, run, 2)
    for sequence in (1, 2):
        with tick(ledger, run):
            for item_id, number, key, _ in made.groups[0][1][:: 1 if sequence == 1 else -1]:
                record(ledger, run, [Entry(made.dispatch_id, item_id, number, sequence, "drop", f'{{"what":"{key}.{sequence}"}}')], NOW)
    give_back(ledger, run, answer(made))
    chosen(ledger, run)
    assert steps(ledger, run, failing={"k2.2"}, messages=2) == [["k1.2"], ["k2.2"]]
    with tick(ledger, run):
        assert abandon(ledger, run, LATER) == 1
    assert (run.wanted_count, run.undoing_count, steps(ledger, run)) == (0, 0, [])
    assert states(ledger) == {"k1": "succeeded", "k2": "succeeded"}
    assert entries(ledger) == {"k1.1": "failed", "k2.1": "recorded", "k2.2": "failed", "k1.2": "undone"}
    assert {(one.arguments, one.error) for one in unresolved(ledger, 1, 9)} >= {('{"what":"k1.1"}', "the rollback ended before it")}
    chosen(ledger, run)
    assert steps(ledger, run) == [["k2.2"], ["k2.1"], ["k1.1"]]
    assert is_rolled_back(ledger, 1)


def test_giving_up_lets_items_go_on_that_were_begun(ledger):
    """Without an order, half undone items come to their end; what was not begun stays as if nobody had asked."""
    run = worked(ledger, 4, effects={"k1", "k2", "k3", "k4"}, entries=2)
    chosen(ledger, run, in_order=False)
    assert steps(ledger, run, limit=2, messages=1, failing={"k3.2"}) == [["k4.2", "k3.2"]]
    with tick(ledger, run):
        assert abandon(ledger, run, LATER) == 4
    assert steps(ledger, run) == [["k4.1"]]
    assert states(ledger) == {"k1": "succeeded", "k2": "succeeded", "k3": "succeeded", "k4": "undone"}
    assert {state for what, state in entries(ledger).items() if what[:2] in {"k1", "k2"}} == {"recorded"}


def test_a_step_of_a_worker_comes_to_its_end_after_giving_up(ledger):
    """What comes back late is recorded, and so is all of its item."""
    run = worked(ledger, 2, effects={"k1", "k2"}, entries=2)
    chosen(ledger, run)
    with tick(ledger, run):
        (one,) = claim_steps(ledger, run, limit=5, dispatch_id=-7, now_us=LATER)
    with tick(ledger, run):
        assert abandon(ledger, run, LATER) == 2
    with tick(ledger, run):
        back = Returned(-7, inline=[(-one.undo_id, 1, 1, NOW, 5, '{"ran":true}')])
        finish_steps(ledger, run, back, policy=RetryPolicy(), now_us=LATER, luck=lambda: 0.0)
    assert steps(ledger, run) == [["k2.1"]]
    assert states(ledger) == {"k1": "succeeded", "k2": "undone"}


def test_retry_undoes_first_what_failed_attempts_have_left_and_nothing_else(ledger):
    """Of an item that succeeded before, that effect stays; an undone item runs again on request."""
    run = worked(ledger, 2, effects={"k1"})
    redo(ledger, 1, [1], cause="redone", now_us=NOW)
    actives.reload(ledger, run)
    made = take(ledger, run, 1)
    promise(ledger, run, made, "k1", entries=2)
    finished(ledger, run, failures(made, "failed"))
    assert steps(ledger, run, failing={"k1.1"}) == [["k1.2"], ["k1.1"]]
    assert states(ledger) == {"k1": "failed", "k2": "succeeded"}
    with ledger.transaction():
        run.write_tally(ledger)
    assert retry(ledger, 1, Chosen(), now_us=NOW) == 1
    actives.reload(ledger, run)
    assert take(ledger, run, 5) is None
    assert steps(ledger, run) == [["k1.1"]]
    made = take(ledger, run, 5, now_us=LATER)
    assert keys(made) == ["k1"]
    give_back(ledger, run, answer(made))
    assert sorted(rows(ledger, "SELECT number, state FROM undo WHERE item_id = 1")) == [(1, "recorded"), (2, "undone"), (2, "undone")]
    chosen(ledger, run)
    steps(ledger, run)
    assert states(ledger) == {"k1": "undone", "k2": "undone"}
    assert retry(ledger, 1, Chosen(), now_us=NOW) == 0
    assert retry(ledger, 1, Chosen(states=("undone",), keys=("k1",)), now_us=NOW) == 1
    assert states(ledger) == {"k1": "pending", "k2": "undone"}


def test_redoing_with_undo_takes_back_before_anything_runs_again(ledger):
    """From an item on; those without effects are ready at once, and without the wish nothing is undone."""
    run = worked(ledger, 4, effects={"k2", "k3"})
    assert redo_from(ledger, 1, 3, NOW, undo=True) == 2
    actives.reload(ledger, run)
    assert (run.wanted_count, run.undoing_count) == (1, 1)
    assert keys(take(ledger, run, 1)) == ["k4"]
    assert steps(ledger, run) == [["k3.1"]]
    assert keys(take(ledger, run, 9, now_us=LATER)) == ["k3"]
    assert redo_from(ledger, 1, 2, NOW) == 1
    assert entries(ledger) == {"k2.1": "recorded", "k3.1": "undone"}
    actives.reload(ledger, run)
    made = chosen(ledger, run, Scope(keys=("k2",)))
    assert (made.items, made.steps, made.plain) == (1, 1, 0)
    assert (take(ledger, run, 9), steps(ledger, run)) == (None, [["k2.1"]])
    assert keys(take(ledger, run, 9, now_us=LATER)) == ["k2"]


def test_what_is_chosen_to_run_again_waits_until_it_is_undone(ledger):
    """All that ended is meant then, whatever it had become."""
    run = worked(ledger, 4, effects={"k1", "k2"}, failing={"k2"})
    steps(ledger, run)
    made = chosen(ledger, run, then="pending")
    assert (made.items, made.steps, made.plain) == (4, 1, 0)
    assert set(states(ledger).values()) == {"pending"}
    assert len(keys(take(ledger, run, 9))) == 3
    assert steps(ledger, run) == [["k1.1"]]
    assert keys(take(ledger, run, 9, now_us=LATER)) == ["k1"]


def test_a_batch_is_undone_when_one_of_its_items_has_failed_for_good(ledger):
    """What succeeded of it is, what waits does not run, what comes back later follows; another batch is left alone, and so is one that can go on."""
    run = run_of(ledger, 6)
    first = take(ledger, run, 3, size=4)
    second = take(ledger, run, 1, size=4)
    other = take(ledger, run, 2, size=4)
    promise(ledger, run, first, "k1")
    promise(ledger, run, other, "k5")
    give_back(ledger, run, answer(other))
    finished(ledger, run, answer(first, failing={"k3"}, only={"k1", "k2", "k3"}), policy=RetryPolicy(2, backoff_s=1))
    with tick(ledger, run):
        assert undo_broken_batch(ledger, run, 1, NOW).items == 0
    again = take(ledger, run, 1, now_us=LATER)
    finished(ledger, run, answer(again, failing={"k3"}), policy=RetryPolicy(2))
    with tick(ledger, run):
        made = undo_broken_batch(ledger, run, 1, NOW)
        assert (made.items, made.steps, made.plain) == (2, 1, 1)
        assert undo_broken_batch(ledger, run, 1, NOW).items == 0
        assert undo_broken_batch(ledger, run, 2, NOW).items == 0
    promise(ledger, run, second, "k4")
    finished(ledger, run, failures(second, "failed"), policy=RetryPolicy(9, backoff_s=1))
    with tick(ledger, run):
        undo_broken_batch(ledger, run, 1, NOW)
    assert sorted(steps(ledger, run)[0]) == ["k1.1", "k4.1"]
    assert states(ledger) == {"k1": "undone", "k2": "undone", "k3": "failed", "k4": "undone", "k5": "succeeded", "k6": "succeeded"}
    assert rows(ledger, "SELECT number, ended_count, failed_count FROM batch ORDER BY number") == [(1, 4, 4), (2, 2, 0)]


def test_what_could_not_be_undone_of_a_broken_batch_is_not_tried_forever(ledger):
    """One failure ends it, until somebody asks for a rollback."""
    run = worked(ledger, 2, effects={"k1"}, failing={"k2"})
    with tick(ledger, run):
        undo_broken_batch(ledger, run, 1, NOW)
    assert steps(ledger, run, failing={"k1.1"}) == [["k1.1"]]
    with tick(ledger, run):
        assert undo_broken_batch(ledger, run, 1, NOW).steps == 0
    assert states(ledger) == {"k1": "succeeded", "k2": "failed"}


def test_another_run_of_the_ledger_is_never_touched(ledger):
    """Neither planned nor chosen, also where its items lie between those of the run."""
    first = new_run(ledger, "first")
    add(ledger, first, ["a", "b"])
    second = worked(ledger, 2, effects={"k1", "k2"}, series="second")
    add(ledger, first, ["c"], complete=True)
    while made := take(ledger, first, 1):
        promise(ledger, first, made, "a", "c")
        give_back(ledger, first, answer(made))
    assert [one.key for one in planned(ledger, first.run_id, Scope())] == ["c", "a"]
    assert chosen(ledger, first).items == 3
    assert steps(ledger, first) == [["c.1"], ["a.1"]]
    assert states(ledger, second.run_id) == {"k1": "succeeded", "k2": "succeeded"}
    assert second.wanted_count == 0


def test_explain_tells_what_was_undone_what_remains_and_what_comes_then(ledger):
    """In words, for an item that is rolled back, one that is owed its undoing, one of which an effect remains, and one that is undone."""
    run = worked(ledger, 3, effects={"k1", "k2", "k3"}, entries=2, failing={"k3"})

    def told(key):
        with ledger.transaction():
            run.write_tally(ledger)
        found = explain(ledger, 1, key, now_us=NOW)
        return found.state, found.happened[2:], found.recorded[-1], found.next[0]

    assert told("k1") == (
        "succeeded", (), "2 undo entries: 2 recorded", "it does not run again: it has succeeded. --from-item k1 runs it and all behind it again, `durabatch rollback jobs --item k1` undoes it",
    )  # fmt: skip
    assert told("k3")[::3] == ("pending", "2 effects of it are to be undone, newest first; then it has failed")
    steps(ledger, run, failing={"k3.1"})
    state, happened, recorded, following = told("k3")
    assert (state, recorded) == ("failed", "2 undo entries: 1 undone, 1 failed")
    assert happened[-2:] == ("drop, of try 1: not undone, tried once: OSError: busy", "drop, of try 1: undone at 2027-01-15T08:00:10.000Z")
    assert following == "it does not run again by itself: an effect of it remains. `durabatch retry jobs --key k3` runs it again, after what can be undone is undone"
    chosen(ledger, run, Scope(keys=("k1", "k2")))
    assert steps(ledger, run, messages=3) == [["k2.2"], ["k2.1"], ["k1.2"]]
    assert told("k1")[::3] == ("succeeded", "one effect of it is to be undone, newest first; then it counts as undone")
    assert told("k2")[::3] == ("undone", "it does not run again by itself: it is undone. `durabatch retry jobs --key k2 --undone` runs it again")


def test_a_status_tells_of_undoing_in_one_line():
    """How much is left, whether a rollback was cut off, what could not be undone, and how to go on; nothing where there is nothing to tell."""
    found = RunStatus(1, "jobs", "interrupted", None, "jobs:work", Counts(), 0, 0, True, 0.0, None, None, None, 0.0, None, None)

    def line(**facts):
        return [text.strip() for text in status_lines(replace(found, **facts), "l.db") if text.strip().startswith(("undo", "next"))]

    assert line() == ["next     `durabatch resume --ledger l.db` goes on"]
    assert line(undo_left=3, is_rolling_back=True)[0] == "undo     rollback unfinished: 3 steps"
    assert line(undo_left=3, is_rolling_back=True)[1] == "next     the same `durabatch rollback` as before goes on with it"
    assert line(undo_left=1, state="running", is_rolling_back=True) == ["undo     rolling back: 1 step to go"]
    assert line(undo_left=2, state="running") == ["undo     2 steps to go"]
    assert line(unresolved=1, state="finished") == ["undo     1 effect could not be undone"]
    assert line(unresolved=1, undo_left=3, is_rolling_back=True)[0] == "undo     rollback unfinished: 3 steps, 1 effect not undone or in doubt"
    grown = replace(found, is_transaction=True, intake_complete=False, counts=Counts(total=2, undone=2))
    assert [amount_text(replace(grown, state=state)) for state in ("rolled_back", "halted")] == [
        "2 of 2 (100.0%)", "2 of >=2, neither committed nor rolled back"
    ]  # fmt: skip
