"""The check before the first handler runs."""

from __future__ import annotations

import json

import pytest

from durabatch.verdicts import Skip
from durabatch.workers.preflight import judge
from durabatch.workers.protocol import Refused

CHECK = """
    import asyncio, time
    import durabatch

    def answer(item):
        if item == "raise": raise ConnectionError("refused by h1")
        if item == "exit": raise SystemExit(3)
        if item == "skip": raise durabatch.Skip("no such host", "fix DNS")
        if item == "retry": raise durabatch.Retry(after=5, reason="later")
        return {"yes": True, "none": None, "no": False, "text": "too big", "both": ["a", "b"], "pair": ("too big", "shrink it")}[item]

    HEAD check(item, ctx):
        if item == "slow": SLEEP
        return answer(item)

    KIND work(item):
        return ["handled", item]
"""
EXPECTED = {
    "yes": None,
    "none": None,
    "no": ("refused by the preflight check", None),
    "text": ("too big", None),
    "pair": ("too big", "shrink it"),
    "both": ("the preflight check returned list, which says neither yes nor no", None),
    "raise": ("ConnectionError: refused by h1", None),
    "exit": ("SystemExit: 3", None),
    "skip": ("no such host", "fix DNS"),
    "retry": ("later", None),
}


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("check", ["def", "async def"])
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_the_check_says_which_items_are_skipped(start, kind, check, concurrency):
    """Whatever way a check says no, and whatever kinds check and handler are, the item is skipped with a reason; then the handler runs."""
    source = CHECK.replace("HEAD", check).replace("KIND", kind).replace("SLEEP", "time.sleep(600)")
    worker = start(source, preflight={"kind": "python", "target": "jobs:check"}, concurrency=concurrency)
    worker.dispatch(-1, *map(json.dumps, EXPECTED), task="check")
    outcomes = worker.outcomes(-1)
    found = {}
    for (item, expected), outcome in zip(EXPECTED.items(), (outcomes[number + 1] for number in range(len(EXPECTED))), strict=True):
        found[item] = None if outcome == "null" else (outcome.message, outcome.remedy)
        assert outcome == "null" or (outcome.outcome, outcome.error_type, outcome.traceback) == ("skipped", "", ""), expected
    assert found == EXPECTED
    assert worker.only('"yes"') == '["handled","yes"]'


def test_a_check_that_does_not_end_skips_its_item(start):
    """In a loop a check has the time of an attempt."""
    source = CHECK.replace("HEAD", "async def").replace("KIND", "async def").replace("SLEEP", "await asyncio.sleep(600)")
    worker = start(source, preflight={"kind": "python", "target": "jobs:check"}, timeout_s=0.1)
    worker.dispatch(-1, '"slow"', task="check")
    found = worker.outcomes(-1)[1]
    assert (found.outcome, found.message) == ("skipped", "the preflight check did not end: timeout after 0.1 s")


def test_a_check_that_is_no_coroutine_does_not_block_the_loop(start, folder, eventually):
    """Checks of an async handler run at once even when they are ordinary functions."""
    worker = start(
        """
        import pathlib, time
        def check(item):
            pathlib.Path(f"began{item}").touch()
            while not pathlib.Path("go").exists(): time.sleep(0.002)
        async def work(item): return item
        """,
        preflight={"kind": "python", "target": "jobs:check"},
        concurrency=3,
    )
    worker.dispatch(-1, "1", "2", "3", task="check")
    eventually(lambda: all((folder / f"began{item}").exists() for item in (1, 2, 3)))
    (folder / "go").touch()
    assert worker.outcomes(-1) == {1: "null", 2: "null", 3: "null"}


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_command_can_be_the_check(start, kind):
    """Exit status 0 passes; otherwise the last line on its standard error is the reason, or the status when it said nothing."""
    ref = {
        "kind": "command",
        "argv": ["sh", "-c", '[ "$0" = no ] && echo "first\nno such host" >&2; [ "$0" = yes ]', "{}"],
        "shell": False,
        "parse": "none",
    }
    worker = start(f"{kind} work(item): return item", preflight=ref, concurrency=2)
    worker.dispatch(-1, '"yes"', '"no"', '"quiet"', task="check")
    outcomes = worker.outcomes(-1)
    assert outcomes[1] == "null"
    assert [(outcomes[item].outcome, outcomes[item].message) for item in (2, 3)] == [
        ("skipped", "no such host"),
        ("skipped", "exit code 1"),
    ]


def test_a_late_command_skips_its_item(start):
    """A command as check has the time of an attempt."""
    ref = {"kind": "command", "argv": ["sleep", "600"], "shell": False, "parse": "none"}
    worker = start("async def work(item): return item", preflight=ref, timeout_s=0.1)
    worker.dispatch(-1, "1", task="check")
    assert worker.outcomes(-1)[1].message == "the preflight check did not end: timeout after 0.1 s"


def test_a_check_gets_the_params_that_it_names(start):
    """A check may want what the handler is told, and is not given what it does not name."""
    worker = start(
        "def check(item, *, region='none'): return region\ndef work(item, *, region, more=1): return item",
        preflight={"kind": "python", "target": "jobs:check"},
        params={"region": "eu", "more": "2"},
    )
    worker.dispatch(-1, "1", task="check")
    assert worker.outcomes(-1)[1].message == "eu"


def test_a_check_that_cannot_be_used_is_refused(start):
    """A worker does not start without the check that it was told of."""
    worker = start(preflight={"kind": "python", "target": "jobs:missing"}, ready=False)
    assert "jobs has no 'missing'" in worker.receive(Refused).message


def test_a_coroutine_is_no_answer():
    """A function that forgets to wait for its own answer is told so, without a warning on the side."""

    async def later():
        return True

    with pytest.raises(Skip, match="returned coroutine"):
        judge(later())
    assert judge(None) is None
