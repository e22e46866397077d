"""
Random edits of the input between interrupted runs, under each answer to what has changed: a plain dictionary predicts what is there in the end.

Keyed rows are predicted one by one, rows that are known by their content as a multiset. After every session the items of the ledger are those
of the model, nothing that had ended ran again without cause, and the ledger is sound.
"""

from __future__ import annotations

import csv
import json
import random
import signal
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import durabatch
from durabatch.errors import InputChangedError
from durabatch.intake import chain, opened
from durabatch.runner import feeding

OPEN, DONE, OUT = "open", "done", "out"


@dataclass
class Entry:
    """An item as the model has it; *kept* says that the input has lost it."""

    value: int
    state: str = OPEN
    kept: bool = False


@dataclass
class Session:
    """What the handler of one session does: it notes its calls, and asks for an end with the one numbered *last*."""

    last: int | None
    calls: list[str] = field(default_factory=list)

    def __call__(self, item):
        """Return what belongs to the value of the item."""
        self.calls.append(item.get("k", item["v"]))
        if len(self.calls) == self.last:
            signal.raise_signal(signal.SIGINT)
        return f"{item['v']}!"


class Keyed:
    """What a run of keyed rows holds, as a dictionary."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.past = 0
        #: What the input said when it was decided about; None while intake is not complete.
        self.decided: dict[str, int] | None = None

    def merge(self, rows, *, source_alone=False, actions=None):
        """Do what ``merge``, ``source``, or the actions of a plan by key say."""
        for key, value in rows.items():
            entry, action = self.entries.get(key), (actions or {}).get(key)
            if actions is not None and action not in {"add", "redo"}:
                if entry is not None and entry.value == value and entry.state != OUT:
                    entry.kept = False
            elif entry is None:
                self.entries[key] = Entry(value)
            elif entry.state == OUT or entry.value != value:
                self.past += entry.state == DONE
                self.entries[key] = Entry(value)
            else:
                entry.kept = False
        for key, entry in self.entries.items():
            if key not in rows and entry.state != OUT:
                if source_alone or (actions or {}).get(key) == "cancel":
                    self.past += entry.state == DONE
                    entry.state, entry.kept = OUT, False
                else:
                    entry.kept = True

    def is_changed(self, rows) -> bool:
        """Tell whether a comparison finds anything new, changed or gone."""
        new = any(key not in self.entries or self.entries[key].state == OUT or self.entries[key].value != value for key, value in rows.items())
        return new or any(key not in rows and entry.state != OUT and not entry.kept for key, entry in self.entries.items())

    def goes_on(self, rows) -> bool:
        """Tell whether the input begins with what was taken in of it, before intake was cut off."""
        head = list(rows.items())[: len(self.entries)]
        return self.decided is None and all(key in self.entries and self.entries[key].value == value for key, value in head) and len(head) == len(self.entries)


class Trial:
    """One run over several sessions, with an input that changes between them."""

    def __init__(self, chance: random.Random, folder: Path, dedupe: str) -> None:
        self.chance = chance
        self.dedupe = dedupe
        self.path = folder / "in.jsonl"
        self.plan = folder / "plan.csv"
        self.ledger = durabatch.Ledger(folder / "l.db", durability="process")
        self.model = Keyed()
        self.keys = [f"k{number}" for number in range(14)]
        self.told: list[str] = []
        self.lines = [(key, chance.randrange(3)) for key in chance.sample(self.keys, chance.randrange(1, 12))]

    def edit(self) -> None:
        """Insert, delete, change, reorder, duplicate; what a plan has left out is not left as it is."""
        chance, lines = self.chance, self.lines
        for _ in range(chance.randrange(4)):
            what, at = chance.choice(("insert", "delete", "change", "reorder", "duplicate")), chance.randrange(len(lines))
            if what == "insert":
                there = {key for key, _ in lines}
                free = [key for key in self.keys if key not in there] or ([] if self.dedupe == "error" else self.keys)
                lines[at:at] = [(chance.choice(free), chance.randrange(3))] if free else []
            elif what == "delete" and len(lines) > 1:
                del lines[at]
            elif what == "change":
                lines[at] = (lines[at][0], chance.randrange(3))
            elif what == "reorder":
                chance.shuffle(lines)
            elif what == "duplicate" and self.dedupe != "error":
                lines.append((lines[at][0], chance.randrange(3)))

        if self.plan.exists():
            self.plan.unlink()
            lines[-1] = (lines[-1][0], chance.randrange(100, 10**9))

    def write(self) -> None:
        """Write the input."""
        self.path.write_text("".join(json.dumps({"k": key, "v": value}) + "\n" for key, value in self.lines))

    def rows(self) -> dict[str, int]:
        """Return what the input says, repeated keys settled."""
        made: dict[str, int] = {}
        for key, value in self.lines:
            name, occurrence = key, 2
            while self.dedupe == "keep" and name in made:
                name, occurrence = f"{key}#{occurrence}", occurrence + 1
            if self.dedupe != "first" or name not in made:
                made[name] = value
        return made

    def run(self, session: Session, choice: str | None):
        """Run one session."""
        given = {"workers": 0, "batch_size": 3, "dedupe": self.dedupe}
        return self.ledger.run(session, durabatch.jsonl(self.path, key="k"), name="m", on_change=choice, on_note=[].append, **given)

    def planned(self) -> dict[str, str]:
        """Make a plan, edit it by chance, and return its actions by key."""
        self.ledger.plan(Session(None), durabatch.jsonl(self.path, key="k"), name="m", output=self.plan, workers=0, dedupe=self.dedupe)
        with open(self.plan, newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            choices = {"new": ("add", "keep"), "back": ("add", "keep"), "changed": ("redo", "keep"), "gone": ("keep", "cancel")}
            row["action"] = self.chance.choice(choices.get(row["status"], ("keep",)))
        rows = [row for row in rows if row["action"] != "keep" or self.chance.random() < 0.5]
        with open(self.plan, "w", newline="") as file:
            writer = csv.DictWriter(file, ["action", "key", "status", "position", "digest"])
            writer.writeheader()
            writer.writerows(rows)
        return {row["key"]: row["action"] for row in rows}

    def predict(self, choice: str | None) -> str | None:
        """Have the model do what the choice says; return the choice to make, or ``refused``."""
        rows, model = self.rows(), self.model
        if choice == "ledger" or (model.decided == rows and not (choice == "source" and any(one.kept for one in model.entries.values()))):
            return choice if choice != "plan" else None
        if not model.goes_on(rows) and model.is_changed(rows) and choice is None:
            return "refused"
        if choice == "plan" and (model.goes_on(rows) or not model.is_changed(rows)):
            choice = "merge"
        model.merge(rows, source_alone=choice == "source" and not model.goes_on(rows), actions=self.planned() if choice == "plan" else None)
        model.decided = rows
        return str(self.plan) if choice == "plan" else choice

    def session(self, choice: str | None, last: int | None) -> None:
        """Do one session and compare what it leaves with the model."""
        wish = self.predict(choice)
        self.told.append(f"{choice} ({wish}), until {last}: {self.lines}")
        session = Session(last)
        if wish == "refused":
            with pytest.raises(InputChangedError):
                self.run(session, None)
            assert session.calls == []
            return
        due = {key for key, entry in self.model.entries.items() if entry.state == OPEN}
        done = self.run(session, wish)
        taken = self.found()
        if not done.status.intake_complete:
            # Intake was cut off: the model has what was taken in.
            self.model.entries = {key: entry for key, entry in self.model.entries.items() if key in taken}
            self.model.decided = None
        self.check(taken, session, due, is_whole=last is None and done.status.intake_complete)

    def found(self) -> dict[str, tuple]:
        """Return state, payload and value of every item, by key."""
        _, rows = self.ledger.sql("SELECT key, state, payload, value FROM v_item")
        return {key: (state, json.loads(payload)["v"], value) for key, state, payload, value in rows}

    def check(self, taken: dict[str, tuple], session: Session, due: set[str], *, is_whole: bool) -> None:
        """Compare items with entries, and calls with what was to be done."""
        entries = self.model.entries
        assert taken.keys() == entries.keys(), self.told
        for key, (state, value, result) in taken.items():
            entry = entries[key]
            assert value == entry.value, (key, self.told)
            assert state in {OUT: {"cancelled"}, DONE: {"succeeded"}, OPEN: {"pending", "succeeded"}}[entry.state], (key, entry, self.told)
            assert result == (json.dumps(f"{value}!") if state == "succeeded" else None)
            entry.state = DONE if state == "succeeded" else entry.state
        calls = Counter(session.calls)
        bare = Counter(key.partition("#")[0] for key in due)
        assert calls == bare if is_whole else calls <= bare, (due, self.told)
        _, past = self.ledger.sql("SELECT count(*) FROM v_result_history")
        assert next(past) == (self.model.past,), self.told
        assert self.ledger["m"].status().gone == sum(entry.state == OUT for entry in entries.values())
        assert self.ledger.verify() == []


@pytest.fixture
def small_pages(monkeypatch):
    """Take the input in a few rows at a time, so that a session may end in the middle of it."""
    monkeypatch.setattr(chain, "FIRST_PAGE_ITEMS", 3)
    monkeypatch.setattr(opened, "PAGE_ITEMS", 4)
    monkeypatch.setattr(feeding, "ENOUGH_AHEAD", 2)


@pytest.mark.parametrize("dedupe", ["error", "first", "last", "keep"])
def test_keyed_items_end_as_a_dictionary_says(tmp_path, seed, scaled, dedupe, request):
    """Under every answer, in any order of answers, with sessions that end early: items, results, results of before and calls are those."""
    chance = random.Random(seed)
    if dedupe == "error":
        request.getfixturevalue("small_pages")
    for number in range(scaled(80)):
        folder = tmp_path / str(number)
        folder.mkdir()
        trial = Trial(chance, folder, dedupe)
        choices = (None, "ledger", "merge", "source", "plan") if dedupe == "error" else (None, "ledger", "merge", "source")
        trial.write()
        trial.model.merge(trial.rows())
        trial.model.decided = trial.rows()
        trial.session("ledger", chance.choice((1, 2, 4, None)))
        for _ in range(chance.randrange(1, 4)):
            trial.edit()
            trial.write()
            trial.session(chance.choice(choices), chance.choice((1, 3, None)))
        trial.edit()
        trial.write()
        trial.session("source", None)
        assert {key for key, entry in trial.model.entries.items() if entry.state == DONE} == trial.rows().keys()


@pytest.mark.parametrize("choice", ["merge", "source"])
def test_rows_without_keys_end_as_a_multiset_says(tmp_path, seed, scaled, choice):
    """Under ``merge`` there are as many of a payload as there ever were at once, under ``source`` as many as the input has."""
    chance = random.Random(seed)
    for number in range(scaled(60)):
        path = tmp_path / f"{number}.jsonl"
        ledger = durabatch.Ledger(tmp_path / f"{number}.db", durability="process")
        lines = [chance.randrange(5) for _ in range(chance.randrange(1, 12))]
        alive, first = Counter(lines), True
        for last in (*(chance.choice((1, 3, None)) for _ in range(3)), None):
            if not first:
                chance.shuffle(lines)
                lines = [value for value in lines if chance.random() < 0.7] + [chance.randrange(6) for _ in range(chance.randrange(1, 4))]
                alive = Counter(lines) if choice == "source" else alive | Counter(lines)
            path.write_text("".join(json.dumps({"v": value}) + "\n" for value in lines))
            session = Session(last)
            ledger.run(session, durabatch.jsonl(path), name="m", on_change=None if first else choice, workers=0, on_note=[].append)
            first = False
            states = Counter(one.state for one in ledger["m"].results())
            assert states.total() - states["cancelled"] == alive.total()
        assert Counter(one.value for one in ledger["m"].results() if one.ok) == Counter({f"{value}!": count for value, count in alive.items()})
        assert (ledger["m"].status().gone, ledger.verify()) == (states["cancelled"], [])
