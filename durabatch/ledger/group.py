"""
Items on their way into groups, in a scratch database: added in any order, read group by group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from durabatch.ledger.executor import BORDER_ERRORS, translate
from durabatch.ledger.scratch import Scratch

__all__ = ["Member", "add", "get", "list_behind", "make"]


#: An item: the key of its group, the value (JSON text) that the group is named after if it is the first of it, its place, its payload.
Member = tuple[str, str, int, str]


def make(scratch: Scratch) -> None:
    """Make room for groups."""
    scratch.execute("group_make")


def add(scratch: Scratch, members: Iterable[Member]) -> None:
    """Put items into their groups; a group that is not there yet becomes the last one. Members are numbered from 1."""
    scratch.executemany("group_add", members)


def list_behind(scratch: Scratch, first_id: int) -> Iterator[tuple[int, str]]:
    """
    Yield (number of its group's first member, payload) of the members of all groups behind the one that begins with *first_id*.

    Groups come as their first members did, members of a group as well.
    """
    cursor = scratch.execute("group_list_behind", (first_id,))
    try:
        yield from cursor
    except BORDER_ERRORS as error:
        raise translate(error, scratch.files.ledger) from error


def get(scratch: Scratch, first_id: int) -> tuple[str, str, int]:
    """Return key, value (JSON text) and place of the group that begins with the member *first_id*."""
    key, value, position = scratch.row("group_get", (first_id,)) or ("", "null", 0)
    return key, value, position
