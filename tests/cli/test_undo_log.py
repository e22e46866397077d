"""``durabatch undo-log``: what scripts say before they do something that can be undone."""

from __future__ import annotations

import io
import json
import os
import select
import sys
import threading

import pytest

from durabatch.undo_client import UNDO_VARIABLE
from durabatch.undo_template import UndoTemplate
from durabatch.workers.protocol import Recorded
from durabatch.workers.undo_socket import UndoSocket
from tests.done import Done


@pytest.fixture
def inside(monkeypatch):
    """Have this process be part of a command; give what it logs, and the reasons for which the next entries are refused."""
    entries, refusals = [], []

    def log(action, arguments, answered, *, is_irreversible):
        entries.append((action, json.loads(arguments), is_irreversible))
        answered(Recorded(1, 1, refusals.pop() if refusals else None))

    door = UndoSocket(log, UndoTemplate.parse("rm -r -- {args.path}"), "k1")
    wake, waker = os.pipe()

    def serve():
        while wake not in select.select([door, wake], [], [])[0]:
            door.serve()

    thread = threading.Thread(target=serve)
    thread.start()
    monkeypatch.setenv(UNDO_VARIABLE, door.variable)
    yield entries, refusals
    os.close(waker)
    thread.join()
    os.close(wake)
    assert door.close() == []


def stdin(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_it_ends_with_0_when_the_entry_is_on_disk(inside, command, monkeypatch):
    """As an argument or on stdin; it prints nothing."""
    entries, _ = inside
    assert command("undo-log", "remove", '{"path": "/srv/ü", "n": [1, 2]}') == Done(0, "", "")
    stdin(monkeypatch, b' {"path": "/srv/b"}\n')
    assert command("undo-log", "remove", "-") == Done(0, "", "")
    # What nothing undoes need not fit the command that does.
    assert command("undo-log", "--irreversible", "mail", '{"to": "x"}') == Done(0, "", "")
    assert entries == [
        ("remove", {"path": "/srv/ü", "n": [1, 2]}, False),
        ("remove", {"path": "/srv/b"}, False),
        ("mail", {"to": "x"}, True),
    ]


def test_it_ends_with_1_when_nothing_was_recorded(inside, command, monkeypatch):
    """One line that says why; nothing was asked for unless it could be undone."""
    entries, refusals = inside

    def refused(*words):
        done = command("undo-log", *words)
        assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
        return done.err

    assert "undo-log: the JSON is not an object. Give an object, as in" in refused("remove", "[1]")
    assert "undo-log: not JSON: " in refused("remove", "{path: 1}")
    assert "undo-log: " in refused("remove", '{"path": 1, "path": 2}')
    assert "the entry has no such argument. Its arguments: none." in refused("remove")
    assert "is not the name of an action" in refused("", '{"path": "x"}')
    stdin(monkeypatch, b" " * (1 << 20) + b'{"path": "x"}')
    assert "undo-log: the JSON is longer than 64 KiB" in refused("remove", "-")
    assert entries == []
    refusals.append("the item is no longer this worker's")
    assert "'remove' is not recorded: the item is no longer this worker's." in refused("remove", '{"path": "x"}')


def test_outside_of_a_command_it_says_so(command, monkeypatch):
    """Wrong use, in one line."""
    monkeypatch.delenv(UNDO_VARIABLE, raising=False)
    done = command("undo-log", "remove", '{"path": "x"}')
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "durabatch: undo-log: this is no command that durabatch runs. Call it in a command of `durabatch exec`; a Python handler has ctx.undo(...).\n"
    )


EFFECT = """
"$PYTHON" -m durabatch undo-log remove "{\\"path\\": \\"$1\\"}" && mkdir "$1" && test "$1" != site2
"""


@pytest.mark.parametrize("workers", ["2", "0"])
def test_a_failed_command_leaves_nothing_behind(here, process, command, workers):
    """What it has logged is undone by the undo command, in workers and in this process; what others did stays."""
    (here / "effect.sh").write_text(EFFECT)
    (here / "n.txt").write_text("1\n2\n3\n")
    words = ("exec", "n.txt", "-j", workers, "--undo-command", "rm -r -- {args.path}", "--", "sh", "effect.sh", "site{}")
    done = process(*words, PYTHON=sys.executable)
    assert done.code == 1, done.err
    assert sorted(here.glob("site*")) == [here / "site1", here / "site3"]
    entries = command("sql", "SELECT key, action, arguments, state, tries FROM v_undo ORDER BY key", "--csv")
    assert entries.out.splitlines()[1:] == [
        '1,remove,"{""path"":""site1""}",recorded,0', '2,remove,"{""path"":""site2""}",undone,1', '3,remove,"{""path"":""site3""}",recorded,0',
    ]  # fmt: skip


def test_without_an_undo_command_nothing_may_happen(here, process, command):
    """The command fails before its effect, and its error says what to give; an undo command that cannot work starts nothing."""
    (here / "effect.sh").write_text(EFFECT)
    (here / "n.txt").write_text("1\n")
    done = process("exec", "n.txt", "-j", "1", "--", "sh", "effect.sh", "site{}", PYTHON=sys.executable)
    assert done.code == 1
    assert not (here / "site1").exists()
    assert "nothing can be logged: this run has no command that undoes effects. Give one: --undo-command" in command("attempts", "1").out
    for text in ("rm {path}", "remove-it-all {args.path}"):
        refused = command("exec", "n.txt", "--fresh", "--undo-command", text, "--", "sh", "effect.sh", "site{}")
        assert (refused.code, refused.err.startswith("durabatch: --undo-command: ")) == (2, True)
    refused = command("run", "jobs.py:echo", "n.txt", "--undo-command", "true")
    assert (refused.code, refused.err.startswith("durabatch: unknown option '--undo-command'")) == (2, True)
