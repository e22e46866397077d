from __future__ import annotations

import contextlib

import pytest

from durabatch.engine.verify import verify
from durabatch.ledger.opening import open_ledger
from tests import factory


@pytest.fixture
def path(tmp_path):
    """Give the path of the ledger."""
    return tmp_path / "l.db"


@pytest.fixture
def ledger(path):
    """Give an open, empty ledger; whatever a test did to it by verbs, every rule must hold at the end."""
    with contextlib.closing(open_ledger(path, create=True, durability="process")) as connection:
        yield connection
        assert verify(connection) == []


@pytest.fixture
def worked(tmp_path):
    """Give the path of a ledger with a done and a half done run, closed."""
    factory.worked_ledger(tmp_path / "worked.db")
    return tmp_path / "worked.db"
