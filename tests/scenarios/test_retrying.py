"""
Tries after the first: when, after what, and what they are counted as. The due time is a row, so it outlives whoever wrote it.
"""

from __future__ import annotations

import itertools
import signal
import time

from tests.crash.processes import eventually
from tests.scenarios.stage import ended, innocent_faults

#: ``nth`` counts the calls of an item over all processes.
COUNTING = """
def nth(item):
    note("call", item)
    return pathlib.Path(NOTES).read_text().split().count(item)
"""


def outcomes(stage) -> dict[str, list[str]]:
    """Return how the attempts of each item ended."""
    return {key: [one.outcome for one in tries] for key, tries in stage.tries().items()}


# -- when ---------------------------------------------------------------------------------------------------------------------


def test_due_times_outlive_the_coordinator_and_hold_no_worker(stage):
    """kill -9 of the coordinator while items wait for their retry: the due times are those of before, nothing is run earlier, others are not held up."""
    stage.jobs(
        COUNTING
        + """
def work(item):
    if item == "hour0" and nth(item) == 1:
        # More of them would be a pause for all.
        raise Retry(after="1h", reason="busy")
    if item.startswith("hour") and nth(item) == 1:
        raise Snooze("1h")
    if item.startswith("soon") and nth(item) == 1:
        raise Snooze(1.5)
    if item == "last":
        wait_at("gate")
    return item
"""
    )
    gate = stage.gate()
    waiting, soon, quick = [f"hour{n}" for n in range(10)], [f"soon{n}" for n in range(3)], [f"i{n}" for n in range(20)]
    stage.items([*waiting, *soon, *quick, "last"])
    words = ("-j", "1", "--retries", "2")
    child = stage.run("work", *words)
    # One worker, thirteen that wait: the others are done all the same.
    eventually(lambda: [stage.states().get(key) for key in quick] == ["succeeded"] * len(quick), "the others")
    eventually(lambda: [stage.states()[key] for key in [*waiting, *soon]] == ["scheduled"] * 13, "the waiting ones")
    before = stage.standing()
    now_s = time.time()
    assert all(3590 < before[key].due_s - now_s < 3601 for key in waiting)
    child.signal(signal.SIGKILL)
    child.process.wait()
    assert stage.standing() == {**before, "last": stage.standing()["last"]}
    assert {key: before[key].charged for key in [*waiting, *soon]} == {**dict.fromkeys([*waiting, *soon], 0), "hour0": 1}
    gate.open()
    child = stage.run("work", *words)
    eventually(lambda: [stage.states()[key] for key in [*soon, "last"]] == ["succeeded"] * 4, "those that were due soon")
    after, tries = stage.standing(), stage.tries()
    assert [after[key] for key in waiting] == [before[key] for key in waiting]
    assert all(tries[key][1].started_s >= before[key].due_s for key in soon)
    assert all(outcomes(stage)[key] == ["snoozed", "succeeded"] for key in soon)
    child.signal(signal.SIGTERM)
    ended(child, 143)
    assert [stage.standing()[key] for key in waiting] == [before[key] for key in waiting]


def test_the_wait_grows_with_every_try_and_is_drawn_at_random(stage):
    """``--backoff``, ``--backoff-factor``, ``--backoff-cap``: each due time lies within the bound of its try, and they do not fall together."""
    stage.jobs("def work(item): raise ValueError(item)")
    keys = [f"i{number}" for number in range(40)]
    stage.items(keys)
    bound_s = 200.0
    child = stage.run("work", "--retries", "3", "--backoff", f"{bound_s}s")
    eventually(lambda: list(stage.states().values()).count("scheduled") == len(keys), "all to wait")
    standing, tries = stage.standing(), stage.tries()
    child.signal(signal.SIGINT)
    ended(child, 130)
    waits = [standing[key].due_s - tries[key][0].ended_s for key in keys]
    assert all(0 <= wait <= bound_s + 5 for wait in waits)
    assert len({round(wait) for wait in waits}) > 20
    assert max(waits) > 0.5 * bound_s
    # Each further try within its own bound; the cap cuts them all.
    stage.items(keys[:2])
    ended(
        stage.run("work", "--name", "capped", "--retries", "4", "--backoff", "100ms", "--backoff-factor", "50", "--backoff-cap", "200ms"), 1
    )
    gaps = [later.started_s - former.ended_s for former, later in itertools.pairwise(stage.tries()["i0"][-5:])]
    assert len(gaps) == 4
    assert all(-0.01 <= gap < 0.2 + 0.8 for gap in gaps)


# -- after what ---------------------------------------------------------------------------------------------------------------

VERDICTS = """
def said(item):
    if item == "skips":
        raise Skip("no such host", remedy="fix the DNS entry")
    if item == "skips-by-return":
        return Skip("not today")
    if item == "fails":
        raise Fail("the record is not valid")
    if item == "snoozes" and nth(item) < 4:
        raise Snooze(0.05, reason="not yet")
    if item == "retries" and nth(item) < 3:
        return Retry(after=0.05, reason="busy")
    if item == "retries-for-ever":
        raise Retry(after=0, reason="busy")
    if item == "wrong":
        raise Retry(after="soon")
    return item
"""


#: State, charged attempts and outcomes that follow.
SAID = {
    "skips": ("skipped", 1, ["skipped"]),
    "skips-by-return": ("skipped", 1, ["skipped"]),
    "fails": ("failed", 1, ["failed"]),
    "snoozes": ("succeeded", 1, ["snoozed", "snoozed", "snoozed", "succeeded"]),
    "retries": ("succeeded", 3, ["failed", "failed", "succeeded"]),
    "retries-for-ever": ("failed", 3, ["failed", "failed", "failed"]),
    "wrong": ("failed", 3, ["failed", "failed", "failed"]),
}


def test_what_a_handler_says_counts_as_what_it_is(stages):
    """Skip and Fail end at once, Retry charges a try each time, Snooze none; a wrong duration is an error like any other."""
    runs, keys, children = stages("def", "async def"), [f"i{number}" for number in range(20)], {}
    for kind, stage in runs.items():
        stage.jobs(f"{COUNTING}{VERDICTS}\n{kind} work(item): return said(item)")
        stage.items([*SAID, *keys])
        # "wrong" fails with the delay of the run, which is none.
        children[kind] = stage.run("work", "-j", "1", "--retries", "2", "--backoff", "0")
    for kind, stage in runs.items():
        ended(children[kind], 1)
        assert innocent_faults(stage, keys) == []
        found = {key: (*stage.standing()[key][:2], outcomes(stage)[key]) for key in SAID}
        assert found == SAID
        tries = stage.tries()
        assert (tries["skips"][0].message, tries["skips"][0].remedy) == ("no such host", "fix the DNS entry")
        assert "the record is not valid" in tries["fails"][0].error
        assert "busy" in tries["retries"][0].error
        assert "'soon' is not a duration" in tries["wrong"][0].error
        later = tries["snoozes"] + tries["retries"]
        gaps = [second.started_s - first.ended_s for first, second in itertools.pairwise(later) if second.number == first.number + 1]
        assert len(gaps) == 5
        assert all(gap > 0.04 for gap in gaps)


JOBS = """
class Torn(ConnectionResetError):
    pass


def work(item):
    if item != "fine":
        raise {"torn": Torn, "refused": ConnectionRefusedError, "value": ValueError, "key": KeyError, "timeout": TimeoutError}[item](item)
    return item
"""


#: Options, and how many tries each exception gets with two retries.
POLICIES = {
    "two": (("--retry-on", "Torn,builtins.TimeoutError"), {"torn": 3, "refused": 1, "value": 1, "key": 1, "timeout": 3}),
    "given-up": (("--give-up-on", "ValueError,LookupError"), {"torn": 3, "refused": 3, "value": 1, "key": 1, "timeout": 3}),
    "both": (
        ("--retry-on", "OSError", "--give-up-on", "ConnectionRefusedError"),
        {"torn": 3, "refused": 1, "value": 1, "key": 1, "timeout": 3},
    ),
}


def test_classes_of_exceptions_decide(stages):
    """``--retry-on`` and ``--give-up-on`` go by the class and its bases, and the last failure is that of the handler."""
    runs, children = stages(*POLICIES), {}
    for name, stage in runs.items():
        words, tries = POLICIES[name]
        stage.jobs(JOBS)
        stage.items(["fine", *tries])
        children[name] = stage.run("work", "-j", "1", "--retries", "2", "--backoff", "0", *words)
    for name, stage in runs.items():
        ended(children[name], 1)
        assert {key: len(tries) for key, tries in stage.tries().items()} == {"fine": 1, **POLICIES[name][1]}
        assert stage.tries()["torn"][-1].error_type in ("Torn", "jobs.Torn")


def test_a_name_that_is_no_exception_is_refused(stage):
    """A misspelt class would never match: it is refused before anything is written, with the name that was meant."""
    stage.jobs(JOBS)
    stage.items(["fine"])
    said = ended(stage.run("work", "--retry-on", "ConectionError"), 2)
    assert said.count("\n") == 1
    assert "Did you mean 'ConnectionError'" in said
    assert not stage.ledger_path.exists()


def test_exit_codes_decide_for_commands(stage):
    """``--retry-exit``: a command is tried again after these codes alone, not after others, nor after a signal."""
    stage.script("""
        case $1 in
            busy) note call; [ "$(grep -c call "$NOTES")" -ge 3 ] || exit 75 ;;
            broken) exit 3 ;;
            killed) kill -9 $$ ;;
        esac
        echo "$1"
    """)
    stage.items(["busy", "broken", "killed", "fine"])
    ended(stage.exec("--retries", "5", "--backoff", "0", "--retry-exit", "75,111"), 1)
    assert {key: one[:2] for key, one in stage.standing().items()} == {
        "busy": ("succeeded", 3),
        "broken": ("failed", 1),
        "killed": ("failed", 1),
        "fine": ("succeeded", 1),
    }
    tries = stage.tries()
    assert [one.exit_code for one in tries["busy"]][:2] == [75, 75]
    assert tries["broken"][0].exit_code == 3
    assert -9 in (tries["killed"][0].exit_code, -(tries["killed"][0].signal or 0))
