"""What waits in a worker: in order, given back from the end, each item exactly once."""

from __future__ import annotations

import threading

from durabatch.workers.backlog import Backlog
from durabatch.workers.protocol import Dispatch, Group


def dispatch(dispatch_id, *batches):
    return Dispatch(dispatch_id, [Group(index, [(item, 1, str(item), "1") for item in items]) for index, items in enumerate(batches, 1)])


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
