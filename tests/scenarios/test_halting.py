"""
A run that stops before its end says why, ends with 3, loses nothing, and goes on with the same command: rules of failures, canaries, budgets.
And what does not stop it: failures that are tolerated, and a breaker that waits.
"""

from __future__ import annotations

import itertools
import json
import re

import pytest

from durabatch.api import Ledger
from tests.crash.processes import eventually
from tests.scenarios.stage import ended, innocent_faults

KEYS = [f"i{number:02}" for number in range(20)]

#: Items called ``bad...`` fail until there is a file ``mended``, ``late-bad`` not before one that waits has begun; ``waits...`` wait at the gate.
JOBS = """
def work(item):
    note("begin", item)
    if item.startswith("waits"):
        wait_at("gate")
    while item == "late-bad" and "begin waits" not in pathlib.Path(NOTES).read_text():
        time.sleep(0.01)
    if "bad" in item and not os.path.exists("mended"):
        raise ValueError("bad")
    if item.startswith("slow"):
        time.sleep(0.02)
    return item
"""


def mend(stage) -> None:
    """Let bad items succeed from now on."""
    (stage.folder / "mended").touch()


def check_halted(stage, said: str, reason: str) -> None:
    """Make sure that the run is halted for *reason*, on the row and on the screen, and that nobody is left."""
    row = stage.row()
    assert (row["state"], row["exit_code"]) == ("halted", 3)
    assert re.fullmatch(reason, row["reason"]), row["reason"]
    assert row["reason"] in said
    stage.check_nobody_left()


# -- failures -----------------------------------------------------------------------------------------------------------------


def test_halt_now_interrupts_what_runs(stage):
    """``--halt now,fail=1``: the first failure ends the run, what was running is interrupted uncharged; mended, the same command ends it."""
    gate, waiting = stage.gate(), [f"waits{number}" for number in range(10)]
    stage.jobs(JOBS)
    stage.items(["late-bad", *waiting])
    said = ended(stage.run("work", "--halt", "now,fail=1", "--term-grace", "300ms"), 3)
    check_halted(stage, said, re.escape("halted: 1 item failed (--halt now,fail=1)"))
    assert {key: one[:2] for key, one in stage.standing().items()} == {**dict.fromkeys(waiting, ("pending", 0)), "late-bad": ("failed", 1)}
    before = stage.tries()
    begun = {*stage.noted("begin")} - {"late-bad"}
    assert {key: len(tries) for key, tries in before.items()} == dict.fromkeys([*begun, "late-bad"], 1)
    assert {before[key][0].outcome for key in begun} == {"interrupted"}
    mend(stage)
    gate.open()
    # The failure of before is history: it does not halt the run again, and is not tried again unasked.
    ended(stage.run("work", "--halt", "now,fail=1"), 1)
    assert innocent_faults(stage, waiting, tries=None) == []
    assert stage.tries()["late-bad"] == before["late-bad"]


def test_halt_soon_lets_what_runs_end(stage):
    """``--halt soon,fail=1``: nothing more is started, what runs comes to its end and counts."""
    gate, waiting = stage.gate(), [f"waits{number}" for number in range(10)]
    stage.jobs(JOBS)
    stage.items(["late-bad", *waiting])
    child = stage.run("work", "--halt", "soon,fail=1")
    # The worker of the bad one may have begun another before it was told.
    eventually(lambda: stage.states().get("late-bad") == "failed", "the failure")
    eventually(lambda: list(stage.states().values()).count("running") == len(stage.noted("begin")) - 1, "what was not started to go back")
    begun = {*stage.noted("begin")} - {"late-bad"}
    assert 1 <= len(begun) <= 2
    gate.let(len(begun))
    said = ended(child, 3)
    check_halted(stage, said, re.escape("halted: 1 item failed (--halt soon,fail=1)"))
    assert {*stage.noted("begin")} - {"late-bad"} == begun
    assert innocent_faults(stage, begun) == []
    assert [stage.states()[key] for key in waiting if key not in begun] == ["pending"] * (len(waiting) - len(begun))


def test_a_share_of_failures_counts_from_the_20th_end(stage):
    """``fail=N%``: a failure at the very first item is no share yet; past it at the 20th, the run halts."""
    stage.jobs(JOBS)
    stage.items(["bad0", *KEYS[:17], "bad1", "bad2", *(f"slow{number}" for number in range(200))])
    said = ended(stage.run("work", "-j", "1", "--halt", "soon,fail=10%"), 3)
    check_halted(stage, said, r"halted: 3 of \d+ items failed \(--halt soon,fail=10%\)")
    assert len(stage.tries()) >= 20
    assert innocent_faults(stage, KEYS[:17]) == []


def test_tolerated_failures_are_a_success(stage):
    """``--tolerate``: the exit code is 0 up to that many failures, or that share of all items; the items are failed all the same."""
    stage.jobs(JOBS)
    stage.items(["bad0", "bad1", *KEYS[:18]])
    ended(stage.run("work", "-j", "1", "--tolerate", "1"), 1)
    assert (stage.row()["state"], stage.row()["exit_code"]) == ("finished", 1)
    assert list(stage.states().values()).count("failed") == 2
    # Asked again: nothing to do, and the verdict by what is tolerated now.
    ended(stage.run("work", "--tolerate", "2"), 0)
    ended(stage.run("work", "-j", "1", "--fresh", "--tolerate", "10%"), 0)
    assert (stage.row()["state"], stage.row()["exit_code"]) == ("finished", 0)


# -- canaries -----------------------------------------------------------------------------------------------------------------


def test_canaries_that_succeed_let_the_others_go(stage):
    """``--canary 3``: until the first three have succeeded nothing else is begun; then everything is."""
    gate, canaries = stage.gate(), ["waits0", "waits1", "waits2"]
    stage.jobs(JOBS)
    stage.items([*canaries, *KEYS])
    child = stage.run("work", "--canary", "3")
    eventually(lambda: stage.row().get("binding_limit") == "canary", "word of it in the row")
    gate.let(2)
    eventually(lambda: [stage.states()[key] for key in canaries].count("succeeded") == 2, "two canaries")
    assert set(stage.wait_for("begin", 3)) == set(canaries)
    assert {stage.states()[key] for key in KEYS} == {"pending"}
    gate.let(1)
    ended(child, 0)
    assert innocent_faults(stage, [*canaries, *KEYS]) == []


def test_a_canary_that_fails_halts_the_run(stage):
    """One of the first three fails: nothing else was begun, the run is halted; mended, it goes on with canaries of its own."""
    stage.jobs(JOBS)
    stage.items(["i-a", "bad", "i-b", *KEYS])
    said = ended(stage.run("work", "--canary", "3"), 3)
    check_halted(stage, said, re.escape("halted: 1 of the first 3 items failed (--canary 3)"))
    assert set(stage.noted("begin")) <= {"i-a", "bad", "i-b"}
    mend(stage)
    ended(stage.run("work", "--retry-failed"), 0)
    assert set(stage.states().values()) == {"succeeded"}


# -- budgets ------------------------------------------------------------------------------------------------------------------


def test_a_spent_budget_halts_the_run(stage):
    """``--budget usd=5``: what attempts spend is on their rows, failed ones included; the run halts near it, shows a forecast, and goes on with more."""
    stage.jobs("""
        def work(item, ctx):
            ctx.spend(usd=0.5, tokens=1000)
            ctx.spend(usd=0.5)
            time.sleep(0.02)
            if item.startswith("bad"):
                raise ValueError("bad")
            return item
    """)
    keys = [f"{'bad' if number % 2 else 'i'}{number:02}" for number in range(60)]
    stage.items(keys)
    said = ended(stage.run("work", "--budget", "usd=5", "--budget", "tokens=1000000"), 3)
    check_halted(stage, said, r"budget of 5 usd is spent \(\d+\)")
    tries = [one for tries in stage.tries().values() for one in tries]
    spent = json.loads(stage.row()["spent"])
    assert spent == {"usd": len(tries), "tokens": 1000 * len(tries)}
    assert 5 <= spent["usd"] <= 25
    assert {one.outcome for one in tries} == {"succeeded", "failed"}
    assert all(json.loads(one.spent) == {"usd": 1.0, "tokens": 1000.0} for one in tries)
    shown = Ledger(stage.ledger_path).runs()[0]
    assert (shown.spent["usd"], shown.forecast["usd"]) == (spent["usd"], pytest.approx(60))
    # The budget is for the whole run: with the same one nothing more is begun, with another the rest.
    ended(stage.run("work", "-j", "1", "--budget", "usd=5"), 3)
    assert json.loads(stage.row()["spent"]) == spent
    ended(stage.run("work", "--budget", "usd=1000"), 1)
    assert json.loads(stage.row()["spent"]) == {"usd": 60, "tokens": 60_000}


# -- the breaker --------------------------------------------------------------------------------------------------------------


def test_a_breaker_waits_probes_and_closes(stage):
    """``--breaker``: the same error three times in a row opens it; then single items try, at growing distances; the first that succeeds closes it."""
    stage.jobs("""
        def work(item):
            note("begin", item, time.time())
            if not os.path.exists("up"):
                raise ConnectionError("the site is down")
            return item
    """)
    stage.items(KEYS)
    words = ("--retries", "1000", "--backoff", "0", "--breaker", "same=3,wait=300ms", "-j", "1", "--batch-size", "1")
    child = stage.run("work", *words)
    eventually(lambda: stage.row().get("binding_limit") == "breaker", "the breaker to open")
    eventually(lambda: not list(stage.states().values()).count("running"), "what was with the worker to come back")
    before = len(stage.noted("begin"))
    stage.wait_for("begin", before + 2)
    assert len(stage.noted("begin")) == before + 2
    (stage.folder / "up").touch()
    ended(child, 0)
    assert set(stage.states().values()) == {"succeeded"}
    assert stage.row()["binding_limit"] is None
    # Probes came alone, and later each time.
    times = [float(line.split()[1]) for line in stage.noted("begin")]
    probes = times[before : before + 3]
    assert probes[1] - probes[0] >= 0.29
    assert probes[2] - probes[1] >= 1.5 * 0.3
    limits = [json.loads(detail)["binding"] for (detail,) in stage.query("SELECT detail FROM event WHERE kind = 'limit' ORDER BY event_id")]
    assert "breaker" in limits
    assert limits[-1] is None


def test_many_that_ask_for_time_are_given_it_together(stage):
    """``Retry(after)`` of three items in a row is a pause for all: the limit has a name, nothing is begun in the meantime, and then everything goes on."""
    stage.jobs("""
        def work(item):
            note("begin", item, time.time())
            if item.startswith("asks") and pathlib.Path(NOTES).read_text().count(item) == 1:
                raise Retry(after=0.7, reason="too many requests")
            time.sleep(0.01)
            return item
    """)
    asking = ["asks0", "asks1", "asks2"]
    stage.items([*asking, *(f"i{number:03}" for number in range(40))])
    child = stage.run("work", "-j", "1", "--retries", "3")
    eventually(lambda: stage.row().get("binding_limit") == "rate-limit pause", "word of it in the row")
    ended(child, 0)
    assert {key: stage.standing()[key][:2] for key in asking} == dict.fromkeys(asking, ("succeeded", 2))
    times = [float(line.split()[1]) for line in stage.noted("begin")]
    assert max(later - former for former, later in itertools.pairwise(times)) > 0.3
    assert stage.row()["binding_limit"] is None
