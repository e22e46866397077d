from __future__ import annotations

import json

import pytest

from durabatch.models import Result
from durabatch.output.lines import result_line

GOOD = Result("kö\n", "succeeded", None, 2, '{"a":[1,2]}')
BAD = Result("k2", "failed", "ValueError: no", 1, None)


def test_a_line_has_key_and_value():
    """Nothing else unless it is asked for, and no line break whatever the key."""
    assert result_line(GOOD) == '{"key":"kö\\n","value":{"a":[1,2]}}'


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (GOOD, {"key": "kö\n", "value": {"a": [1, 2]}, "state": "succeeded", "attempts": 2, "error": None}),
        (BAD, {"key": "k2", "value": None, "state": "failed", "attempts": 1, "error": "ValueError: no"}),
    ],
)
def test_all_adds_state_attempts_and_error(result, expected):
    """Every member is there for every item, null where there is nothing."""
    assert json.loads(result_line(result, all=True)) == expected
