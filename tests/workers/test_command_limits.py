"""Commands at their limits: ended with everything that they started, and nobody else with them."""

from __future__ import annotations

import signal
import time

import pytest

from durabatch import process
from durabatch.workers.protocol import Tune


def late(worker, payload='"x"'):
    """Run one item that is ended at a limit, and check that the worker still works."""
    found = worker.only(payload)
    assert (found.outcome, found.error_type) == ("timed_out", "ItemTimeoutError"), found
    assert (found.kinds, found.error_group) == (["ItemTimeoutError", "TimeoutError"], "ItemTimeoutError: timeout")
    return found


def gone(pid):
    """Whether a process is no more."""
    return process.start_ticks(pid) is None


def test_a_command_is_ended_at_its_limit(command):
    """It gets SIGTERM; what it printed, also in its last moment, is kept."""
    worker = command(
        "sh",
        "-c",
        "trap 'echo bye; exit 3' TERM; echo begun; echo word >&2; while :; do sleep 0.01; done",
        timeout_s=0.3,
        term_grace_s=20.0,
    )
    begun = time.monotonic()
    found = late(worker)
    assert found.message == "timeout after 0.3 s"
    assert (found.exit_code, found.stdout_tail, found.stderr_tail.split()[0]) == (3, "begun\nbye\n", "word")
    assert 0.3 <= time.monotonic() - begun < 15
    assert 300_000 <= found.duration_us < 15_000_000


def test_a_command_that_ignores_the_request_is_killed(command):
    """Row 79: after the grace comes SIGKILL, and the message says so."""
    found = late(command("sh", "-c", "trap '' TERM; while :; do sleep 0.01; done", timeout_s=0.1, term_grace_s=0.2))
    assert (found.message, found.exit_code) == ("timeout after 0.1 s (SIGKILL needed)", -signal.SIGKILL)


def test_a_command_that_has_closed_its_output_is_ended_too(command):
    """Not the end of the output but that of the process is waited for."""
    worker = command("sh", "-c", "exec >&- 2>&-; sleep 600", timeout_s=0.1)
    assert late(worker).message == "timeout after 0.1 s"


@pytest.mark.parametrize("leave", ["", "setsid "], ids=["group", "session"])
def test_nothing_of_a_late_command_is_left(command, folder, eventually, leave):
    """Grandchildren end with it, those that ignore the request and those that left its session included."""
    worker = command(
        "sh",
        "-c",
        f"{leave}sh -c 'trap \"\" TERM; echo $$ > pid.new; mv pid.new pid; exec >&- 2>&-; while :; do sleep 0.05; done' & sleep 600",
        timeout_s=0.5,
    )
    assert late(worker).message.startswith("timeout after 0.5 s")
    pid = int((folder / "pid").read_text())
    eventually(lambda: gone(pid))


def test_the_neighbours_of_a_late_command_go_on(command, folder, eventually):
    """With several at once, the end of one, and of what it left behind, touches no other."""
    worker = command(
        "sh",
        "-c",
        '[ $0 = late ] && exec sleep 600; sleep 600 & echo $! > "pid$0"; until [ -e go ]; do sleep 0.01; done; echo $0',
        "{}",
        concurrency=3,
        parse="lines",
    )
    worker.dispatch(1, '"late"', '"a"', '"b"', limits={1: 0.3})
    eventually(lambda: worker.shown() == [2, 3])
    (folder / "go").touch()
    outcomes = worker.outcomes(1)
    assert outcomes[1].message.endswith(" s (item deadline)")
    assert (outcomes[2], outcomes[3]) == ('["a"]', '["b"]')
    for name in ("pida", "pidb"):
        pid = int((folder / name).read_text())
        eventually(lambda pid=pid: gone(pid))


def test_the_limit_can_be_changed_for_a_command_that_runs(command, eventually):
    """A limit set meanwhile ends it."""
    worker = command("sleep", "600")
    worker.dispatch(99, '"x"')
    eventually(lambda: worker.shown() == [1])
    worker.send(Tune(0.05, 1))
    assert worker.outcomes(99)[1].message == "timeout after 0.05 s"


@pytest.mark.parametrize("script", ["while :; do :; done", "sh -c 'while :; do :; done'; exit $?"], ids=["itself", "its program"])
def test_a_command_that_computes_for_too_long_is_ended(command, script):
    """The kernel counts its processor time and that of what it starts; waiting does not count."""
    found = late(command("sh", "-c", script, cpu_limit_s=0.9))
    assert found.message == "cpu limit of 0.9 s"
    assert found.exit_code in (-signal.SIGXCPU, 128 + signal.SIGXCPU)


def test_a_program_that_is_not_there_is_told_as_always(command):
    """The limit of processor time changes nothing about the words for a command that cannot be started, nor about its value."""
    assert (
        command("no-such-program-anywhere", cpu_limit_s=1.0).only('"x"').message
        == "cannot start no-such-program-anywhere: No such file or directory"
    )
    assert command("printf", "%s|", "a b", "{}", parse="lines", cpu_limit_s=1.0).only('"c  d"') == '["a b|c  d|"]'


def test_waiting_is_no_computing(command):
    """A command below its limit of processor time ends as always, and an ending of its own is no limit's."""
    worker = command("sh", "-c", "sleep 0.1; kill -KILL $$", cpu_limit_s=1.0, timeout_s=600.0)
    found = worker.only('"x"')
    assert (found.outcome, found.error_type, found.exit_code) == ("failed", "CommandError", -signal.SIGKILL)
    assert found.peak_rss_bytes > 1 << 20


def test_several_commands_run_at_once(command, folder, eventually):
    """As many subprocesses as the concurrency says, each with a marker of its own in its environment."""
    worker = command(
        "sh",
        "-c",
        "echo $DURABATCH_ITEM_MARKER > marker{#}.new; mv marker{#}.new marker{#}; until [ -e go ]; do sleep 0.01; done",
        concurrency=3,
    )
    worker.dispatch(1, '"a"', '"b"', '"c"', '"d"')
    eventually(lambda: all((folder / f"marker{number}").exists() for number in (1, 2, 3)))
    assert worker.shown() == [1, 2, 3]
    assert not (folder / "marker4").exists()
    (folder / "go").touch()
    assert worker.outcomes(1).keys() == {1, 2, 3, 4}
    assert (folder / "marker2").read_text() == f"{worker.start['marker']}/2/1\n"
