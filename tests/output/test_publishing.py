from __future__ import annotations

import contextlib
import json

import pytest

from durabatch.engine import active as actives
from durabatch.ledger.opening import open_ledger
from durabatch.runner.publishing import AT_ONCE, Publisher
from tests import factory
from tests.factory import answer, give_back, take


@pytest.fixture
def ledger(tmp_path):
    """Give an open ledger."""
    with contextlib.closing(open_ledger(tmp_path / "l.db", create=True)) as opened:
        yield opened


def publisher(ledger, run, *, keep_order=True, directory=None):
    """Return a publisher, and the list of the numbers that it tells of."""
    numbers = []
    made = Publisher(ledger, run.run_id, run.name, directory, lambda output: numbers.append(output.number), keep_order=keep_order)
    return made, numbers


def handed_out(ledger, count, size=1):
    """Return a run whose items are all with workers, a dispatch for each batch."""
    run = factory.run_of(ledger, count)
    return run, [take(ledger, run, size, size=size) for _ in range(count // size)]


def test_batches_leave_as_they_finish(ledger):
    """Without keep_order nobody waits for a slower neighbour."""
    run, made = handed_out(ledger, 3)
    publishing, numbers = publisher(ledger, run, keep_order=False)
    for index in (2, 0, 1):
        give_back(ledger, run, answer(made[index]))
        publishing.publish()
    assert numbers == [3, 1, 2]


def test_with_keep_order_a_batch_waits_for_all_lower_numbers(ledger, tmp_path):
    """Files and callbacks come in the order of the numbers, whatever order the batches finish in."""
    run, made = handed_out(ledger, 5)
    publishing, numbers = publisher(ledger, run, directory=str(tmp_path / "out"))
    seen = []
    for index in (2, 0, 4, 1, 3):
        give_back(ledger, run, answer(made[index]))
        publishing.publish()
        seen.append(list(numbers))
    assert seen == [[], [1], [1], [1, 2, 3], [1, 2, 3, 4, 5]]
    publishing.finish()
    assert numbers == [1, 2, 3, 4, 5]
    assert json.loads((tmp_path / "out" / "batch_0005.json").read_text())["batch"] == 5


def test_a_batch_that_waits_for_a_retry_holds_the_later_ones(ledger):
    """Open is open: an item of batch 1 that is tried again keeps batch 2 back until it has ended."""
    run, made = handed_out(ledger, 4, size=2)
    publishing, numbers = publisher(ledger, run)
    give_back(ledger, run, answer(made[0], failing={"k1"}), max_attempts=2)
    give_back(ledger, run, answer(made[1]))
    assert (publishing.publish(), numbers) == (False, [])
    give_back(ledger, run, answer(take(ledger, run, 1, now_us=factory.NOW + 10**9)), max_attempts=2)
    publishing.publish()
    assert numbers == [1, 2]


def test_what_waits_at_the_end_leaves_when_the_run_goes_on(ledger):
    """Finishing a stopped run ends though batches wait; the next session publishes them behind the one that held them."""
    run, made = handed_out(ledger, 3)
    publishing, numbers = publisher(ledger, run)
    for index in (1, 2):
        give_back(ledger, run, answer(made[index]))
    publishing.finish()
    assert numbers == []
    again = actives.load(ledger, run.run_id)
    publishing, numbers = publisher(ledger, again)
    give_back(ledger, again, answer(made[0]))
    publishing.finish()
    assert numbers == [1, 2, 3]


def test_a_batch_in_the_middle_that_is_open_again_holds_nothing_that_has_left(ledger):
    """After a retry of batch 2 only that batch leaves again, and what finishes behind it comes after it."""
    run, made = handed_out(ledger, 4)
    publishing, numbers = publisher(ledger, run)
    for index in (0, 1, 2):
        give_back(ledger, run, answer(made[index]))
    publishing.finish()
    ledger.raw.execute("UPDATE batch SET ended_count = 0, finished_at_us = NULL, published_at_us = NULL WHERE number = 2")
    give_back(ledger, run, answer(made[3]))
    publishing.finish()
    assert numbers == [1, 2, 3]
    ledger.raw.execute("UPDATE batch SET ended_count = 1, finished_at_us = 1 WHERE number = 2")
    publishing.finish()
    assert numbers == [1, 2, 3, 2, 4]


@pytest.mark.parametrize("held", [False, True])
def test_more_batches_than_leave_at_once_all_leave(ledger, held):
    """A long line is worked off in turns, in order, and a line that is held does not turn forever."""
    count = 2 * AT_ONCE + 3
    run, made = handed_out(ledger, count)
    publishing, numbers = publisher(ledger, run)
    for one in made[int(held) :]:
        give_back(ledger, run, answer(one))
    publishing.finish()
    assert numbers == ([] if held else list(range(1, count + 1)))
