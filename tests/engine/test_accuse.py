"""
Workers that die, of one item, of several, or of nothing that anybody saw.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from durabatch.engine import active as actives
from durabatch.engine.accuse import accuse, claim_suspects
from durabatch.engine.cancel import cancel_page
from durabatch.engine.finish import Returned
from durabatch.engine.recover import recover
from durabatch.engine.release import release
from durabatch.engine.results import results
from durabatch.engine.retry import Chosen, retry
from durabatch.flow.retrying import RetryPolicy
from durabatch.flow.suspecting import MAX_INTERRUPTIONS
from durabatch.ledger import attempt, item, run, suspect
from tests import factory
from tests.factory import NOW, answer, failures, give_back, ids, keys, take


def die(ledger, jobs, made, cells=None, *, group=(), policy=None):
    """Let the worker that holds *made* die with these keys in its cells (None: all), and take the rest back; return what was recorded."""
    with factory.tick(ledger, jobs):
        back = failures(made, "crashed", only=cells, error_type="WorkerCrashed", signal=11)
        done = accuse(ledger, jobs, back, group=group, policy=policy or RetryPolicy(), now_us=NOW)
        release(ledger, jobs, made.dispatch_id, ids(made))
    return done


def isolated(ledger, jobs, max_bytes=1 << 20):
    """Claim the next group of suspects."""
    with factory.tick(ledger, jobs):
        return claim_suspects(ledger, jobs, max_bytes=max_bytes, now_us=NOW)


def test_what_a_dead_worker_ran_is_set_apart(ledger):
    """The items in its cells wait as one group that no ordinary claim touches, uncharged; the others of its dispatch go on."""
    jobs = factory.run_of(ledger, 6)
    done = die(ledger, jobs, take(ledger, jobs, 4), {"k2", "k3"})
    assert (done.recorded, done.succeeded, done.ended_failed) == (2, 0, 0)
    assert [(note.item_id, note.outcome, note.state) for note in done.failures] == [(2, "crashed", "pending"), (3, "crashed", "pending")]
    assert (jobs.suspect_count, jobs.grouped_count) == (2, 2)
    assert keys(take(ledger, jobs, 9)) == ["k1", "k4", "k5", "k6"]
    assert take(ledger, jobs, 9) is None
    made = isolated(ledger, jobs)
    assert (keys(made), made.suspects, jobs.suspect_count) == (["k2", "k3"], (2, 3), 0)
    assert isolated(ledger, jobs) is None
    assert (item.get(ledger, 2).attempt_count, item.get(ledger, 2).uncharged_count) == (1, 1)
    assert run.get(ledger, jobs.run_id).running_count == 6


def test_one_that_lives_through_it_is_free_again(ledger):
    """A success, a failure or any other end of a try that leaves the worker alive ends the isolation; the death stays counted."""
    jobs = factory.run_of(ledger, 3)
    die(ledger, jobs, take(ledger, jobs, 3))
    made = isolated(ledger, jobs)
    give_back(ledger, jobs, answer(made, failing={"k2"}, only={"k1", "k2"}), max_attempts=5)
    assert suspect.grouped(ledger, [1, 2, 3]) == [3]
    assert (jobs.grouped_count, suspect.deaths(ledger, 2)) == (1, 1)
    assert keys(take(ledger, jobs, 5)) == ["k2"]
    give_back(ledger, jobs, answer(made, only={"k3"}))
    assert (jobs.grouped_count, [one.attempts for one in results(ledger, 1)]) == (0, [1, 1, 1])


def test_an_interruption_proves_nothing(ledger):
    """A group that was stopped with its run waits as the same group."""
    jobs = factory.run_of(ledger, 2)
    die(ledger, jobs, take(ledger, jobs, 2))
    give_back(ledger, jobs, failures(isolated(ledger, jobs), "interrupted"))
    assert (jobs.suspect_count, take(ledger, jobs, 5)) == (2, None)
    jobs = actives.load(ledger, jobs.run_id)
    assert (jobs.suspect_count, isolated(ledger, jobs).suspects) == (2, (1, 2))


def test_a_group_that_dies_again_is_halved(ledger):
    """All were running: two groups; some were running: they are one, the rest another; those that had ended are in none."""
    jobs = factory.run_of(ledger, 8)
    die(ledger, jobs, take(ledger, jobs, 8))
    made = isolated(ledger, jobs)
    die(ledger, jobs, made, group=made.suspects)
    first, second = isolated(ledger, jobs), isolated(ledger, jobs)
    assert (first.suspects, second.suspects) == ((1, 2, 3, 4), (5, 6, 7, 8))
    give_back(ledger, jobs, answer(first, only={"k1"}))
    die(ledger, jobs, first, {"k2"}, group=first.suspects, policy=RetryPolicy(max_deaths=9))
    assert [isolated(ledger, jobs).suspects for _ in range(2)] == [(2,), (3, 4)]


def test_only_one_that_is_alone_is_quarantined(ledger):
    """Deaths in company are counted, and no verdict; the third one alone is, with what is known of it."""
    jobs = factory.run_of(ledger, 4)
    die(ledger, jobs, take(ledger, jobs, 2))
    made = isolated(ledger, jobs)
    die(ledger, jobs, made, group=made.suspects)
    assert suspect.deaths(ledger, 1) == 2
    made = isolated(ledger, jobs)
    assert made.suspects == (1,)
    done = die(ledger, jobs, made, group=made.suspects)
    assert (done.ended_failed, done.failures[0].state) == (1, "quarantined")
    row = attempt.list_of_item(ledger, 1)[-1]
    assert (row.outcome, row.signal, row.error_message) == ("crashed", 11, "no; its worker died 3 times (--max-deaths 3)")
    assert (jobs.grouped_count, run.get(ledger, 1).quarantined_count) == (1, 1)
    give_back(ledger, jobs, answer(isolated(ledger, jobs)))
    assert [one.state for one in results(ledger, 1)] == ["quarantined", "succeeded", "pending", "pending"]


def test_deaths_are_counted_over_a_resume(ledger):
    """Another coordinator goes on with the same groups and the same numbers."""
    jobs = factory.run_of(ledger, 1)
    for _ in range(2):
        made = isolated(ledger, jobs) or take(ledger, jobs, 1)
        die(ledger, jobs, made, group=made.suspects)
        jobs = actives.load(ledger, jobs.run_id)
    die(ledger, jobs, isolated(ledger, jobs), group=(1,))
    assert run.get(ledger, 1).quarantined_count == 1


def test_retries_and_deaths_have_budgets_of_their_own(ledger):
    """Deaths charge no try, tries no death."""
    jobs = factory.run_of(ledger, 1)
    policy = RetryPolicy(max_attempts=2, max_deaths=9, backoff_s=0)
    for _ in range(4):
        made = isolated(ledger, jobs) or take(ledger, jobs, 1)
        die(ledger, jobs, made, group=made.suspects, policy=policy)
    factory.finished(ledger, jobs, failures(isolated(ledger, jobs), "failed"), policy=policy)
    assert [one.state for one in results(ledger, 1)] == ["pending"]
    factory.finished(ledger, jobs, failures(take(ledger, jobs, 1), "failed"), policy=policy)
    assert [(one.state, one.attempts) for one in results(ledger, 1)] == [("failed", 2)]


def test_cells_of_two_dispatches_are_one_death(ledger):
    """A worker that ran items of two dispatches had two suspects, and neither was alone."""
    jobs = factory.run_of(ledger, 4)
    first, second = take(ledger, jobs, 2), take(ledger, jobs, 2)
    back = failures(first, "crashed", only={"k2"})
    other = failures(second, "crashed", only={"k3"})
    back.failed.append(replace(other.failed[0], dispatch_id=second.dispatch_id))
    with factory.tick(ledger, jobs):
        merged = Returned(first.dispatch_id, failed=back.failed, batch_of=back.batch_of | other.batch_of)
        done = accuse(ledger, jobs, merged, group=(), policy=RetryPolicy(max_deaths=1), now_us=NOW)
        release(ledger, jobs, first.dispatch_id, ids(first))
        release(ledger, jobs, second.dispatch_id, ids(second))
    assert (done.recorded, done.ended_failed) == (2, 0)
    assert isolated(ledger, jobs).suspects == (2, 3)


def test_a_late_death_accuses_nobody(ledger):
    """What the dispatch does not hold any more is not its fault."""
    jobs = factory.run_of(ledger, 2)
    made = take(ledger, jobs, 2)
    give_back(ledger, jobs, answer(made))
    assert die(ledger, jobs, made).recorded == 0
    assert suspect.count(ledger, 1) == (0, 0)
    assert factory.rows(ledger.files.ledger, "SELECT * FROM suspect") == []


def test_a_late_message_acquits_nobody(ledger):
    """What another dispatch says of an item that is set apart now is no proof."""
    jobs = factory.run_of(ledger, 2)
    first = take(ledger, jobs, 2)
    with factory.tick(ledger, jobs):
        release(ledger, jobs, first.dispatch_id, ids(first))
    die(ledger, jobs, take(ledger, jobs, 2))
    made = isolated(ledger, jobs)
    assert give_back(ledger, jobs, answer(first, failing={"k2"})) == 0
    assert suspect.grouped(ledger, [1, 2]) == [1, 2]
    assert give_back(ledger, jobs, answer(made)) == 2


def test_a_group_whose_worker_died_of_nothing_known_is_halved(ledger):
    """Nothing stood in the cells: nobody is accused, and the group is looked at in smaller parts."""
    jobs = factory.run_of(ledger, 4)
    die(ledger, jobs, take(ledger, jobs, 4))
    made = isolated(ledger, jobs)
    assert die(ledger, jobs, made, (), group=made.suspects).recorded == 0
    assert [isolated(ledger, jobs).suspects for _ in range(2)] == [(1, 2), (3, 4)]
    assert suspect.deaths(ledger, 1) == 1


def test_a_big_group_is_claimed_in_parts(ledger):
    """A dispatch of suspects is bounded by bytes like any other; the rest of the group comes next."""
    jobs = factory.run_of(ledger, 3)
    die(ledger, jobs, take(ledger, jobs, 3))
    assert [isolated(ledger, jobs, max_bytes=9).suspects for _ in range(2)] == [(1, 2), (3,)]


def test_items_that_ran_when_coordinators_died_become_suspects(ledger):
    """After the third time they are set apart, as one group; what never started is not, and nothing was charged."""
    jobs = factory.run_of(ledger, 4)
    for count in range(1, MAX_INTERRUPTIONS + 1):
        made = take(ledger, jobs, 4)
        cells = [(item_id, made.dispatch_id, 1, NOW) for item_id in (1, 2)]
        assert recover(ledger, jobs.run_id, cells, now_us=NOW) == (4, 2)
        jobs = actives.load(ledger, jobs.run_id)
        assert jobs.suspect_count == (2 if count == MAX_INTERRUPTIONS else 0)
    assert keys(take(ledger, jobs, 9)) == ["k3", "k4"]
    give_back(ledger, jobs, answer(isolated(ledger, jobs)))
    assert [one.attempts for one in results(ledger, 1)][:2] == [1, 1]
    assert jobs.grouped_count == 0


def test_suspects_of_a_coordinator_that_died_wait_as_before(ledger):
    """Recovery takes a running group back whole, and makes no second group of it."""
    jobs = factory.run_of(ledger, 2)
    die(ledger, jobs, take(ledger, jobs, 2))
    for _ in range(MAX_INTERRUPTIONS + 1):
        made = isolated(ledger, jobs)
        recover(ledger, jobs.run_id, [(1, made.dispatch_id, 1, NOW)], now_us=NOW)
        jobs = actives.load(ledger, jobs.run_id)
        assert jobs.suspect_count == 2
    assert isolated(ledger, jobs).suspects == (1, 2)


def test_a_retried_item_starts_without_a_past(ledger):
    """Its deaths are forgotten with its tries: it is quarantined again only after as many new ones."""
    jobs = factory.run_of(ledger, 1)
    die(ledger, jobs, take(ledger, jobs, 1), policy=RetryPolicy(max_deaths=1))
    assert retry(ledger, jobs.run_id, Chosen(), now_us=NOW) == 1
    jobs = actives.load(ledger, jobs.run_id)
    die(ledger, jobs, take(ledger, jobs, 1), policy=RetryPolicy(max_deaths=2))
    assert (run.get(ledger, 1).quarantined_count, suspect.deaths(ledger, 1)) == (0, 1)


def test_a_cancelled_suspect_is_no_longer_set_apart(ledger):
    """What has ended is in no group."""
    jobs = factory.run_of(ledger, 3)
    die(ledger, jobs, take(ledger, jobs, 2))
    with factory.tick(ledger, jobs):
        assert cancel_page(ledger, jobs, 10, NOW) == 2
    assert (jobs.grouped_count, jobs.suspect_count) == (0, 0)


@pytest.mark.parametrize("concurrency", [1, 3, 8])
def test_the_guilty_are_found_whatever_the_company(ledger, seed, concurrency):
    """Items that always kill, among many that never do: exactly they are quarantined, everybody else succeeds with one charged try."""
    chance = random.Random(seed)
    jobs = factory.run_of(ledger, 60)
    guilty = {f"k{number}" for number in chance.sample(range(1, 61), 4)}
    deaths = 0
    while jobs.open_count:
        made = isolated(ledger, jobs) or take(ledger, jobs, 10)
        works = [work for _, works in made.groups for work in works]
        while works:
            cells, works = [work[2] for work in works[:concurrency]], works[concurrency:]
            if guilty & {*cells}:
                die(ledger, jobs, made, cells, group=made.suspects)
                deaths += 1
                break
            give_back(ledger, jobs, answer(made, only=cells))
    found = {one.key: (one.state, one.attempts) for one in results(ledger, 1)}
    assert {key for key, (state, _) in found.items() if state == "quarantined"} == guilty
    assert {end for key, end in found.items() if key not in guilty} == {("succeeded", 1)}
    assert deaths <= 4 * (concurrency.bit_length() + 3)
