"""A ledger is a file, and a file may come from anybody: what it names is imported and run only when it is our own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import durabatch
from durabatch.runner.trusting import file_of
from tests.factory import rows, sabotage

JOBS = """
import durabatch, pathlib

class Oops(Exception):
    pass

@durabatch.undo_action("trust-unlink")
def unlink(path):
    pathlib.Path(path).unlink(missing_ok=True)

def work(item, ctx):
    path = pathlib.Path(f"made-{item}").absolute()
    ctx.undo("trust-unlink", path=str(path))
    path.touch()
    if item == "bad" and not pathlib.Path("mended").exists():
        raise ValueError(item)
    return item

def check(item):
    return None
"""
#: A module that leaves a trace where it is imported.
TRACE = "import pathlib\npathlib.Path('imported').touch()\n" + JOBS


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Give a directory with a module ``trustjobs`` on the module path, whose run has a failed item, and stand beside it."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "trustjobs.py").write_text(JOBS)
    (tmp_path / "in.txt").write_text("good\nbad\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(home)
    return home


def run_here(*words, command):
    done = command("run", "trustjobs:work", "in.txt", "--name", "n", "-j", "0", "--durability", "process", *words)
    assert done.code == 1, done.err
    sys.modules.pop("trustjobs", None)


def made_by_stranger():
    """Have the ledger say that another user made it."""
    sabotage("durabatch.db", "UPDATE event SET detail = json_set(detail, '$.uid', 4711, '$.host', 'elsewhere') WHERE kind = 'opened'")


VERBS = [["resume", "n", "--on-change", "ledger"], ["retry", "n"], ["rollback", "n", "--yes"]]


@pytest.mark.parametrize("words", VERBS, ids=lambda words: words[0])
def test_a_ledger_of_somebody_else_names_nothing_that_is_imported(words, place, command):
    """resume, retry and rollback refuse and import nothing; with --trust-ledger they go on."""
    run_here(command=command)
    made_by_stranger()
    (place / "trustjobs.py").write_text(TRACE)
    refused = command(*words, "-j", "0")
    assert (refused.code, Path("imported").exists()) == (2, False)
    assert refused.err.endswith(
        "the ledger was made by user 4711 on elsewhere, and its handler would be run here. Give the handler yourself with --handler "
        "MODULE:FUNCTION, or say --trust-ledger (in Python trust_ledger=True).\n"
    )
    trusted = command(*words, "-j", "0", "--trust-ledger")
    assert trusted.code in (0, 1), trusted.err
    assert words[0] == "resume" or Path("imported").exists()


@pytest.mark.parametrize("words", VERBS, ids=lambda words: words[0])
def test_a_module_that_is_found_elsewhere_now_is_not_imported(words, place, command, tmp_path, monkeypatch):
    """Another file of the same name comes first on the module path: refused, unless the handler is given by hand."""
    run_here(command=command)
    assert json.loads(rows("durabatch.db", "SELECT provenance FROM run")[0][0])["modules"] == {"trustjobs": str(place / "trustjobs.py")}
    other = tmp_path / "other"
    other.mkdir()
    (other / "trustjobs.py").write_text(TRACE)
    monkeypatch.syspath_prepend(other)
    refused = command(*words, "-j", "0")
    assert (refused.code, Path("imported").exists()) == (2, False)
    assert f"module 'trustjobs' was {place}/trustjobs.py when the run was recorded, and would be imported from {other}/trustjobs.py now" in refused.err
    given = command(*words, "-j", "0", "--handler", "trustjobs:work")
    assert given.code in (0, 1), given.err
    assert Path("imported").exists()


@pytest.mark.parametrize(
    ("option", "value", "own"),
    [
        ("--on-end", "touch ran", "true"),
        ("--on-batch", "touch ran", "true"),
        ("--preflight", "trustjobs:check", None),
        ("--retry-on", "trustjobs.Oops", "OSError"),
    ],
)
def test_a_handler_given_by_hand_does_not_bring_the_rest_with_it(option, value, own, place, command):
    """Commands, checks and exceptions that only somebody else's ledger names are not run or imported, either; given here, they are ours."""
    run_here(option, value, command=command)
    Path("ran").unlink(missing_ok=True)
    made_by_stranger()
    refused = command("retry", "n", "-j", "0", "--handler", "trustjobs:work")
    assert (refused.code, Path("ran").exists()) == (2, False)
    assert f"and what it names for {option} would be run here. Give {option} yourself, or say --trust-ledger" in refused.err
    if own is not None:
        Path("mended").touch()
        given = command("retry", "n", "-j", "0", "--handler", "trustjobs:work", option, own)
        assert (given.code, Path("ran").exists()) == (0, False), given.err


def test_where_a_module_would_come_from_is_found_without_importing_it(tmp_path, monkeypatch):
    """Packages, modules in them, and what is not there; nothing is executed on the way."""
    package = tmp_path / "trustpack" / "inner"
    package.mkdir(parents=True)
    for path in (package.parent / "__init__.py", package / "__init__.py", package / "jobs.py"):
        path.write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert file_of("trustpack") == str(package.parent / "__init__.py")
    assert file_of("trustpack.inner.jobs") == str(package / "jobs.py")
    assert [file_of(name) for name in ("trustpack.none", "trustnone.jobs", "trustpack.inner.jobs.deeper", "sys", "durabatch.errors")] == [
        None, None, None, None, sys.modules["durabatch.errors"].__file__
    ]  # fmt: skip


def test_a_transaction_names_the_modules_of_its_actions(place, monkeypatch):
    """Not those of its functions: what undoes it is all that another process needs, and it is looked for where it was."""
    import trustjobs

    with durabatch.Ledger("l.db", durability="process").transaction("T") as tx:
        tx.undo("trust-unlink", path="/nowhere/trust")
        tx.files.mkdir("d")
    handler, provenance = rows("l.db", "SELECT handler, provenance FROM run")[0]
    assert json.loads(handler) == {"kind": "transaction", "modules": [{"kind": "python", "target": "trustjobs:undo_actions"}]}
    assert json.loads(provenance)["modules"] == {"trustjobs": trustjobs.__file__}
    monkeypatch.setattr(trustjobs, "__file__", "/elsewhere/trustjobs.py")
    with pytest.raises(durabatch.UsageError, match=r"would be imported from /elsewhere/trustjobs\.py now"):
        durabatch.Ledger("l.db")["T"].rollback(workers=0)
