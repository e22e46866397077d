"""Errors of one kind have one text."""

from __future__ import annotations

import pytest

from durabatch.workers.grouping import MAX_GROUP_CHARACTERS, group_of


@pytest.mark.parametrize(
    ("message", "folded"),
    [
        ("503 for https://h1/users/17?page=2", "<n> for https://h1/users/<n>"),
        ("see https://me:secret@h:80/a%20b/c#f.", "see https://h:80/<n>/c."),
        ("'Gustav'", "<text>"),
        ("can't open 'x y', it's bad", "can't open <text>, it's bad"),
        ('"a \\" b" or `c`', "<text> or <text>"),
        ("cannot open /srv/in/0815.csv: no such file", "cannot open <path>: no such file"),
        ("../a/b and ~/c and C:\\tmp\\x", "<path> and <path> and <path>"),
        ("<obj at 0x7f33aa12>", "<obj at <hex>>"),
        ("id 123e4567-e89b-12d3-a456-426614174000 gone", "id <id> gone"),
        ("sha da39a3ee5e6b4b0d of facade", "sha <hex> of facade"),
        ("took 12.5 s, 1,234 items, -3, 1e10, item42", "took <n> s, <n> items, <n>, <n>, item<n>"),
        ("line 1\n  line 2", "line <n> line <n>"),
        ("either/or stays", "either/or stays"),
    ],
)
def test_what_varies_is_folded(message, folded):
    """Numbers, names, ids, paths and the changing parts of URLs become placeholders; words stay."""
    assert group_of("E", message) == f"E: {folded}"


def test_a_group_is_short_whatever_the_message():
    """Huge messages, and such as would make a pattern slow, give a short text quickly; no message leaves the type."""
    assert group_of("E", "") == "E"
    for message in ("x" * 10**7, "'" * 10**6, '"\\' * 10**6, "1," * 10**6, "a.+" * 10**6, "/" * 10**6):
        assert len(group_of("E", message)) <= MAX_GROUP_CHARACTERS
