from __future__ import annotations

import pytest

from durabatch.engine import active as actives
from durabatch.engine.accuse import accuse, claim_suspects
from durabatch.engine.cancel import cancel_page
from durabatch.engine.claim import seal_when_exhausted
from durabatch.engine.hold import HELD_AT_US, Held, first_of_batch, hold, item_of, let_go
from durabatch.engine.recover import recover
from durabatch.engine.skip import claim_checks
from durabatch.engine.status import status
from durabatch.errors import NotFoundError
from durabatch.flow.retrying import RetryPolicy
from durabatch.ledger import batch, changing, item, run
from tests import factory
from tests.factory import NOW, answer, failure, failures, finished, give_back, keys, take


def due(ledger):
    """Return the due time of every item, None for those in input order."""
    return [row[0] for row in ledger.raw.execute("SELECT due_at_us FROM item ORDER BY item_id")]


def test_nothing_before_the_item_runs_and_everything_from_it_on(ledger):
    """Fresh, waiting and released ones stay as they are; the run has nothing to do once the others have ended."""
    jobs = factory.run_of(ledger, 9)
    finished(ledger, jobs, failures(take(ledger, jobs, 1, size=3), "failed"), policy=RetryPolicy(2, backoff_s=60))
    before = due(ledger)
    assert hold(ledger, 1, 7) == Held(6, ("k1", "k2", "k3", "k4", "k5"))
    jobs = actives.load(ledger, 1)
    assert (jobs.held_count, jobs.next_due_at_us) == (6, None)
    made = take(ledger, jobs, 9, size=3, now_us=NOW + 10**15)
    assert keys(made) == ["k7", "k8", "k9"]
    give_back(ledger, jobs, answer(made))
    assert take(ledger, jobs, 9, now_us=NOW + 10**15) is None
    assert (jobs.open_count, status(ledger, 1).next_due_at) == (6, None)
    assert claim_checks(ledger, jobs, 1, 10, 1 << 20) == []
    assert let_go(ledger, 1) == 6
    # The watermark has passed them: they are due at once now, what waits for a time still does.
    assert due(ledger)[:3] == [before[0], 0, 0]
    jobs = actives.load(ledger, 1)
    assert keys(take(ledger, jobs, 9, size=3, now_us=NOW + 10**9)) == ["k2", "k3", "k4", "k5", "k6", "k1"]


def test_what_is_let_go_before_anything_ran_stands_where_it_stood(ledger):
    """Ranks and times come back as they were; a second hold lets go of the first one."""
    jobs = factory.new_run(ledger)
    factory.add(ledger, jobs, ["a", "b", "c", "d"], complete=True, place=lambda payload: (0, 50) if "b" in payload else (0, None))
    before = due(ledger)
    hold(ledger, 1, 4)
    assert [at_us >= HELD_AT_US if at_us is not None else False for at_us in due(ledger)] == [True, True, True, False]
    assert hold(ledger, 1, 3).keys == ("a", "b")
    assert (let_go(ledger, 1), let_go(ledger, 1), due(ledger)) == (2, 0, before)


def test_a_crash_and_a_cancelled_run_are_not_misled(ledger):
    """Recovery leaves what is held alone, cancelling does not."""
    jobs = factory.run_of(ledger, 4)
    hold(ledger, 1, 3)
    jobs = actives.load(ledger, 1)
    take(ledger, jobs, 1)
    assert recover(ledger, 1, [], now_us=NOW) == (1, 0)
    jobs = actives.load(ledger, 1)
    assert (jobs.held_count, keys(take(ledger, jobs, 5))) == (2, ["k3", "k4"])
    recover(ledger, 1, [], now_us=NOW)
    jobs = actives.load(ledger, 1)
    with factory.tick(ledger, jobs):
        while cancel_page(ledger, jobs, 3, NOW):
            continue
    assert (jobs.held_count, jobs.open_count, run.get(ledger, 1).cancelled_count) == (0, 0, 4)


def test_suspects_are_held_as_well(ledger):
    """A group that stands before the item waits until it is let go."""
    jobs = factory.run_of(ledger, 4)
    made = take(ledger, jobs, 2)
    back = answer(made, only=())
    back.failed += [failure(item_id, 1, "crashed") for item_id in factory.ids(made)]
    back.batch_of.update(dict.fromkeys(factory.ids(made), made.groups[0][0]))
    with factory.tick(ledger, jobs):
        accuse(ledger, jobs, back, group=(), policy=RetryPolicy(), now_us=NOW)
    hold(ledger, 1, 3)
    jobs = actives.load(ledger, 1)
    with factory.tick(ledger, jobs):
        assert (jobs.grouped_count, jobs.suspect_count, claim_suspects(ledger, jobs, max_bytes=1 << 20, now_us=NOW)) == (2, 0, None)
    let_go(ledger, 1)
    jobs = actives.load(ledger, 1)
    with factory.tick(ledger, jobs):
        assert factory.ids(claim_suspects(ledger, jobs, max_bytes=1 << 20, now_us=NOW)) == [1, 2]


def test_the_last_batch_closes_without_those_that_are_held(ledger):
    """What ran is published; they join a batch of their own later. A check before the run is made again for them."""
    jobs = factory.run_of(ledger, 5)
    run.set_flow(ledger, 1, {"preflight": "done", "other": 1})
    hold(ledger, 1, 4)
    jobs = actives.load(ledger, 1)
    give_back(ledger, jobs, answer(take(ledger, jobs, 5)))
    with factory.tick(ledger, jobs):
        seal_when_exhausted(ledger, jobs, NOW)
    assert [(row.item_count, row.finished_at_us is not None) for row in batch.list_of_run(ledger, 1)] == [(2, True)]
    let_go(ledger, 1)
    assert run.get(ledger, 1).flow == {"other": 1}
    factory.work_off(ledger, actives.load(ledger, 1))
    assert run.get(ledger, 1).succeeded_count == 5


def test_an_item_is_found_by_key_or_number(ledger):
    """The key first; numbers count the items of the run alone, over all its spans."""
    jobs = factory.new_run(ledger)
    for page in (["a", "4"], ["b"], ["c", "d"]):
        factory.add(ledger, jobs, page)
        factory.run_of(ledger, 2, series="other")
    found = [item.get(ledger, item_of(ledger, jobs.run_id, text)).key for text in ("c", "4", "1", "3", "5")]
    assert found == ["c", "4", "a", "b", "d"]
    for text in ("e", "0", "6", "-1", "²", "9" * 30):
        with pytest.raises(NotFoundError, match="no item"):
            item_of(ledger, jobs.run_id, text)


def test_a_batch_is_found_by_its_number(ledger):
    """Its first item, however its items came to it."""
    jobs = factory.run_of(ledger, 7)
    factory.work_off(ledger, jobs, size=3)
    assert [first_of_batch(ledger, 1, number) for number in (1, 2, 3)] == [1, 4, 7]
    with pytest.raises(NotFoundError, match="no batch 4 in this run"):
        first_of_batch(ledger, 1, 4)
    empty = factory.new_run(ledger)
    with pytest.raises(NotFoundError, match="no batch 1"):
        first_of_batch(ledger, empty.run_id, 1)


def test_the_statements_and_the_code_mean_the_same_numbers():
    """Constants that stand in SQL."""
    from durabatch.ledger.statements import named

    assert str(changing.HELD_AT_US) in named()["item_hold"]
    assert str(changing.KEPT) in named()["item_list_known_and_kept"]
