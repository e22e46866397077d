"""The results of an earlier run as input: ``run:NAME``."""

import contextlib
import os
import shutil

import pytest

import durabatch
from durabatch.errors import InputError, NotALedgerError, UsageError
from durabatch.intake.open import open_source
from durabatch.ledger.opening import open_ledger
from tests import factory
from tests.intake.conftest import read_all

#: What succeeded in the run "jobs" of a worked ledger.
SUCCEEDED = [f"k{number}" for number in range(1, 26) if number != 4]


@pytest.fixture(scope="module")
def worked(tmp_path_factory):
    """Give a ledger with a finished run "jobs", one item of which failed, and a half done one "other"."""
    path = tmp_path_factory.mktemp("worked") / "jobs.db"
    factory.worked_ledger(path)
    return path


@pytest.fixture
def ledger(worked, tmp_path, monkeypatch):
    """Give a copy of it, called ``jobs.db``, where the test stands."""
    monkeypatch.chdir(tmp_path)
    for path in worked.parent.glob("jobs.db*"):
        shutil.copy(path, tmp_path)
    return "jobs.db"


def test_what_succeeded_comes_with_its_key_in_input_order(ledger, read):
    """Inline and packed values alike; what failed or has not run is left out; positions count the results."""
    got = read("run:jobs", ledger=ledger)
    assert (got.problem, got.done, got.keys) == (None, True, SUCCEEDED)
    assert got.values == [f"{key}!" for key in SUCCEEDED]
    assert got.positions == [*range(1, 25)]
    assert read("run:other", ledger=ledger).keys == ["k1", "k2", "k3", "k4"]


def test_a_run_of_another_ledger(ledger, read):
    """Named behind an @, by path; also from Python, where the run's own ledger need not be there yet."""
    assert read(f"run:jobs@{ledger}").keys == SUCCEEDED
    assert read(f"run:other@./{ledger}", ledger="new.db").keys == ["k1", "k2", "k3", "k4"]
    assert read_all(open_source(durabatch.results_of("jobs", ledger=ledger, limit=None))).keys == SUCCEEDED
    assert durabatch.results_of("jobs").inputs == ("run:jobs",)


def test_a_name_may_hold_an_at(ledger, read):
    """A run of our own ledger that is called so comes first."""
    with contextlib.closing(open_ledger(ledger)) as opened:
        run = factory.run_of(opened, 3, series="a@jobs.db")
        factory.work_off(opened, run)
    assert read("run:a@jobs.db", ledger=ledger).keys == ["k1", "k2", "k3"]
    assert read("run:a@jobs.db@jobs.db", ledger=ledger).keys == ["k1", "k2", "k3"]


def test_reading_goes_on_behind_any_result(ledger, read_with_crashes, read):
    """Each result once, whatever the size of the pages, with a list behind them; the run has been chosen once."""
    with open("more.txt", "w") as file:
        file.write("x\ny\n")
    whole = read("run:jobs", "more.txt", ledger=ledger)
    assert whole.positions == [*range(1, 27)]
    for size in (1, 5):
        assert read_with_crashes("run:jobs", "more.txt", ledger=ledger, max_items=size).rows == whole.rows
    page = next(open_source(["run:jobs"], ledger=ledger).pages(None, max_items=5, max_bytes=1 << 20))
    with contextlib.closing(open_ledger(ledger)) as opened:
        factory.work_off(opened, factory.run_of(opened, 2))
    rest = read_all(open_source(["run:jobs"], ledger=ledger), position=page.position)
    assert [row[0] for row in page.rows] + rest.keys == SUCCEEDED
    assert read("run:jobs", ledger=ledger).keys == ["k1", "k2"]


def test_a_run_has_no_fingerprint_and_can_be_read_again(ledger):
    """New results may have come, so it is always compared."""
    source = open_source(["run:jobs"], ledger=ledger)
    assert source.repeatable
    assert source.fingerprint() is None
    assert len(read_all(source).rows) == len(read_all(source).rows) == 24


def test_a_run_that_is_not_finished_is_spoken_of(ledger):
    """The results so far are read."""
    notes = []
    open_source(["run:other"], ledger=ledger, notes=notes.append)
    assert notes == ["run other is running: the results that it has by now are read"]


@pytest.mark.parametrize(
    ("inputs", "options", "kind", "sentence"),
    [
        (
            ["run:nobody"],
            {"ledger": "jobs.db"},
            InputError,
            "cannot read run:nobody: no run 'nobody' in this ledger. There are: jobs, other.",
        ),
        (["run:jobs@nowhere.db"], {"ledger": "jobs.db"}, InputError, "cannot read run:jobs@nowhere.db: there is no ledger nowhere.db"),
        (["run:jobs"], {"ledger": "new.db"}, InputError, "cannot read run:jobs: there is no ledger new.db"),
        (["run:jobs"], {}, UsageError, "run:jobs: it does not say which run of which ledger. Give run:NAME or run:NAME@LEDGER."),
        (["run:"], {"ledger": "jobs.db"}, UsageError, "run:: it does not say which run of which ledger"),
        (["run:jobs@list.txt"], {"ledger": "jobs.db"}, NotALedgerError, "list.txt: is not a durabatch ledger"),
        (["run:jobs"], {"ledger": "jobs.db", "series": "jobs"}, UsageError, "run:jobs: a run cannot read the results of its own series"),
        (["run:jobs@./jobs.db"], {"ledger": "jobs.db", "series": "jobs"}, UsageError, "a run cannot read the results of its own series"),
        (["run:jobs"], {"ledger": "jobs.db", "format": "csv"}, UsageError, "--format csv is not for run:jobs"),
        (["run:jobs"], {"ledger": "jobs.db", "key": "x"}, UsageError, "--key 'x' needs records: results keep the keys of their items"),
        (["run:jobs"], {"ledger": "jobs.db", "include": ("*",)}, UsageError, "--include is for files as items, the input is run"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(ledger, tmp_path, inputs, options, kind, sentence):
    """Before the run starts; no file is made."""
    (tmp_path / "list.txt").write_text("no ledger\n" * 100)
    with pytest.raises(kind) as caught:
        open_source(inputs, **options)
    assert sentence in str(caught.value)
    assert type(caught.value) is kind
    assert not (tmp_path / "new.db").exists()


def test_a_ledger_that_another_one_has_replaced_is_a_problem_of_the_input(ledger, read):
    """Its run is not read in the place of the one that was meant, and a ledger that is gone is said to be."""
    source = open_source(["run:other"], ledger=ledger)
    page = next(source.pages(None, max_items=2, max_bytes=1 << 20))
    for name in ("jobs.db", "jobs.db-wal", "jobs.db-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
    assert str(read_all(source, position=page.position).problem).startswith("cannot read run:other: there is no ledger jobs.db")
    with contextlib.closing(open_ledger(ledger, create=True)) as opened:
        factory.run_of(opened, 3)
    assert str(read_all(source, position=page.position).problem) == "run:other: the run that was read before is not in the ledger any more"


def test_values_that_cannot_be_items_are_named(ledger, read):
    """Damaged ones and such that are too large; they can be left out."""
    factory.sabotage(
        ledger, "UPDATE segment SET data = zeroblob(20)", "UPDATE result SET value = '\"' || hex(zeroblob(60)) || '\"' WHERE item_id = 9"
    )
    got = read("run:jobs", ledger=ledger, max_item_bytes=100)
    assert (got.keys, got.done) == (["k1"], False)
    assert str(got.problem).startswith("run:jobs: item 'k2': jobs.db: result of item 'k2' is damaged")
    errors = []
    got = read("run:jobs", ledger=ledger, max_item_bytes=100, skip_bad=lambda error: errors.append(str(error)) or True)
    assert got.keys == [key for key in SUCCEEDED if key not in {"k2", "k3", "k9", "k12"}]
    assert errors[2] == "run:jobs: item 'k9': item larger than 100 bytes (--max-item-bytes)"
    assert len(errors) == 4


def test_one_run_feeds_the_next(tmp_path, monkeypatch, command):
    """Results of a run, grouped, are the items of another one in the same ledger; new results of it are a change of its input."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs.py").write_text(
        "def read(item):\n    return {'region': item['region'], 'n': int(item['n'])}\n\n"
        "def add(group):\n    return sum(one['n'] for one in group['items'])\n"
    )
    (tmp_path / "rows.csv").write_text("id,region,n\na,north,1\nb,south,2\nc,north,3\n")
    words = ("run", "jobs.py:add", "run:one", "--group-by", "region", "--name", "two", "-j", "0", "--progress", "none")
    missing = command(*words)
    assert (missing.code, missing.err.partition(".db")[0]) == (2, "durabatch: cannot read run:one: there is no ledger durabatch")
    assert command("run", "jobs.py:read", "rows.csv", "--name", "one", "-j", "0", "--progress", "none").code == 0
    assert command(*words).code == 0
    assert command("results", "two").out == '{"key":"north","value":4}\n{"key":"south","value":2}\n'
    assert "nothing to do" in command(*words).err
    refused = command("run", "jobs.py:add", "run:one", "--name", "one", "-j", "0")
    assert (refused.code, refused.err) == (
        2, "durabatch: run:one: a run cannot read the results of its own series. Give the new run another --name.\n",
    )  # fmt: skip
    (tmp_path / "rows.csv").write_text("id,region,n\na,north,1\nb,south,2\nc,north,3\nd,south,5\n")
    assert command("run", "jobs.py:read", "rows.csv", "--name", "one", "-j", "0", "--progress", "none", "--on-change", "merge").code == 0
    assert command(*words).code == 2
    assert command(*words, "--on-change", "merge").code == 0
    assert command("results", "two").out == '{"key":"north","value":4}\n{"key":"south","value":7}\n'
