from __future__ import annotations

import dataclasses
import json
import os
import pty
import select
import subprocess
import sys

import pytest

from durabatch.cli import progress
from durabatch.models import Counts, Progress, RunStatus, Summary


def at(ended: int, total: int = 2000, *, failed: int = 0, complete: bool = True, rate: float = 820.0) -> Progress:
    counts = Counts(total=total, pending=total - ended, succeeded=ended - failed, failed=failed)
    return Progress("nightly", counts, complete, rate, (total - ended) / rate if complete and rate else None, 1.0, 1)


class Clock:
    """Time that moves when a test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (at(1203, failed=13), "1,203 of 2,000 done, 13 failed, 820/s, 1.0 s left"),
        (at(1203, 1400, complete=False), "1,203 of >=1,400 done, 820/s"),
        (at(2000), "2,000 of 2,000 done"),
        (at(0, rate=0.0), "0 of 2,000 done"),
    ],
)
def test_the_figures_say_what_is_known(shown, text):
    """The total is a lower bound while the input is read; nothing is forecast when all is done or nothing is known."""
    assert progress.progress_text(shown) == text


def test_a_rollback_is_shown_by_its_steps():
    """Items that are undone are no measure of it: one may have had many effects, another none."""
    shown = dataclasses.replace(at(2000), undoing=(120, 1412), counts=Counts(total=2000, succeeded=1952, undone=48))
    assert progress.progress_text(shown) == "120 of 1,412 steps undone, 48 items"


def test_plain_lines_come_at_the_start_every_30_seconds_and_at_the_end(capsys):
    """A log gets whole lines, seldom, and always the last state; no carriage returns."""
    clock = Clock()
    display = progress.PlainDisplay(clock)
    for step, seconds in enumerate((0, 10, 19.9, 0.2, 5)):
        clock.now += seconds
        display.show(at(step))
    display.close()
    display.close()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in lines[:3]] == ["0", "3", "4"]
    assert lines[0] == "durabatch: nightly: 0 of 2,000 done, 820/s, 2.4 s left"


def test_the_last_line_is_not_said_twice(capsys):
    """A run that is over at once has one line."""
    display = progress.PlainDisplay(Clock())
    display.show(at(2000))
    display.close()
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_json_progress_is_one_object_a_line(capsys):
    """Progress, notes and the end are events with schema_version; nothing else is on the stream."""
    clock = Clock()
    display = progress.JsonDisplay(clock)
    display.show(at(1))
    display.show(at(2))
    display.note("a note\nwith two lines")
    display.close()
    status = RunStatus(1, "nightly", "finished", None, "m:f", Counts(total=3, succeeded=3), 1, 3, True, 1.0, None, None, None, 1.0, None, 0)
    display.end(Summary(status, (), 0, None, 3, (0, 0), None, 0.1, 0.1, 0.1))
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [event["event"] for event in events] == ["progress", "note", "progress", "end"]
    assert {event["schema_version"] for event in events} == {1}
    assert events[0]["run"] == "nightly"
    assert events[0]["counts"]["succeeded"] == 1
    assert events[-1]["run"]["counts"]["total"] == 3


def test_silent_progress_still_gives_notes(capsys):
    """What a person should see is seen; nothing else is."""
    display = progress.open_display("none")
    display.show(at(1))
    display.note("look \x1b[31m here")
    display.close()
    assert capsys.readouterr().err == "durabatch: look \\x1b[31m here\n"


def test_auto_is_a_bar_on_a_terminal_only(monkeypatch):
    """A log file and a dumb terminal get lines."""
    assert progress.chosen_kind("auto") == "plain"
    assert progress.chosen_kind("json") == "json"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert progress.chosen_kind("auto") == "bar"
    monkeypatch.setenv("TERM", "dumb")
    assert progress.chosen_kind("auto") == "plain"


BAR = """
import sys, time
from durabatch.cli.progress import BarDisplay
from durabatch.models import Counts, Progress
now = [0.0]
display = BarDisplay(lambda: now[0])
display.note("before")
for step in range(100):
    now[0] += 0.05
    display.show(Progress("[i]\\x1b[31m", Counts(total=100, pending=100 - step, succeeded=step), True, 9.0, 1.0, 1.0, 1))
    if step == 50:
        display.note("in the middle")
        print("a handler prints")
display.close()
display.close()
print("after", file=sys.stderr)
"""


def output_on_terminal(script: str) -> str:
    """Return what *script* writes on a terminal of 100 columns."""
    leader, follower = pty.openpty()
    environ = {
        **os.environ,
        "TERM": "xterm",
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "PYTHONPATH": str(progress.__file__).partition("/durabatch/cli/")[0],
    }
    child = subprocess.Popen([sys.executable, "-c", script], stdout=follower, stderr=follower, env=environ)
    os.close(follower)
    data = b""
    while select.select([leader], [], [], 30)[0]:
        try:
            piece = os.read(leader, 65536)
        except OSError:
            break
        data += piece
    os.close(leader)
    assert child.wait(timeout=30) == 0
    return data.decode()


def test_the_bar_is_one_line_that_goes_away():
    """On a terminal the bar is redrawn at most five times a second, notes go above it, data cannot steer it, and it is gone in the end."""
    written = output_on_terminal(BAR)
    assert 15 <= written.count("of 100 done") <= 30
    assert "\x1b[31m" not in written
    assert "[i]\\x1b[31m" in written
    assert written.count("durabatch: in the middle") == 1
    assert "a handler prints" in written
    assert written.replace("\r", "").rstrip("\n").endswith("\x1b[2Kafter")
