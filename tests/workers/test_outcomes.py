"""What is finished and not yet sent: added by one thread, taken by any, each once."""

from __future__ import annotations

import threading

from durabatch.codec import unpack_frame
from durabatch.workers.outcomes import FRAME_BYTES, Outcomes


def work(item_id):
    return (item_id, 1, f"k{item_id}", "1")


def test_what_was_taken_is_gone():
    """Outcomes are taken once, in the order in which they were added."""
    outcomes = Outcomes(3, 10, 9)
    assert not outcomes
    outcomes.succeed(1, work(1), 5, 6, "11")
    outcomes.succeed(1, work(2), 7, 8, "22")
    assert outcomes
    assert outcomes.take(finished=True).succeeded == [(1, 1, 3, 5, 6, "11"), (2, 1, 3, 7, 8, "22")]
    assert not outcomes
    assert outcomes.take(finished=False).succeeded == []


def test_the_inline_limit_counts_bytes():
    """A text within the limit in characters and beyond it in bytes is packed."""
    outcomes = Outcomes(1, 6)
    outcomes.succeed(4, work(1), 0, 0, '"éé"')
    outcomes.succeed(4, work(2), 0, 0, '"ééé"')
    outcomes.succeed(5, work(3), 0, 0, '"abcdefg"')
    flush = outcomes.take(finished=True)
    assert [success[0] for success in flush.succeeded] == [1]
    assert [(entry[0], entry[5:]) for entry in flush.packed] == [(2, (0, 0, 8)), (3, (1, 0, 9))]
    assert [unpack_frame(frame.data, raw_bytes=frame.raw_bytes, limit_bytes=99).decode() for frame in flush.frames] == [
        '"ééé"',
        '"abcdefg"',
    ]


def test_a_frame_holds_what_is_read_with_one_value():
    """Values of two batches, and one that is larger than a frame: it has its own, and no other frame holds more than its share."""
    outcomes, third = Outcomes(1, 10), "x" * (FRAME_BYTES // 3)
    values = {number: f'"{number}{"y" * FRAME_BYTES if number == 4 else third}"' for number in range(12)}
    for number, value in values.items():
        outcomes.succeed(number % 2, work(number), 0, 0, value)
    flush = outcomes.take(finished=True)
    raw = [unpack_frame(frame.data, raw_bytes=frame.raw_bytes, limit_bytes=1 << 20).decode() for frame in flush.frames]
    assert {entry[0]: raw[entry[5]][entry[6] : entry[6] + entry[7]] for entry in flush.packed} == values
    assert [flush.frames[entry[5]].batch_id for entry in flush.packed] == [number % 2 for number in values]
    assert raw.count(values[4]) == 1
    assert all(len(one) <= FRAME_BYTES for one in raw if one != values[4])
    assert len(raw) == 7


def test_nothing_is_lost_or_doubled_between_two_threads():
    """Whatever one thread adds while another takes is taken exactly once, small and big values alike."""
    outcomes, count, found = Outcomes(1, 10), 50_000, []
    done = threading.Event()

    def take():
        while not done.is_set() or outcomes:
            flush = outcomes.take(finished=False)
            found.extend(success[0] for success in flush.succeeded)
            found.extend(entry[0] for entry in flush.packed)

    thread = threading.Thread(target=take)
    thread.start()
    for item_id in range(count):
        outcomes.succeed(1, work(item_id), 0, 0, "1" if item_id % 50 else '"a value beyond the limit"')
    done.set()
    thread.join()
    assert sorted(found) == list(range(count))
