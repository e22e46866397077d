from __future__ import annotations

import contextlib

import pytest

from durabatch.ledger.opening import open_ledger
from tests import factory


@pytest.fixture
def path(tmp_path):
    """Give the path of a ledger that is not there yet."""
    return tmp_path / "l.db"


@pytest.fixture
def worked(path):
    """Give the path of a ledger with a done and a half done run, closed."""
    factory.worked_ledger(path)
    return path


@pytest.fixture
def ledger(path):
    """Give an open, empty ledger."""
    with contextlib.closing(open_ledger(path, create=True)) as connection:
        yield connection
