"""
Odd undo: effects that cannot be taken back, actions that fail or are not there any more, entries that come too late. Each has its clear end.
"""

from __future__ import annotations

import pytest

from durabatch.api import Ledger
from durabatch.ledger.reader import Reader
from tests.crash.dying import lives

#: What an item does stands in its name: ``ACTION[+ACTION]...[!]``; with the mark it raises then. ``late`` has its effect before its entry.
JOBS = """
from pathlib import Path

import durabatch
import deeds

WORLD = Path("world")


def work(item, ctx):
    for number, action in enumerate(item.rstrip("!").split("+")):
        name = f"{item} {number}"
        if action == "late":
            (WORLD / name).touch()
            if item == "late!":
                raise ValueError("between")
            ctx.undo("unmake", name=name)
        else:
            ctx.undo(action, name=name)
            (WORLD / name).touch()
    if item.endswith("!"):
        raise ValueError("bad")
"""

DEEDS = """
from pathlib import Path

import durabatch


def note(*words):
    with open("notes", "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")


def is_gone(name):
    return not Path("world", name).exists()


@durabatch.undo_action("unmake", verify=is_gone)
def unmake(name):
    note("unmake", name)
    Path("world", name).unlink()


@durabatch.undo_action("flaky", verify=is_gone)
def flaky(name, ctx):
    note("flaky", ctx.attempt, ctx.idempotency_key)
    if ctx.attempt < 3:
        raise ConnectionError("not now")
    Path("world", name).unlink()


@durabatch.undo_action("stuck")
def stuck(name):
    note("stuck", name)
    raise PermissionError("never")


@durabatch.undo_action("idle", verify=is_gone)
def idle(name):
    note("idle", name)


@durabatch.undo_action("send_mail", irreversible=True)
def send_mail(name):
    note("send_mail", name)
"""

SIMPLE = ("unmake", "unmake+unmake", "flaky", "late")
#: The newest effect of the last one stays; so does the one before it.
HARD = ("stuck", "idle", "send_mail", "unmake+send_mail", "unmake+stuck")
FAILING = ("unmake!", "flaky!", "stuck!", "unmake+send_mail!", "late!")


@pytest.fixture(scope="module")
def lived():
    """Give lives."""
    with lives() as made:
        yield made


@pytest.fixture
def place(lived, tmp_path):
    """Give a folder with actions and handlers, in which items can be run and rolled back."""
    return Place(lived, tmp_path)


class Place:
    """Where runs happen; what the command says is returned, its exit code is checked."""

    def __init__(self, lived, folder) -> None:
        self.lived, self.folder = lived, folder
        (folder / "world").mkdir()
        (folder / "jobs.py").write_text(JOBS)
        (folder / "deeds.py").write_text(DEEDS)

    def command(self, code: int, *words: str) -> str:
        """Run ``durabatch WORDS`` on the ledger."""
        told = self.lived.live(self.folder, *words, "--ledger", "l.db", "--progress", "none", "-j", "0")
        assert told["code"] == code, told["said"]
        return told["said"]

    def run(self, code: int, items) -> str:
        """Run items."""
        (self.folder / "items.txt").write_text("".join(f"{item}\n" for item in items))
        return self.command(code, "run", "jobs.py:work", "items.txt", "--retries", "1", "--backoff", "1ms")

    def rollback(self, code: int, *words: str) -> str:
        """Roll back."""
        return self.command(code, "rollback", "--yes", *words)

    def edit(self, before: str, after: str) -> None:
        """Change the actions."""
        path = self.folder / "deeds.py"
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))

    def world(self) -> list[str]:
        """Return the effects that are there."""
        return sorted(path.name for path in (self.folder / "world").iterdir())

    def notes(self) -> list[str]:
        """Return what actions did, in order."""
        notes = self.folder / "notes"
        return notes.read_text().splitlines() if notes.exists() else []

    def query(self, sql: str) -> list[tuple]:
        """Return rows of the ledger."""
        with Reader(self.folder / "l.db") as reader:
            return reader.raw.execute(sql).fetchall()

    def states(self) -> dict[str, str]:
        """Return the state of each item."""
        return dict(self.query("SELECT key, state FROM item"))

    def entries(self) -> dict[str, list[str]]:
        """Return the states of the entries of each item, in their order."""
        found: dict[str, list[str]] = {}
        for key, state in self.query("SELECT key, undo.state FROM undo JOIN item USING (item_id) ORDER BY undo_id"):
            found.setdefault(key, []).append(state)
        return found

    def findings(self) -> list[str]:
        """Return what is unsound in the ledger."""
        return [str(one) for one in Ledger(self.folder / "l.db").verify()]


def test_what_bears_it_is_undone_newest_first(place):
    """Two entries of one attempt, an action that fails twice, an entry that came late but before any failure: all is taken back."""
    place.run(0, SIMPLE)
    assert "5 effects" in place.rollback(0)
    assert place.world() == []
    assert place.states() == dict.fromkeys(SIMPLE, "undone")
    flaky = [f"flaky {number} {place.query('SELECT name FROM run')[0][0]}/flaky/1/1" for number in (1, 2, 3)]
    assert place.notes() == ["unmake late 0", *flaky, "unmake unmake+unmake 1", "unmake unmake+unmake 0", "unmake unmake 0"]
    assert place.findings() == []


def test_what_cannot_be_undone_is_told_and_the_rest_is(place):
    """An action that always fails, one that does nothing, and effects that nobody can take back: exit 1 and an honest list, over and over."""
    place.run(0, ("unmake", *HARD))
    said = place.rollback(1, "--keep-going")
    for words in ("PermissionError: never", "'idle' ran, but verify says it is not undone", "send_mail"):
        assert words in said
    # What stands before a failed step of the same item is not touched: order is kept.
    assert place.world() == ["idle 0", "send_mail 0", "stuck 0", "unmake+send_mail 1", "unmake+stuck 0", "unmake+stuck 1"]
    assert place.states() == {
        "unmake": "undone", "stuck": "succeeded", "idle": "succeeded", "send_mail": "undone", "unmake+send_mail": "undone", "unmake+stuck": "succeeded",
    }  # fmt: skip
    assert place.entries() == {
        "unmake": ["undone"], "stuck": ["failed"], "idle": ["failed"], "send_mail": ["irreversible"],
        "unmake+send_mail": ["undone", "irreversible"], "unmake+stuck": ["recorded", "failed"],
    }  # fmt: skip
    assert [place.notes().count(words) for words in ("stuck stuck 0", "idle idle 0", "send_mail send_mail 0")] == [3, 3, 0]
    place.rollback(1, "--keep-going")
    assert place.notes().count("stuck stuck 0") == 6
    assert place.findings() == []


def test_the_first_step_that_fails_ends_a_rollback(place):
    """Without ``--keep-going`` what is older stays as it is; mended, the next rollback does the rest."""
    place.run(0, ("unmake", "stuck", "flaky"))
    place.rollback(1)
    assert place.world() == ["stuck 0", "unmake 0"]
    assert place.states() == {"unmake": "succeeded", "stuck": "succeeded", "flaky": "undone"}
    place.edit('raise PermissionError("never")', 'Path("world", name).unlink()')
    place.rollback(0)
    assert place.world() == []
    assert place.findings() == []


def test_failed_attempts_have_each_their_outcome(place):
    """What is taken back is tried again; what remains fails its item at once, and says so; what nobody was told of stays (the documented misuse)."""
    place.run(1, FAILING)
    assert place.world() == ["late! 0", "stuck! 0", "unmake+send_mail! 1"]
    assert place.states() == dict.fromkeys(FAILING, "failed")
    tries = place.query("SELECT key, error_message FROM attempt JOIN item USING (item_id) ORDER BY item_id, attempt.number")
    assert tries == [
        ("unmake!", "bad"), ("unmake!", "bad"),
        ("flaky!", "bad"), ("flaky!", "bad"),
        ("stuck!", "bad"), ("stuck!", "effects remain: stuck: PermissionError: never"),
        ("unmake+send_mail!", "bad"), ("unmake+send_mail!", "effects remain: 'send_mail' cannot be undone"),
        ("late!", "between"), ("late!", "between"),
    ]  # fmt: skip
    assert place.findings() == []


def test_a_module_that_is_missing_ends_the_rollback_before_anything_is_touched(place):
    """The message names the module, nothing is changed; with the module back, everything is undone."""
    place.run(0, SIMPLE)
    (place.folder / "deeds.py").rename(place.folder / "away.py")
    assert "deeds" in place.rollback(2)
    assert len(place.world()) == 5
    assert place.states() == dict.fromkeys(SIMPLE, "succeeded")
    (place.folder / "away.py").rename(place.folder / "deeds.py")
    place.rollback(0)
    assert place.world() == []


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("def unmake(name):", "def unmake(path, name=''):", "action 'unmake' now needs 'path'"),
        ("def unmake(name):", "def unmake(path=''):\n    name = path", "action 'unmake' no longer takes 'name'"),
        ('"unmake"', '"unmake_it"', "no undo action 'unmake' is registered. Did you mean 'unmake_it'?"),
        ('"unmake", verify=is_gone', '"unmake", irreversible=True', "unmake"),
    ],
    ids=["needs more", "takes less", "another name", "irreversible now"],
)
def test_an_action_that_has_changed_is_told_without_a_further_try(place, before, after, words):
    """The effect remains and is listed once; changed back, the next rollback takes it back, unless it was declared irreversible."""
    place.run(0, ("unmake",))
    place.edit(before, after)
    assert words in place.rollback(1)
    assert (place.world(), place.notes()) == (["unmake 0"], [])
    is_lost = "irreversible" in after
    assert place.query("SELECT try_count, state FROM undo") == [(1, "irreversible" if is_lost else "failed")]
    place.edit(after, before)
    place.rollback(1 if is_lost else 0)
    assert place.world() == (["unmake 0"] if is_lost else [])
    assert place.findings() == []
