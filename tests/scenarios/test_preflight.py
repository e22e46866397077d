"""
Checks before the first item: a pass of its own over all of them, by functions and by commands, that a resume does not repeat.
"""

from __future__ import annotations

import pytest

from tests.crash.processes import eventually

KEYS = [f"i{number:02}" for number in range(60)]
JOBS = """
    def check(item):
        note("check", item)
        if item == "i07":
            return ("no such host", "remove it from the list")
        if item == "i08":
            raise ValueError("cannot be read")
        if item == "i09":
            os._exit(3)
        if item == "stops":
            wait_at("gate")
        return True


    @handler(preflight=check)
    def work(item):
        note("begin", item)
        return item
"""
REFUSED = {"i07", "i08", "i09"}


def ended(child, code):
    """Wait for the end of a run, and return what it said."""
    assert child.end() == code, child.stderr()
    return child.stderr()


def test_what_fails_its_check_is_skipped_with_reason_and_remedy(stage):
    """All items are checked before the first is run; a check that ends its worker has failed, too; the summary lists reasons and remedies."""
    stage.jobs(JOBS)
    stage.items(KEYS)
    told = ended(stage.run("work"), 0)
    words = [line[0] for line in stage.notes()]
    assert "check" not in words[words.index("begin") :]
    assert {key for key, state in stage.states().items() if state == "skipped"} == REFUSED
    assert sorted(stage.noted("begin")) == sorted(set(KEYS) - REFUSED)
    tries = stage.tries()
    assert [(one.outcome, one.message, one.remedy) for one in tries["i07"]] == [("skipped", "no such host", "remove it from the list")]
    assert "cannot be read" in tries["i08"][0].message
    assert "status 3" in tries["i09"][0].message
    assert "3 skipped" in told
    assert "no such host" in told
    assert "remedy: remove it from the list" in told


@pytest.mark.parametrize(("refused", "code"), [(True, 1), (False, 0)])
def test_preflight_only_runs_nothing_and_the_next_start_checks_nothing_again(stage, refused, code):
    """The exit code tells whether all may run; the same command without it goes on with those that may."""
    stage.jobs(JOBS)
    stage.items(KEYS if refused else KEYS[10:])
    ended(stage.run("work", "--preflight-only"), code)
    assert stage.noted("begin") == []
    assert (stage.row()["state"], stage.row()["exit_code"]) == ("halted", code)
    checked = sorted(stage.noted("check"))
    ended(stage.run("work"), 0)
    assert sorted(stage.noted("check")) == checked
    assert set(stage.states().values()) == ({"succeeded", "skipped"} if refused else {"succeeded"})


def test_a_check_that_was_interrupted_goes_on_where_it_stood(stage):
    """Killed in the middle: what was checked and recorded is not checked again, the others are, and then everything runs."""
    gate = stage.gate()
    stage.jobs(JOBS)
    stage.items([*KEYS[10:], "stops", "last"])
    child = stage.run("work", "-j", "1")
    eventually(lambda: "stops" in stage.noted("check"), "the check that waits")
    eventually(lambda: stage.query("SELECT json_extract(flow, '$.preflight') FROM run")[0][0], "the position of the check")
    child.destroy()
    before = stage.noted("check")
    gate.open()
    ended(stage.run("work", "-j", "1"), 0)
    again = stage.noted("check")[len(before) :]
    assert again[-1] == "last"
    assert len(again) < len(KEYS[10:])
    assert set(stage.states().values()) == {"succeeded"}


def test_a_command_checks_too(stage):
    """Its exit code decides and the last line on stderr is the reason; the items are those of another command."""
    stage.items(KEYS[:12])
    stage.script("note begin $1\n")
    stage.script('[ "$1" != i03 ] || { echo "no disk for $1" >&2; exit 1; }\n', "check.sh")
    told = ended(stage.exec("--preflight", "./check.sh {}"), 0)
    assert {key for key, state in stage.states().items() if state == "skipped"} == {"i03"}
    assert "i03" not in stage.noted("begin")
    assert "no disk for i03" in stage.tries()["i03"][0].message
    assert "1 skipped" in told
