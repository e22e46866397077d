from __future__ import annotations

import contextlib
import os
import stat

import pytest

from durabatch import errors
from durabatch.ledger import statements
from durabatch.ledger.opening import SCHEMA_VERSION, migrate, open_ledger
from tests import factory

FIRST = "-- Notes of people.\nCREATE TABLE note (note_id INTEGER PRIMARY KEY, words TEXT NOT NULL) STRICT;\nINSERT INTO note (words) VALUES ('one');\n"
SECOND = "ALTER TABLE note ADD COLUMN written_at_us INTEGER;\nUPDATE note SET written_at_us = 7;\n"
WRONG = "CREATE TABLE other (a);\nINSERT INTO note (no_such_column) VALUES (1);\n"


@pytest.fixture
def steps(tmp_path):
    """Give a function that writes migrations into a directory and returns them as the opening finds them."""

    def made(*texts):
        folder = tmp_path / "migrations"
        folder.mkdir(exist_ok=True)
        for number, text in enumerate(texts, SCHEMA_VERSION + 1):
            (folder / f"{number:04d}_step.sql").write_text(text)
        (folder / "README.md").write_text("not a migration")
        return statements.migrations(folder)

    return made


def test_missing_steps_are_applied_in_order_after_a_copy(worked, steps):
    """The ledger is at the last version, its rows are all there, and beside it lies a copy from before."""
    before = factory.tables(worked)
    with contextlib.closing(open_ledger(worked)) as ledger:
        migrate(ledger, SCHEMA_VERSION, steps(FIRST, SECOND))
        assert ledger.raw.pragma("user_version") == SCHEMA_VERSION + 2
    after = factory.tables(worked)
    assert after.pop("note") == [(1, "one", 7)]
    assert after == before
    backup = f"{worked}.v{SCHEMA_VERSION}.bak"
    assert factory.tables(backup) == before
    assert stat.S_IMODE(os.stat(backup).st_mode) == 0o600
    assert not [name for name in os.listdir(worked.parent) if ".part" in name]


def test_a_failing_step_leaves_the_version_before_it(worked, steps):
    """The steps before it stay, nothing of it does, and the copy from before is there."""
    with contextlib.closing(open_ledger(worked)) as ledger:
        with pytest.raises(errors.LedgerError):
            migrate(ledger, SCHEMA_VERSION, steps(FIRST, WRONG))
        assert ledger.raw.pragma("user_version") == SCHEMA_VERSION + 1
    names = factory.tables(worked)
    assert "note" in names
    assert "other" not in names
    assert os.path.exists(f"{worked}.v{SCHEMA_VERSION}.bak")


def test_a_failing_first_step_leaves_the_ledger_as_it_was(worked, steps):
    """It can still be opened by the program that knows the old version."""
    before = factory.tables(worked)
    with contextlib.closing(open_ledger(worked)) as ledger, pytest.raises(errors.LedgerError):
        migrate(ledger, SCHEMA_VERSION, steps(WRONG))
    assert factory.tables(worked) == before
    open_ledger(worked).close()


def test_a_step_that_was_done_is_not_done_again(worked, steps):
    """Going on after a failure applies the rest alone."""
    found = steps(FIRST, SECOND)
    with contextlib.closing(open_ledger(worked)) as ledger:
        migrate(ledger, SCHEMA_VERSION, {SCHEMA_VERSION + 1: found[SCHEMA_VERSION + 1]})
        migrate(ledger, SCHEMA_VERSION + 1, found)
        assert ledger.raw.execute("SELECT words, written_at_us FROM note").fetchall() == [("one", 7)]


def test_nothing_missing_means_no_copy(worked):
    """A ledger of the present version is left alone."""
    with contextlib.closing(open_ledger(worked)) as ledger:
        migrate(ledger, SCHEMA_VERSION, {})
    assert not list(worked.parent.glob("*.bak"))


def test_the_version_counts_the_migrations():
    """One more file, one more version; their numbers have no gap."""
    assert list(statements.migrations()) == list(range(2, SCHEMA_VERSION + 1))
