"""What a handler may say about its item."""

from __future__ import annotations

import datetime
import pickle

import pytest

import durabatch
from durabatch.errors import UsageError
from durabatch.verdicts import Fail, Retry, Skip, Snooze, Verdict


def test_a_verdict_has_a_reason():
    """The reason is the text of the exception; none is an empty text."""
    assert [str(verdict) for verdict in (Skip("a"), Retry(reason="b"), Snooze(1, "c"), Fail("d"), Fail(None))] == ["a", "b", "c", "d", ""]
    assert all(isinstance(verdict, Verdict) for verdict in (Skip("a"), Retry(), Snooze(1), Fail("d")))
    assert (Skip("a", "do b").remedy, Skip("a").remedy) == ("do b", None)
    assert durabatch.Skip is Skip


@pytest.mark.parametrize(("after", "seconds"), [(5, 5.0), (0.5, 0.5), ("1m30s", 90.0), ("0", 0.0), (datetime.timedelta(hours=1), 3600.0)])
def test_a_delay_is_given_in_any_form(after, seconds):
    """Seconds, a text as options take it, and a timedelta."""
    assert Retry(after=after).after_s == Snooze(after).after_s == seconds


@pytest.mark.parametrize("after", [-1, float("nan"), float("inf"), True, "5x", b"1", [1], 1e12, datetime.timedelta(-1)])
def test_a_delay_that_is_none_is_refused(after):
    """The error stands in the handler's line, with the value."""
    with pytest.raises(UsageError, match=r"Retry\(after\)"):
        Retry(after=after)


def test_no_wish_is_no_delay():
    """Retry without a delay leaves it to the run; a verdict survives what exceptions survive."""
    assert Retry().after_s is None
    assert str(pickle.loads(pickle.dumps(Fail("gone")))) == "gone"
