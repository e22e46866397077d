from __future__ import annotations

import contextlib
import json
import os
import threading

import pytest

from durabatch.api import Ledger
from durabatch.cli.steering import state_line
from durabatch.clock import now_us
from durabatch.engine import active as actives
from durabatch.engine.conclude import conclude
from durabatch.engine.pause import pause, unpause
from durabatch.engine.steer import open_orders, orders_of_run, settle
from durabatch.errors import UsageError
from durabatch.ledger.locks import Ownership
from durabatch.ledger.opening import open_ledger
from durabatch.ledger.paths import ledger_files
from durabatch.ledger.reader import Reader
from durabatch.models import Counts, RunStatus
from durabatch.runner import steering
from durabatch.states import RunState
from tests import factory

PATH = "durabatch.db"
VERBS = [["pause"], ["unpause"], ["scale", "3"], ["set", "rate=off"], ["drain"]]


@pytest.fixture
def jobs(here):
    """Give the directory of a ledger with one run of 20 items, half of them done, that nobody works on."""
    with contextlib.closing(open_ledger(PATH, create=True)) as ledger:
        run = factory.run_of(ledger, 20)
        factory.give_back(ledger, run, factory.answer(factory.take(ledger, run, 10)))
    return here


@pytest.fixture
def over(here):
    """Give the directory of a ledger with one finished run."""
    with contextlib.closing(open_ledger(PATH, create=True)) as ledger:
        run = factory.run_of(ledger, 3)
        factory.work_off(ledger, run)
        conclude(ledger, run, RunState.FINISHED, reason=None, exit_code=0, elapsed_us=1, now_us=now_us())
    return here


@contextlib.contextmanager
def owned(run="jobs", **about):
    """Own the ledger for the body, as a coordinator at work does."""
    ownership = Ownership(ledger_files(PATH), {"pid": 4711, "host": "h", "run": run, "since": "2026", **about})
    try:
        yield ownership
    finally:
        ownership.release()


class StandIn(threading.Thread):
    """
    Owns the ledger, and answers orders for run 1 by *answers* (a verb that has none waits forever) until it is left.

    An answer is an outcome, or a function of the ledger and the run that returns one.
    """

    def __init__(self, answers):
        super().__init__(daemon=True)
        self.answers = answers
        self.over, self.ready = threading.Event(), threading.Event()

    def run(self):
        with owned(), contextlib.closing(open_ledger(PATH)) as ledger:
            active = actives.load(ledger, 1)
            self.ready.set()
            while not self.over.wait(0.005):
                self.obey(ledger, active)

    def obey(self, ledger, active):
        for one in open_orders(ledger, 1):
            answer = self.answers.get(one.verb)
            if answer is not None:
                settle(ledger, one.control_id, answer if isinstance(answer, str) else answer(ledger, active), now_us())

    def __enter__(self):
        self.start()
        assert self.ready.wait(30)
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join(30)


def paused(ledger, active):
    pause(ledger, active, "paused by ana (pid 7)", now_us())
    return "paused"


def unpaused(ledger, active):
    unpause(ledger, active, now_us())
    return "running"


def halted(ledger, active):
    conclude(ledger, active, RunState.HALTED, reason="drained by ana", exit_code=3, elapsed_us=1, now_us=now_us())
    return "draining"


def orders():
    with Reader(PATH) as reader:
        return orders_of_run(reader, 1)


def soon(monkeypatch, seconds=0.3):
    """Let nobody wait for long."""
    monkeypatch.setattr(steering, "PATIENCE_S", seconds)


# -- orders that are carried out ----------------------------------------------------------------------------------------------


def test_pause_waits_for_its_effect_and_prints_the_new_state(jobs, command):
    """The order is a row with its verb, and the answer is the run as it stands then."""
    with StandIn({"pause": paused, "unpause": unpaused}):
        done = command("pause")
        assert (done.code, done.err, done.out) == (0, "", "jobs (1)  paused; 10 of 20 done (50.0%); 0 items at work\n")
        assert command("unpause", "jobs").out == "jobs (1)  running; 10 of 20 done (50.0%); 0 items at work\n"
    assert [(one.verb, one.argument, one.outcome) for one in orders()] == [("pause", {}, "paused"), ("unpause", {}, "running")]


@pytest.mark.parametrize(
    ("words", "verb", "argument"),
    [
        (["scale", "3"], "scale", {"workers": 3}),
        (["scale", "4096", "jobs"], "scale", {"workers": 4096}),
        (["set", "rate=50/1m"], "set", {"rate": "50/1m"}),
        (["set", "rate=off", "timeout=off"], "set", {"rate": None, "timeout": None}),
        (["set", "timeout=1h30m", "--run", "1"], "set", {"timeout": "1h30m"}),
        (["set", "timeout=200%", "batch-size=500", "concurrency=10000"], "set", {"timeout": "200%", "batch_size": 500, "concurrency": 10000}),
        (["set", "batch_size=1"], "set", {"batch_size": 1}),
    ],
)
def test_what_is_asked_is_kept_as_settings(jobs, command, words, verb, argument):
    """The words of the command line become fields of RunSettings; ``off`` is None."""
    with StandIn({"scale": "3 workers", "set": "as asked"}):
        done = command(*words)
    assert done.code == 0
    assert done.out.startswith(f"jobs (1)  running; {'3 workers' if verb == 'scale' else 'as asked'}; 10 of 20")
    assert [(one.verb, one.argument) for one in orders()] == [(verb, argument)]


def test_drain_waits_for_the_end_of_the_run(jobs, command):
    """The new state is the one after the last item."""
    with StandIn({"drain": halted}):
        done = command("drain")
    assert (done.code, done.out) == (0, "jobs (1)  halted; 10 of 20 done (50.0%)\n")


def test_a_drain_that_takes_longer_says_what_it_waits_for(jobs, command, monkeypatch):
    """After its time the verb is done: the order was taken, and the run will stop by itself."""
    soon(monkeypatch)
    with StandIn({"drain": "draining: running items end"}):
        done = command("drain")
    assert (done.code, done.err) == (0, "")
    assert done.out == "jobs (1)  running; draining: running items end; 10 of 20 done (50.0%); 0 items at work\n"


def test_orders_keep_who_and_when_and_status_shows_the_last(jobs, command):
    """Process, user, host and time stay in the ledger, for people and programs."""
    before_us = now_us()
    with StandIn({"set": "rate=50/1m", "pause": paused}):
        command("set", "rate=50/1m")
        command("pause")
        shown = command("status").out
        document = json.loads(command("status", "--json").out)
    first, last = orders()
    assert first.asked_by["pid"] == os.getpid()
    assert first.asked_by["uid"] == os.geteuid()
    assert first.asked_by["host"] == os.uname().nodename
    assert before_us <= first.asked_at_us <= first.applied_at_us <= last.asked_at_us <= now_us()
    by = f"{first.asked_by['user'] or os.geteuid()}@{os.uname().nodename} (pid {os.getpid()})"
    (line,) = [line for line in shown.splitlines() if line.startswith("  order")]
    assert line.startswith(f"  order    pause by {by} at 20")
    assert line.endswith("Z: paused")
    assert [line for line in shown.splitlines() if line.startswith("  reason")] == ["  reason   paused by ana (pid 7)"]
    assert "  next     `durabatch unpause` goes on" in shown
    (run,) = document["runs"]
    assert (run["state"], run["last_order"]["verb"], run["last_order"]["outcome"]) == ("paused", "pause", "paused")
    assert set(run["last_order"]) == {"verb", "argument", "asked_by", "asked_at", "applied_at", "outcome"}


def test_a_user_without_a_name_is_known_by_number(monkeypatch):
    """Containers have users that no file knows."""

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr(steering.pwd, "getpwuid", unknown)
    assert steering.asked_by()["user"] is None


def test_the_answer_can_be_a_document(jobs, command):
    """Verb, outcome, and the run as in ``status --json``."""
    with StandIn({"scale": "3 workers"}):
        document = json.loads(command("scale", "3", "--json").out)
    assert {key: document[key] for key in ("schema_version", "verb", "outcome")} == {"schema_version": 1, "verb": "scale", "outcome": "3 workers"}
    assert document["ledger"] == str(jobs / PATH)
    assert document["runs"][0]["counts"]["succeeded"] == 10


def test_python_has_the_same_verbs(jobs):
    """Each is a method of the run, from any process or thread, and returns where the run stands."""
    run = Ledger(PATH)["jobs"]
    with StandIn({"pause": paused, "unpause": unpaused, "scale": "2 workers", "set": "set", "drain": halted}):
        assert run.pause().state == "paused"
        assert run.unpause().state == "running"
        assert run.scale(2).state == "running"
        assert run.set(rate=None, batch_size=7, timeout="30s").state == "running"
        assert run.drain().state == "halted"
    assert run.cancel().state == "cancelled"
    assert [one.argument for one in orders()] == [{}, {}, {"workers": 2}, {"rate": None, "batch_size": 7, "timeout": "30s"}, {}, {}]
    with pytest.raises(UsageError, match="batch-size: '0' is not a whole number >= 1"):
        run.set(batch_size=0)


def test_without_a_name_the_run_that_is_at_work_is_meant(jobs, command):
    """Also when a later one, maybe of the same series, was left behind by a crash and still says that it runs."""
    with contextlib.closing(open_ledger(PATH)) as ledger:
        factory.run_of(ledger, 2)
        factory.run_of(ledger, 2, series="later")
    with StandIn({"pause": paused}):
        assert command("pause").out.startswith("jobs (1)  paused")
        assert command("status").out.startswith("jobs (1)  paused")
    assert command("status").out.startswith("later (3)  interrupted")


def test_a_coordinator_that_is_only_starting_is_waited_for(jobs, monkeypatch):
    """Who has just taken the ledger has not said yet for which run."""
    with owned(run=None) as ownership:
        monkeypatch.setattr(steering.time, "sleep", lambda _: ownership.describe({"pid": 4711, "run": "jobs"}))
        assert steering.Desk(PATH, False, None).at_work(None).state == "running"


# -- orders that are not ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", VERBS)
def test_without_a_coordinator_there_is_one_clear_line_and_code_4(jobs, command, words):
    """Nothing is written: there is nobody who would read it."""
    done = command(*words)
    assert (done.code, done.out) == (4, "")
    assert done.err == "durabatch: durabatch.db: nobody works on run jobs (interrupted). `durabatch resume` goes on with it.\n"
    assert orders() == []


def test_a_run_that_has_ended_cannot_be_steered(over, command):
    """The line says so; scripts see code 4 as for any run without a coordinator."""
    done = command("pause")
    assert (done.code, done.err) == (4, "durabatch: durabatch.db: nobody works on run jobs (finished). It has ended; there is nothing to steer.\n")


def test_a_coordinator_of_another_run_is_named(jobs, command):
    """The ledger is at work, and not for this run."""
    with owned(run="nightly"):
        done = command("pause", "jobs")
    assert done.code == 4
    assert "nobody works on run jobs (interrupted); pid 4711 has the ledger for nightly. " in done.err


def test_a_coordinator_that_does_not_answer_is_code_4_and_the_order_stays(jobs, command, monkeypatch):
    """It may be stopped, or wait for a disk: the order is carried out later."""
    soon(monkeypatch)
    with owned():
        done = command("pause")
        shown = command("status").out
    assert (done.code, done.out) == (4, "")
    assert "the coordinator of run jobs (pid 4711) has not answered within 0.3 s. The order stands" in done.err
    assert [one.outcome for one in orders()] == [None]
    assert ": not answered yet" in shown


def test_a_refused_order_is_code_2_with_the_reason(jobs, command):
    """What the coordinator cannot do is wrong use, and nothing was changed."""
    with StandIn({"scale": f"{steering.REFUSED}the run works without workers (--workers 0)"}):
        done = command("scale", "3")
    assert (done.code, done.out, done.err) == (2, "", "durabatch: scale: the run works without workers (--workers 0).\n")


@pytest.fixture
def leaving(jobs, monkeypatch):
    """Give a function after which the coordinator ends right after an order was written: with a conclusion, or as by kill -9."""
    write = steering.Desk.write
    with owned() as ownership:

        def set_up(*, concludes):
            def written(desk, *order):
                control_id = write(desk, *order)
                if concludes:
                    with contextlib.closing(open_ledger(PATH)) as ledger:
                        halted(ledger, actives.load(ledger, 1))
                ownership.release()
                return control_id

            monkeypatch.setattr(steering.Desk, "write", written)

        yield set_up


@pytest.mark.parametrize(("state", "words", "code"), [("halted", ["drain"], 0), ("halted", ["pause"], 4), ("interrupted", ["drain"], 4)])
def test_an_order_that_comes_too_late_is_taken_back(leaving, command, state, words, code):
    """The run stops before anybody saw the order: the next coordinator must not find it; a drain has come true by that."""
    leaving(concludes=state == "halted")
    done = command(*words)
    assert done.code == code, done.err
    assert [one.outcome for one in orders()] == [f"not carried out: the run was {state}"]


def test_an_order_of_before_that_expired_is_said_to_be(jobs, command):
    """A new coordinator does not obey what was meant for the one before."""
    with StandIn({"pause": "not carried out: the coordinator had ended"}):
        done = command("pause")
    assert done.code == 4
    assert "not carried out: the coordinator had ended. Give the order again." in done.err


GRAMMAR = "Use rate=50/1m|off, batch-size=N, concurrency=N, timeout=30s|200%|off."


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["set"], f"set: there is nothing to set. {GRAMMAR}"),
        (["set", "rate"], f"set: 'rate' is not KEY=VALUE. {GRAMMAR}"),
        (["set", "rate="], f"set: 'rate=' is not KEY=VALUE. {GRAMMAR}"),
        (["set", "nightly"], f"set: 'nightly' is not KEY=VALUE. {GRAMMAR}"),
        (["set", "timout=3s"], f"set: 'timout' cannot be changed while a run works. Did you mean 'timeout'? {GRAMMAR}"),
        (["set", "workers=3"], f"set: 'workers' cannot be changed while a run works. {GRAMMAR}"),
        (["set", "rate=off", "rate=1/1s"], f"set: 'rate' is given twice. {GRAMMAR}"),
        (["set", "batch-size=1", "batch_size=2"], f"set: 'batch_size' is given twice. {GRAMMAR}"),
        (["set", "rate=fast"], "set rate: 'fast' lacks a period. Use 50/1m."),
        (["set", "batch-size=0"], "set batch-size: '0' is not a whole number >= 1. Use 1 to 1,000,000."),
        (["set", "batch-size=off"], "set batch-size: 'off' is not a whole number >= 1. Use 1 to 1,000,000."),
        (["set", "concurrency=10001"], "set concurrency: '10001' is more than 10,000. Use 1 to 10,000."),
        (["set", "timeout=30"], "set timeout: '30' is not a duration. Use 30s, 5m, 1h30m."),
        (["set", "timeout=0s"], "set timeout: 0 would end every item at once. Leave it out for no timeout."),
        (["set", "timeout=90%"], "set timeout: '90%' of the median is out of range. Use 110% to 100000%, or a duration such as 30s."),
        (["scale", "0"], "scale: '0' is not a whole number >= 1. Use 1 to 4,096."),
        (["scale", "many"], "scale: 'many' is not a whole number >= 1. Use 1 to 4,096."),
        (["scale", "5000"], "scale: '5000' is more than 4,096. Use 1 to 4,096."),
        (["scale"], "N is missing. Try `durabatch scale --help`."),
    ],
)
def test_wrong_words_are_code_2_with_the_grammar(here, command, words, line):
    """They are found before any ledger is looked for."""
    done = command(*words)
    assert (done.code, done.out, done.err) == (2, "", f"durabatch: {line}\n")
    assert not (here / PATH).exists()


def test_a_missing_ledger_or_run_is_said_as_everywhere(jobs, command):
    """Code 4 and 2, one line each."""
    assert command("pause", "--ledger", "nope.db").code == 4
    assert command("pause", "nope").err == "durabatch: no run 'nope' in this ledger. There are: jobs.\n"


# -- cancel -------------------------------------------------------------------------------------------------------------------


def test_cancel_ends_a_halted_run(over, command):
    """Stopped before is no obstacle."""
    with contextlib.closing(open_ledger(PATH)) as ledger:
        halted(ledger, factory.run_of(ledger, 4, series="stopped"))
    assert command("cancel", "stopped").out == "stopped (2)  cancelled; 4 of 4 done (100.0%)\n"
    assert Ledger(PATH).verify() == []


def test_cancel_ends_a_run_that_nobody_works_on(jobs, command):
    """Its open items are cancelled, what is done stays, the ledger is sound, and the record says who did it."""
    done = command("cancel")
    assert (done.code, done.err, done.out) == (0, "", "jobs (1)  cancelled; 20 of 20 done (100.0%)\n")
    ledger = Ledger(PATH)
    standing = ledger["jobs"].status()
    assert (standing.state, standing.exit_code, standing.counts.cancelled, standing.counts.succeeded) == ("cancelled", 1, 10, 10)
    assert standing.reason.startswith("cancelled by ")
    assert [(one.verb, one.outcome) for one in orders()] == [("cancel", "cancelled")]
    assert ledger.verify() == []
    assert command("cancel").out == "jobs (1)  cancelled; 20 of 20 done (100.0%)\n"


def test_cancel_ends_items_in_every_open_state(here, command, monkeypatch):
    """Fresh, waiting for a retry, and with a worker that died with its coordinator: a page at a time, all of them end."""
    monkeypatch.setattr("durabatch.runner.cancelling.PAGE", 3)
    with contextlib.closing(open_ledger(PATH, create=True)) as ledger:
        run = factory.run_of(ledger, 25)
        made = factory.take(ledger, run, 6)
        factory.finished(ledger, run, factory.answer(made, failing={"k2"}, only={"k1", "k2"}), policy=factory.RetryPolicy(3, backoff_s=60))
    assert command("cancel", "jobs").code == 0
    counts = Ledger(PATH)["jobs"].status().counts
    assert (counts.succeeded, counts.cancelled, counts.left) == (1, 24, 0)
    assert Ledger(PATH).verify() == []


def test_cancel_writes_out_the_batches_that_are_complete_by_it(here, command):
    """Files hold the cancelled items, too, and the summary says how it ended."""
    with contextlib.closing(open_ledger(PATH, create=True)) as ledger:
        run = factory.new_run(ledger, settings={"output": str(here / "out")})
        factory.add(ledger, run, [f"k{number}" for number in range(1, 26)], complete=True)
        factory.give_back(ledger, run, factory.answer(factory.take(ledger, run, 15)))
    assert command("cancel").code == 0
    document = json.loads((here / "out" / "summary.json").read_text())
    assert (document["state"], document["counts"]["cancelled"]) == ("cancelled", 10)
    states = [[item["state"] for item in json.loads(path.read_text())["items"]] for path in sorted((here / "out").glob("batch_*.json"))]
    assert states == [["succeeded"] * 10, ["succeeded"] * 5]


def test_cancel_asks_the_coordinator_where_there_is_one(jobs, command):
    """The order goes to it, and it decides what to do with running items."""

    def cancelled(ledger, active):
        conclude(ledger, active, RunState.CANCELLED, reason="cancelled by ana", exit_code=1, elapsed_us=1, now_us=now_us())
        return "cancelling"

    with StandIn({"cancel": cancelled}):
        assert command("cancel").out == "jobs (1)  cancelled; 10 of 20 done (50.0%)\n"


def test_a_cancel_that_nobody_saw_is_done_here(leaving, command):
    """The coordinator dies before it reads the order: the command takes the ledger itself."""
    leaving(concludes=False)
    done = command("cancel")
    assert (done.code, done.out) == (0, "jobs (1)  cancelled; 20 of 20 done (100.0%)\n")
    assert [one.outcome for one in orders()] == ["not carried out: the run was interrupted", "cancelled"]


def test_a_finished_run_cannot_be_cancelled(over, command):
    """There is nothing left to cancel: code 2, and nothing changes."""
    done = command("cancel")
    assert (done.code, done.err) == (2, "durabatch: run jobs is finished: there is nothing to cancel.\n")
    assert Ledger(PATH).latest().status().state == "finished"


def test_cancel_waits_for_nobody_elses_run(jobs, command):
    """While the ledger is at work for another run, one line says by whom."""
    with owned(run="nightly"):
        done = command("cancel", "jobs")
    assert done.code == 4
    assert "in use by pid 4711" in done.err
    assert Ledger(PATH)["jobs"].status().counts.pending == 10


# -- words and other versions -------------------------------------------------------------------------------------------------


def test_an_order_never_migrates_a_ledger_under_its_coordinator(jobs, command, monkeypatch):
    """One of an older version knows no orders, and must not find another schema under its feet."""
    monkeypatch.setattr(steering, "SCHEMA_VERSION", steering.SCHEMA_VERSION + 1)
    with owned():
        done = command("pause")
    assert done.code == 4
    assert "which knows no orders. Use a signal: kill -TERM drains." in done.err


@pytest.mark.parametrize(
    ("verb", "state", "outcome", "text"),
    [
        ("pause", "paused", "paused: running items end", "r\\x1b (1)  paused; running items end; 5 of >=9 done, still reading the input; 3 items at work"),
        ("unpause", "running", "running", "r\\x1b (1)  running; 5 of >=9 done, still reading the input; 3 items at work"),
        ("cancel", "running", "cancelling", "r\\x1b (1)  running; cancelling; 5 of >=9 done, still reading the input; 3 items at work"),
        ("cancel", "cancelled", "cancelling", "r\\x1b (1)  cancelled; 5 of >=9 done, still reading the input"),
    ],
)
def test_the_state_is_one_line(verb, state, outcome, text):
    """Name, state, what the coordinator said beyond it, how far the run is; data in it is harmless."""
    counts = Counts(total=9, succeeded=5, running=3, pending=1)
    found = RunStatus(1, "r\x1b", state, None, "m:f", counts, 1, 5, False, 0.0, None, None, None, 0.0, None, None)
    assert state_line(verb, found, outcome) == text
