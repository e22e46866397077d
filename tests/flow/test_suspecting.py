from __future__ import annotations

import math
import random

import pytest

from durabatch.flow.suspecting import halved, regroup


@pytest.mark.parametrize(
    ("ids", "halves"), [([], []), ([7], [[7]]), ([1, 2], [[1], [2]]), ([1, 2, 3], [[1, 2], [3]]), (range(4), [[0, 1], [2, 3]])]
)
def test_halves_are_in_order_and_never_empty(ids, halves):
    """One item is a group of its own."""
    assert halved(ids) == halves


@pytest.mark.parametrize(
    ("group", "died", "groups"),
    [
        ([], [5], [[5]]),
        ([], [5, 6, 7], [[5, 6, 7]]),
        ([], [], []),
        ([5], [5], [[5]]),
        ([1, 2, 3, 4], [1, 2, 3, 4], [[1, 2], [3, 4]]),
        ([1, 2, 3, 4], [3], [[3], [1, 2, 4]]),
        ([1, 2, 3, 4], [4, 2], [[4, 2], [1, 3]]),
        ([1, 2, 3, 4], [], [[1, 2], [3, 4]]),
    ],
)
def test_those_that_ran_are_parted_from_those_that_did_not(group, died, groups):
    """The cells narrow the search; where they name all of the group, it is halved."""
    assert regroup(group, died) == groups


def hunt(items, guilty, slots, rng):
    """
    Run suspects as the engine would, until each was seen to succeed or died three times alone.

    A worker runs *slots* items at once. It dies when a guilty one starts; its cells show that one and what else was running.
    """
    groups, deaths, dead_alone, ended, quarantined = [list(items)], 0, {}, set(), set()
    while groups:
        group = groups.pop(0)
        running, rest = group[:slots], group[slots:]
        while running and not guilty & set(running):
            ended.add(running.pop(rng.randrange(len(running))))
            running += [rest.pop(0)] if rest else []
        if not running:
            continue
        deaths += 1
        if len(running) == 1:
            alone = running[0]
            dead_alone[alone] = dead_alone.get(alone, 0) + 1
            if dead_alone[alone] == 3:
                quarantined.add(alone)
                running = []
        groups += regroup([*running, *rest], running) if running else [rest] if rest else []
    return deaths, ended, quarantined


@pytest.mark.parametrize("slots", [1, 2, 16, 1000])
def test_exactly_the_guilty_are_found(slots, seed, scaled):
    """Whatever their number and however many items a worker runs at once, and in few deaths."""
    rng = random.Random(seed)
    for _ in range(scaled(500)):
        items = list(range(1, rng.choice([1, 2, 7, 64, 300]) + 1))
        guilty = set(rng.sample(items, min(len(items), rng.choice([0, 1, 2, 5, 300]))))
        rng.shuffle(items)
        deaths, ended, quarantined = hunt(items, guilty, slots, rng)
        assert quarantined == guilty
        assert ended == set(items) - guilty
        assert deaths <= len(guilty) * (math.ceil(math.log2(len(items))) + 4)


def test_no_item_is_lost_or_doubled(seed, scaled):
    """The groups together hold what was given, and a group that died becomes smaller ones unless it is but one item."""
    rng = random.Random(seed)
    for _ in range(scaled(5000)):
        group = rng.sample(range(1000), rng.randint(0, 30))
        died = rng.sample(group, rng.randint(0, len(group))) if group else rng.sample(range(1000), rng.randint(0, 30))
        groups = regroup(group, died)
        assert sorted(item for one in groups for item in one) == sorted(group or died)
        assert all(one for one in groups)
        assert len(group) <= 1 or max(map(len, groups)) < len(group)
