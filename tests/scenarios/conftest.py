"""Places for real runs, whose processes end with the test."""

from __future__ import annotations

import pytest

from tests.crash.processes import make_place
from tests.scenarios.stage import make_stage


@pytest.fixture
def place(tmp_path):
    """Give a place; everything that was started in it is ended afterwards."""
    made = make_place(tmp_path)
    yield made
    made.close()


@pytest.fixture
def stage(tmp_path):
    """Give a stage; everything that was started on it is ended afterwards."""
    made = make_stage(tmp_path)
    yield made
    made.close()


@pytest.fixture
def stages(tmp_path):
    """Give a function from names to stages, for runs that go on at the same time; everything on them is ended afterwards."""
    made = []

    def make(*names):
        made.extend(make_stage(tmp_path, name) for name in names)
        return dict(zip(names, made[-len(names) :], strict=True))

    yield make
    for one in made:
        one.close()
