"""What waits in a worker: in order, given back from the end, each item exactly once."""

from __future__ import annotations

import threading
import time

from durabatch.workers.backlog import Backlog, Waiting
from durabatch.workers.outcomes import Outcomes
from durabatch.workers.protocol import Dispatch, Group


def dispatch(dispatch_id, *batches, **more):
    groups = [Group(index, [(item, 1, str(item), "1") for item in items]) for index, items in enumerate(batches, 1)]
    return Waiting(Dispatch(dispatch_id, groups, **more), Outcomes(1, 100, dispatch_id))


def test_items_come_in_the_order_of_the_dispatches():
    """Dispatches and their batches keep their order."""
    backlog = Backlog()
    backlog.add(dispatch(1, [1, 2], [3]))
    backlog.add(dispatch(2, [4]))
    first = backlog.next()
    assert [(batch, [work[0] for work in items]) for batch, items in first.slices] == [(1, [1, 2]), (2, [3])]
    assert backlog.next().dispatch_id == 2


def test_release_gives_everything_back_in_input_order():
    """Without a limit all unstarted items come back, also those of the dispatch at work; emptied dispatches are named."""
    backlog = Backlog()
    backlog.add(dispatch(1, [1, 2], [3]))
    backlog.add(dispatch(2, [4], [5]))
    backlog.next().slices[0][1].popleft()
    items, gone = backlog.release()
    assert list(items.items()) == [(1, [2, 3]), (2, [4, 5])]
    assert gone == [2]


def test_release_takes_the_last_items_first():
    """With a limit the items that would have run last come back, and no dispatch is gone that still has some."""
    backlog = Backlog()
    backlog.add(dispatch(1, [1, 2]))
    backlog.add(dispatch(2, [3, 4]))
    assert backlog.release(1) == ({2: [4]}, [])
    assert backlog.release(2) == ({1: [2], 2: [3]}, [2])
    assert backlog.release(0) == ({}, [])
    assert backlog.next().dispatch_id == 1


def test_stop_ends_the_backlog_after_the_last_dispatch():
    """Stop lets what waits be done first."""
    backlog = Backlog()
    backlog.add(dispatch(1, [1]))
    backlog.stop()
    assert backlog.next().dispatch_id == 1
    assert backlog.next() is None


def take_all(backlog):
    """Return what is there: dispatch, batch and item of each."""
    found = []
    while (taken := backlog.take()) is not None:
        found.append((taken[0].dispatch_id, taken[1], taken[2][0]))
    return found


def test_items_are_taken_one_by_one_across_dispatches():
    """Items come in order, batch by batch and dispatch by dispatch, before any of them has ended."""
    backlog = Backlog()
    backlog.add(dispatch(1, [1], [], [2]))
    backlog.add(dispatch(2, [3]))
    assert take_all(backlog) == [(1, 1, 1), (1, 3, 2), (2, 1, 3)]


def test_the_last_item_of_a_dispatch_is_known():
    """However ends and releases fall, exactly one of them is told that it was the last."""
    backlog = Backlog()
    backlog.add(dispatch(1, [1, 2, 3]))
    backlog.add(dispatch(2, [4]))
    first, second = backlog.take()[0], backlog.take()[0]
    assert not backlog.ended(first)
    assert backlog.release() == ({1: [3], 2: [4]}, [2])
    assert backlog.ended(second)
    assert backlog.release() == ({}, [])


def test_a_release_can_finish_a_dispatch_that_was_begun():
    """When all that was started has ended, giving the rest back is the end of the dispatch."""
    backlog = Backlog()
    backlog.add(dispatch(1, [1, 2, 3]))
    assert not backlog.ended(backlog.take()[0])
    assert backlog.release(1) == ({1: [3]}, [])
    assert backlog.release() == ({1: [2]}, [1])


def test_a_dispatch_that_is_over_is_not_named_again():
    """After its last item has ended a dispatch is nobody's business any more."""
    backlog = Backlog()
    backlog.add(dispatch(1, [1]))
    assert backlog.ended(backlog.take()[0])
    assert backlog.release() == ({}, [])


def test_an_item_has_a_deadline_of_its_own():
    """The seconds that are left count from when the dispatch came."""
    before_s = time.monotonic()
    waiting = dispatch(1, [1, 2], limits={2: 30.0})
    assert waiting.ends_s.keys() == {2}
    assert before_s + 30 <= waiting.ends_s[2] <= time.monotonic() + 30


def test_errands_are_run_between_items():
    """What was asked for is done by whoever takes the next item or dispatch, also when there is none, and outside the lock."""
    backlog, done = Backlog(), []
    backlog.ask(lambda: (done.append("first"), backlog.ask(lambda: done.append("second"))))
    assert backlog.take() is None
    assert done == ["first", "second"]
    backlog.ask(lambda: (done.append("third"), backlog.stop()))
    assert backlog.next() is None
    assert done[-1] == "third"


def test_whoever_waits_can_be_sent_away():
    """A taker that is no longer wanted returns without an item, which the next one gets."""
    backlog, wanted, found = Backlog(), [True], []
    thread = threading.Thread(target=lambda: found.append(backlog.take(lambda: wanted[0], wait=True)))
    thread.start()
    wanted[0] = False
    backlog.nudge()
    thread.join()
    backlog.add(dispatch(1, [1]))
    assert (found, backlog.take(lambda: False), backlog.next(lambda: False)) == ([None], None, None)
    assert backlog.next().dispatch_id == 1


def test_a_taker_that_does_not_wait_is_told():
    """Everything that may matter to it is noticed: more items, errands, the end."""
    noticed = []
    backlog = Backlog(lambda: noticed.append(1))
    for act in (lambda: backlog.add(dispatch(1, [1])), lambda: backlog.ask(int), backlog.nudge, backlog.stop):
        act()
    assert len(noticed) == 4


def test_no_item_is_both_run_and_given_back():
    """Under fire from both ends every item leaves exactly once."""
    count = 20_000
    backlog = Backlog()
    backlog.add(dispatch(1, range(count // 2), range(count // 2, count)))
    given = []

    def release():
        while items := backlog.release(7)[0]:
            given.extend(items[1])

    waiting = backlog.next()
    thread = threading.Thread(target=release)
    thread.start()
    run = []
    for _, items in waiting.slices:
        while items:
            try:
                run.append(items.popleft()[0])
            except IndexError:
                break
    thread.join()
    assert sorted(run + given) == list(range(count))
