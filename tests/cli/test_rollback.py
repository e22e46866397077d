"""``rollback``: looked at, agreed to, done, and told; ``transactions``, and the line that warns about those left open."""

from __future__ import annotations

import io
import json
import os
import sys

import pytest

import durabatch
from durabatch.cli import rollback
from durabatch.cli.undone import rollback_lines, undone_lines
from durabatch.engine.rollback import Scope
from durabatch.ledger.locks import Ownership
from durabatch.ledger.paths import ledger_files
from durabatch.models import Counts, RolledBack, RunStatus, Summary, Unresolved

JOBS = """
import os
import durabatch

@durabatch.undo_action("cli-rmdir")
def rmdir(path):
    if os.path.exists("stuck") and path.endswith("d5"):
        raise OSError("stuck")
    if os.path.isdir(path):
        os.rmdir(path)

@durabatch.undo_action("cli-mail", irreversible=True)
def mail(to):
    raise AssertionError(to)

def lose(item, ctx):
    ctx.undo("cli-mail", to="bob")
    raise ValueError(item)

def work(item, ctx):
    ctx.undo("cli-rmdir", path=os.path.abspath(f"d{item}"))
    os.mkdir(f"d{item}")
    if item == "6":
        ctx.undo("cli-mail", to="ann")
    return item
"""
QUICK = ("--durability", "process", "--progress", "none")


@pytest.fixture
def done(tmp_path, monkeypatch, command):
    """Give a directory where six directories were made by a run of three batches, and stand in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DURABATCH_LEDGER", raising=False)
    (tmp_path / "rolljobs.py").write_text(JOBS)
    (tmp_path / "in.txt").write_text("1\n2\n3\n4\n5\n6\n")
    ran = command("run", "rolljobs.py:work", "in.txt", "--name", "n", "-j", "0", "--batch-size", "2", *QUICK)
    assert (ran.code, folders(tmp_path)) == (0, ["d1", "d2", "d3", "d4", "d5", "d6"]), ran.err
    return tmp_path


def folders(place):
    return sorted(path.name for path in place.iterdir() if path.name[0] == "d" and path.is_dir())


def steps(text):
    """The lines of a list of steps, without what differs from test to test."""
    return [line.split()[:6] for line in text.splitlines()[1:]]


# -- looking --------------------------------------------------------------------------------------------------------------------


def test_a_dry_run_lists_the_steps_in_order(done, command):
    """Newest first, numbered; what cannot be undone stands where it was, without a number. Nothing is changed, whoever has the ledger."""
    owner = Ownership(ledger_files("durabatch.db"), {"pid": 4711, "run": "n"})
    try:
        listed = command("rollback", "--dry-run")
        some = command("rollback", "n", "--dry-run", "--to-batch", "1", "--item", "4", "--item", "1", "--json")
    finally:
        owner.release()
    assert (listed.code, listed.err) == (0, "rollback would run 6 actions, 1 effect cannot be undone\n")
    assert listed.out.splitlines()[0].split() == ["step", "item", "batch", "attempt", "action", "state", "arguments"]
    assert steps(listed.out)[0][:5] == ["6", "3", "1", "cli-mail", "irreversible"]
    assert steps(listed.out)[1:] == [
        [str(7 - number), str(number), str((number + 1) // 2), "1", "cli-rmdir", "recorded"] for number in range(6, 0, -1)
    ]
    document = json.loads(some.out)
    assert (document["schema_version"], document["run"], len(document["steps"])) == (1, "n", 1)
    (step,) = document["steps"]
    assert (step["key"], step["batch"], step["attempt"], step["state"]) == ("4", 2, 1, "recorded")
    assert step["arguments"] == {"path": str(done / "d4")}
    assert folders(done) == ["d1", "d2", "d3", "d4", "d5", "d6"]


def test_nothing_is_undone_that_nobody_agreed_to(done, command, monkeypatch):
    """Without a terminal --yes is needed; with one the question is asked, and no means no."""
    refused = command("rollback", "n")
    assert (refused.code, refused.err) == (2, "durabatch: rollback would run 6 actions. Add --yes, or --dry-run to list them.\n")
    monkeypatch.setattr(rollback, "carry_out", lambda request, _wishes: asked.append(request) or 0)
    asked = []
    for answer, code in (("n\n", 1), ("y\n", 0)):
        terminal = io.StringIO(answer)
        monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
        monkeypatch.setattr(sys, "stdin", terminal)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        told = command("rollback", "n")
        assert (told.code, "nothing was undone" in told.err) == (code, code == 1)
        assert "n: run 6 actions to undo what was done; 1 effect cannot be undone? [y/N]" in told.err + told.out
    assert len(asked) == 1


def test_an_active_run_is_left_alone(done, command):
    """Whoever works with the ledger is named, before anybody is asked."""
    owner = Ownership(ledger_files("durabatch.db"), {"pid": 4711, "run": "n"})
    try:
        refused = command("rollback", "--yes")
    finally:
        owner.release()
    assert (refused.code, refused.err) == (4, "durabatch: durabatch.db: run n is active (pid 4711). Stop it first.\n")


def test_what_remains_is_listed_though_nothing_could_be_undone(done, command):
    """By the run that left it, and by the one after it that finds nothing to do."""
    for _ in range(2):
        told = command("run", "rolljobs.py:lose", "in.txt", "--limit", "1", "--name", "lost", "-j", "0", *QUICK)
        assert told.code == 1
        assert told.err.startswith('effects remain:\n  irreversible: cli-mail {"to":"bob"} of 1, batch 1, attempt 1\n')


def test_what_an_earlier_rollback_has_left_is_told(done, command, monkeypatch):
    """It is done with whatever is chosen now, so nobody is to be surprised by it; of all of the run it is a part."""
    monkeypatch.setattr("durabatch.ledger.undo.count_wanted", lambda _ledger, _run_id: (2, 0))
    told = command("rollback", "n", "--item", "1", "--dry-run")
    assert told.err.startswith("durabatch: 2 steps of an earlier rollback are left: a rollback goes on with that, whatever is chosen\n")
    assert "earlier" not in command("rollback", "n", "--dry-run").err


REFUSED = [
    (["n", "--transaction", "T", "--yes"], "RUN and --transaction exclude each other. Give one of them."),
    (["--batch", "1", "--to-batch", "1", "--yes"], "--batch and --to-batch exclude each other. Give one of them."),
    (["--batch", "1", "--batch", "2", "--yes"], "--batch was given 2 times. Give it once."),
    (["--batch", "0", "--yes"], "--batch: '0' is not a whole number >= 1"),
    (["--json", "--yes"], "--json: goes with --dry-run. --progress json tells how a rollback goes."),
    (["--transaction", "T", "--yes"], "no transaction 'T' in this ledger. `durabatch transactions` lists them."),
    (["m", "--yes"], "no run 'm' in this ledger. There are: n."),
    (["--batch", "9", "--yes"], "no batch 9 in this run"),
    (["--item", "x", "--yes"], "no item 'x' in this run"),
    (["--where", "nope = 1", "--dry-run"], "sql: no such column: nope"),
]


def test_what_cannot_be_meant_is_refused(done, command):
    """One line each, exit code 2, and everything stays as it was."""
    for words, error in REFUSED:
        refused = command("rollback", *words)
        assert (refused.code, len(refused.err.splitlines())) == (2, 1), words
        assert error in refused.err
    assert len(folders(done)) == 6


# -- doing ----------------------------------------------------------------------------------------------------------------------


def test_a_rollback_undoes_tells_what_remains_and_goes_on(done, command):
    """In part; stopped by a step that fails, which is listed; again without what kept it; and a further time there is nothing to do."""
    part = command("rollback", "n", "--batch", "1", "--yes", "-j", "0", *QUICK)
    assert (part.code, folders(done)) == (0, ["d3", "d4", "d5", "d6"])
    assert "n: undone: 2 items, 2 effects in" in part.err
    assert "next:    `durabatch retry n --undone` runs what is undone again\n" in part.err
    (done / "stuck").touch()
    stopped = command("rollback", "n", "--yes", "-j", "0", "--backoff", "0", *QUICK)
    assert (stopped.code, folders(done)) == (1, ["d3", "d4", "d5"])
    assert f'  failed: cli-rmdir {{"path":"{done}/d5"}} of 5, batch 3, attempt 1: OSError: stuck\n' in stopped.err
    assert '  irreversible: cli-mail {"to":"ann"} of 6, batch 3, attempt 1\n' in stopped.err
    assert "next:    the same command again goes on with what remains; --keep-going goes on with the other items\n" in stopped.err
    kept_going = command("rollback", "n", "--yes", "-j", "0", "--keep-going", "--backoff", "0", *QUICK)
    assert (kept_going.code, folders(done)) == (1, ["d5"])
    (done / "stuck").unlink()
    # In a worker process, which imports the module of the run.
    last = command("rollback", "n", "--yes", *QUICK)
    assert (last.code, folders(done)) == (1, [])
    assert "n: rolled back: 1 item, 1 effect in" in last.err and last.err.endswith("; 1 effect remains\n")
    again = command("rollback", "n", "--yes", "--durability", "process", "--progress", "json")
    assert again.code == 1
    end = json.loads(again.err.splitlines()[-1])
    assert (end["event"], end["rolled_back"]["steps"], end["rolled_back"]["unresolved"][0]["state"]) == ("end", 0, "irreversible")
    assert command("status", "n").out.splitlines()[0].endswith("rolled_back")
    rerun = command("retry", "n", "--undone", "-j", "0", *QUICK)
    assert (rerun.code, len(folders(done))) == (0, 6), rerun.err


def test_only_workers_that_are_typed_say_that_items_do_not_depend_on_each_other(done, command, monkeypatch):
    """A file or a profile means the workers of runs. Everything else that is asked for reaches the request."""
    asked = []
    monkeypatch.setattr(rollback, "carry_out", lambda request, _wishes: asked.append(request) or 0)
    (done / "durabatch.toml").write_text("workers = 8\n[profile.big]\nworkers = 9\nretries = 7\n")
    for words in ([], ["--profile", "big"], ["-j", "1"], ["-j", "3"], ["-j", "0"]):
        assert command("rollback", "n", "--yes", *words).code == 0
    assert [(one.in_order, one.overrides["workers"]) for one in asked] == [(True, 1), (True, 1), (True, 1), (False, 3), (True, 0)]
    assert asked[1].overrides["max_attempts"] == 8
    words = ["--item", "4", "--where", "batch = 2", "--batch", "2", "--force", "--keep-going", "--handler", "rolljobs.py:work", "--trust-ledger"]
    assert command("rollback", *words, "--timeout", "5s", "--yes").code == 0
    last = asked[-1]
    assert last.scope == Scope(batch=2, keys=("4",), where="batch = 2")
    assert (last.verb, last.run, last.force, last.keep_going, last.trust_ledger) == ("rollback", 1, True, True, True)
    assert (last.handler["target"], last.overrides["timeout"]) == (f"{done}/rolljobs.py:work", "5s")


def test_a_run_whose_handler_only_its_program_had_needs_to_be_told_where_the_actions_are(done, command):
    """Refused before anything is changed; with --handler it is done. Changes of files need nothing."""
    sys.path.insert(0, str(done))
    import rolljobs

    ledger = durabatch.Ledger("here.db", durability="process")
    ledger.run(lambda item, ctx: rolljobs.work(item, ctx), ["7"], name="here", workers=0)
    ledger.run(lambda item, ctx: ctx.files.mkdir(f"d{item}"), ["8"], name="files", workers=0)
    refused = command("rollback", "here", "--ledger", "here.db", "--yes")
    assert refused.code == 2
    assert "has no importable name, so the module of its undo actions is not known. Name it with --handler" in refused.err
    assert {"d7", "d8"} <= set(folders(done))
    for words in (["here", "--handler", "rolljobs:work"], ["files"]):
        undone = command("rollback", *words, "--ledger", "here.db", "--yes", "-j", "0", *QUICK)
        assert undone.code == 0, undone.err
    assert len(folders(done)) == 6


# -- transactions ---------------------------------------------------------------------------------------------------------------


def leave_open(name):
    """Have a transaction of this ledger left by a program that is gone."""
    child = os.fork()
    if child == 0:
        with durabatch.Ledger("durabatch.db", durability="process").transaction(name) as tx:
            tx.files.mkdir(f"d-{name}")
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_transactions_are_listed_and_those_left_open_are_warned_about(done, command):
    """By every verb that runs or shows something, in one line; rolled back by their id, also from another process, and never meant without it."""
    assert command("transactions").err == "the ledger holds no transaction\n"
    leave_open("T-1")
    warning = "durabatch: transaction T-1 is open and its program is gone: `durabatch rollback --transaction T-1` undoes it\n"
    for words in (["status"], ["runs"], ["run", "rolljobs.py:work", "in.txt", "--name", "n", "-j", "0"], ["resume", "-j", "0"]):
        told = command(*words)
        assert (told.code, told.err.count(warning)) == (0, 1), words
    assert warning not in command("status", "T-1").err
    leave_open("T-2")
    assert "2 transactions are open and their programs are gone (T-1, T-2): `durabatch transactions` lists them\n" in command("runs").err
    with durabatch.Ledger("durabatch.db", durability="process").transaction("T-3"):
        listed = command("transactions")
        assert json.loads(command("transactions", "--json").out)["transactions"][2]["owner"]["pid"] == os.getpid()
    assert [line.split("  ")[0] for line in listed.out.splitlines()[1:]] == ["T-1", "T-2", "T-3"]
    assert "T-1  open (abandoned)      1  1 recorded" in listed.out
    assert f"pid {os.getpid()} on " in listed.out.splitlines()[-1]
    assert listed.err.count("next: `durabatch rollback --transaction T-") == 2
    assert command("rollback", "--transaction", "T-2", "--dry-run").err == "rollback would run 1 action\n"
    undone = command("rollback", "--transaction", "T-1", "--yes", *QUICK)
    assert (undone.code, folders(done)[:2]) == (0, ["d-T-2", "d1"])
    assert "T-1: rolled back: 1 item, 1 effect in" in undone.err
    assert "T-2 is open and its program is gone" in undone.err
    assert command("rollback", "T-2", "--yes", "-j", "0", *QUICK).code == 0
    states = [one["state"] for one in json.loads(command("transactions", "--json").out)["transactions"]]
    assert states == ["rolled_back", "rolled_back", "committed"]
    assert command("status").err == ""


# -- words ----------------------------------------------------------------------------------------------------------------------


def summary_of(state, rolled_back, *, exit_code=0, undone=0, reason=None):
    counts = Counts(total=10, succeeded=10 - undone, undone=undone)
    found = RunStatus(
        run_id=1, name="n", state=state, reason=reason, handler="", counts=counts, batch_count=1, attempt_count=1, intake_complete=True,
        items_per_s=0.0, eta_s=None, started_at=None, finished_at=None, elapsed_s=0.0, binding_limit=None, exit_code=exit_code,
    )  # fmt: skip
    return Summary(found, (), exit_code, 0, 0, (0, 0), None, 0.0, None, 0.0, rolled_back=rolled_back)


def test_the_summary_says_what_is_undone_and_hides_nothing():
    """Long arguments and errors are cut, control characters shown, and what is not listed is counted."""
    odd = Unresolved("k\x1b", None, 2, "act", '{"a":"' + "x" * 300 + '"}', "recorded", None)
    lines = rollback_lines(summary_of("halted", RolledBack(3, 5, 4, 30, (odd,)), exit_code=1, undone=3), ledger="l.db", took_s=1.0)
    assert (lines[0], lines[2]) == ("effects remain:", "  and 29 more")
    assert lines[1].startswith("  not undone: act ")
    assert lines[1].endswith(" of k\\x1b, attempt 2")
    assert len(lines[1]) < 200
    assert lines[-1] == "n: undone: 3 items, 5 effects (1 of them needed no action) in 1.0 s; 30 effects remain"
    stopped = summary_of("halted", RolledBack(1, 1, 1), exit_code=130, undone=1, reason="stopped by SIGINT")
    assert rollback_lines(stopped, ledger="l.db", took_s=1.0) == [
        "next:    the same command again goes on with what remains", "n: stopped by SIGINT; undone: 1 item, 1 effect in 1.0 s"
    ]  # fmt: skip
    assert rollback_lines(summary_of("rolled_back", RolledBack(0, 0, 0), undone=10), ledger="l.db", took_s=1.0) == [
        "n: nothing to undo: 10 items undone, 0 succeeded"
    ]
    assert undone_lines(summary_of("finished", None)) == []
    assert undone_lines(summary_of("finished", RolledBack(2, 2, 2), undone=2)) == ["undone:  2 items, 2 effects"]
