"""When something is due, as people and programs write it."""

from __future__ import annotations

import datetime

import pytest

from durabatch.due import due_at_us
from durabatch.errors import UsageError

NOW = 1_800_000_000_000_000
INSTANT = datetime.datetime(2027, 3, 1, 8, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("due", "expected"),
    [
        ("0", NOW),
        ("1m30s", NOW + 90_000_000),
        ("2027-03-01T08:00+00:00", 1_803_888_000_000_000),
        (INSTANT, 1_803_888_000_000_000),
        (INSTANT.astimezone().replace(tzinfo=None), 1_803_888_000_000_000),
        (datetime.timedelta(hours=1), NOW + 3_600_000_000),
    ],
)
def test_an_instant_or_a_time_from_now_on(due, expected):
    """A date and time without a zone is one of this place."""
    assert due_at_us(due, NOW) == expected


@pytest.mark.parametrize("due", ["soon", "10", "2027-13-01", "", datetime.timedelta(days=-30000), datetime.timedelta(days=3_000_000)])
def test_anything_else_is_refused(due):
    """With the forms that there are, or because no clock shows it."""
    with pytest.raises(UsageError, match="--due: "):
        due_at_us(due, NOW, option="--due")
