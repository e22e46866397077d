from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest

from durabatch.errors import RunHaltedError
from durabatch.models import Result
from durabatch.process import is_same_process, start_ticks
from durabatch.runner.delivering import BatchCommand, Deliverer, EndCommand
from durabatch.runner.request import BatchOutput
from durabatch.runner.shell import ShellCommand
from tests.crash.processes import eventually

RESULTS = (Result("a", "succeeded", None, 1, '{"n":1}'), Result("b", "failed", "ValueError: no", 2, None))


def batch(number, path=None):
    return BatchOutput("jobs", number, RESULTS, path)


def test_calls_are_made_in_order_in_a_thread_of_their_own():
    """Nobody waits for them; what has returned is kept until it is marked."""
    told, gate, woken = [], threading.Semaphore(0), []

    def call(one):
        gate.acquire()
        told.append((one.number, threading.get_ident()))

    deliverer = Deliverer((call,), wake=lambda: woken.append(1))
    for number in (4, 2, 7):
        deliverer.hand_over(number * 10, batch(number))
    assert (deliverer.delivered(), deliverer.outstanding, deliverer.is_idle) == ([], {40, 20, 70}, False)
    gate.release(3)
    while not deliverer.is_idle:
        deliverer.wait_idle(5)
    assert [number for number, _ in told] == [4, 2, 7]
    assert {thread for _, thread in told}.isdisjoint({threading.get_ident()})
    assert (deliverer.delivered(), len(woken)) == ([40, 20, 70], 3)
    deliverer.forget([40, 20])
    assert deliverer.outstanding == {70}
    deliverer.close()


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_a_call_that_fails_is_the_last(error):
    """Whatever it raises: the batch is not delivered, nobody is called about the next one, and the reason names it."""
    told = []

    def call(one):
        told.append(one.number)
        if one.number == 2:
            raise error

    deliverer = Deliverer((call,))
    for number in (1, 2, 3):
        deliverer.hand_over(number, batch(number))
    while deliverer.failure is None:
        deliverer.wait_idle(5)
    assert (told, deliverer.delivered(), deliverer.is_idle) == ([1, 2], [1], True)
    assert deliverer.failure.error is error
    assert deliverer.failure.reason == f"on_batch of batch 2: {type(error).__name__}: {error}"
    deliverer.close()


def test_what_is_dropped_is_not_begun():
    """After a signal the call at hand returns, and that is all; the next batch is for another session."""
    begun, gate = threading.Semaphore(0), threading.Semaphore(0)
    deliverer = Deliverer((lambda _: (begun.release(), gate.acquire()),))
    for number in (1, 2):
        deliverer.hand_over(number, batch(number))
    begun.acquire()
    deliverer.drop()
    gate.release(2)
    deliverer.wait_idle(5)
    assert (deliverer.delivered(), deliverer.outstanding, deliverer.is_held) == ([1], {1}, True)
    deliverer.close()


def test_a_call_that_never_returns_does_not_keep_us():
    """Its thread is left behind, and what it does later touches nothing."""
    gate, woken = threading.Semaphore(0), []
    deliverer = Deliverer((lambda _: gate.acquire(),), wake=lambda: woken.append(1))
    deliverer.hand_over(1, batch(1))
    deliverer.end(0.0)
    deliverer.close()
    gate.release()
    deliverer.thread.join(5)
    assert woken == []


# -- commands -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Give the directory in which commands run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_command_reads_the_batch_as_lines(here):
    """Members as in batch files; the run, the number and the file are in its environment; what it prints is not our output."""
    command = BatchCommand(
        ShellCommand(
            'cat > "$DURABATCH_RUN-$DURABATCH_BATCH"; echo "${DURABATCH_OUTPUT_FILE-none}" >> files; ps -o pgid= $$ > group', str(here)
        )
    )
    command(batch(3, Path("out/batch_0003.json")))
    command(batch(4))
    assert [json.loads(line) for line in (here / "jobs-3").read_text().splitlines()] == [
        {"key": "a", "state": "succeeded", "value": {"n": 1}, "error": None, "attempts": 1},
        {"key": "b", "state": "failed", "value": None, "error": "ValueError: no", "attempts": 2},
    ]
    assert (here / "files").read_text().split() == ["out/batch_0003.json", "none"]
    assert int((here / "group").read_text()) != os.getpgid(0)


@pytest.mark.parametrize(
    ("text", "why"), [("exit 7", "exit code 7"), ("kill -9 $$", "killed by SIGKILL"), ("nobody-knows-this 2> /dev/null", "exit code 127")]
)
def test_a_command_that_fails_names_its_batch(here, text, why):
    """How it ended, and which command that was; exit code 3."""
    with pytest.raises(RunHaltedError, match=rf"--on-batch of batch 3: {why} \(") as caught:
        BatchCommand(ShellCommand(text, str(here)))(batch(3))
    assert caught.value.exit_code == 3


def test_a_command_that_does_not_read_is_no_error(here):
    """A batch of any size can be left unread."""
    big = BatchOutput("jobs", 1, (Result("a", "succeeded", None, 1, '"' + "x" * (1 << 20) + '"'),), None)
    BatchCommand(ShellCommand("touch done", str(here)))(big)
    assert (here / "done").exists()


@pytest.mark.parametrize(("trap", "status"), [("", -signal.SIGTERM), ("trap '' TERM;", -signal.SIGKILL)])
def test_a_command_is_ended_with_all_its_children(here, trap, status):
    """Kindly first, then by force; the run is told which batch has to be delivered again."""
    os.mkfifo("begun")
    command = ShellCommand(f"{trap} sleep 1000 & echo $! > begun; while :; do wait; done", str(here))
    deliverer = Deliverer((BatchCommand(command),), command=command)
    deliverer.hand_over(1, batch(1))
    child = int((here / "begun").read_text())
    ticks = start_ticks(child)
    deliverer.end(0.2)
    assert (deliverer.is_idle, deliverer.delivered()) == (True, [])
    assert f"killed by {signal.Signals(-status).name}" in deliverer.failure.reason
    eventually(lambda: trap or not is_same_process(child, ticks) or "Z" in Path(f"/proc/{child}/stat").read_text(), "the end of its child")
    assert command.run((), {}) == -signal.SIGKILL
    deliverer.close()


@pytest.mark.parametrize(("text", "notes"), [("cat > told", []), ("cat > told; exit 4", ["--on-end: exit code 4 (cat > told; exit 4)"])])
def test_the_end_is_told_and_changes_nothing(here, text, notes):
    """The summary comes as JSON; a command that fails is a note and no error."""
    said = []
    EndCommand(ShellCommand(text, str(here)), {"run": "jobs", "state": "finished"}, None, said.append)()
    assert json.loads((here / "told").read_text()) == {"run": "jobs", "state": "finished"}
    assert said == notes
