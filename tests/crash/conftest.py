"""A place for real runs, whose processes end with the test."""

from __future__ import annotations

import pytest

from tests.crash.processes import make_place


@pytest.fixture
def place(tmp_path):
    """Give a place; everything that was started in it is ended afterwards."""
    made = make_place(tmp_path)
    yield made
    made.close()
