"""
An export that is killed leaves the file of before or the whole new one, and the next gives the bytes of an undisturbed one.
"""

from __future__ import annotations

import contextlib
import itertools
import random

from durabatch.clock import monotonic_s
from durabatch.ledger.opening import open_ledger
from tests import factory
from tests.crash.processes import eventually

#: What is exported in turn, and what of it incrementally.
NAMES = ("r.jsonl.gz", "r.csv", "r.xlsx")
INCREMENTAL = "r.jsonl.gz"


def make_ledger(path, count=4000):
    """Leave a ledger with a finished run of *count* items, three of which failed."""
    with contextlib.closing(open_ledger(path, create=True, durability="process")) as ledger:
        run = factory.run_of(ledger, count)
        while made := factory.take(ledger, run, 2000, size=1000):
            factory.give_back(ledger, run, factory.answer(made, failing={"k5", "k500", "k3000"}, packed={"k7", "k8", "k3333"}))


def test_kills_leave_no_half_file(place, seed, scaled):
    """At random moments between the start and the end of the command: what has the final name is whole, and so is the file of failures."""
    rng = random.Random(seed)
    make_ledger(place.ledger_path)
    run, wholes = place.ledger["jobs"], {}
    for name in NAMES:
        (place.folder / name).write_bytes(b"before")
        wholes[name] = run.export(place.folder / f"undisturbed.{name}").output.read_bytes()
    failures = (place.folder / f"undisturbed.{NAMES[0]}.failures.jsonl").read_bytes()
    began_s = monotonic_s()
    assert export(place, "timed.csv").end() == 0
    took_s = monotonic_s() - began_s
    for number in range(scaled(30)):
        name = NAMES[number % len(NAMES)]
        child = export(place, name)
        child.read_for(rng.uniform(0.3, 1.0) * took_s)
        child.destroy(rng)
        assert (place.folder / name).read_bytes() in (b"before", wholes[name])
        beside = place.folder / f"{name}.failures.jsonl"
        assert not beside.exists() or beside.read_bytes() == failures
    for name, whole in wholes.items():
        run.export(place.folder / name, incremental=name == INCREMENTAL)
        assert ((place.folder / name).read_bytes(), (place.folder / f"{name}.failures.jsonl").read_bytes()) == (whole, failures)
    assert [path.name for path in place.folder.glob(".*")] == []
    assert place.ledger.verify() == []


def export(place, name):
    """Start an export."""
    return place.durabatch("export", "--ledger", "l.db", "--output", name, *(["--incremental"] if name == INCREMENTAL else []))


def test_a_run_at_work_is_exported_as_of_one_moment(place):
    """While items end, an export holds a beginning of what there will be, each line as in the end, and the run goes on."""
    place.items([f"k{number} 0.002" for number in range(400)])
    child = place.run()
    eventually(lambda: place.has_begun(child), "some work")
    path, lines = place.folder / "r.jsonl", [set()]
    while child.process.poll() is None:
        place.ledger["kill"].export(path)
        lines.append(set(path.read_bytes().splitlines()))
    assert child.end() == 0, child.stderr()
    place.ledger["kill"].export(path)
    lines.append(set(path.read_bytes().splitlines()))
    assert len(lines[-1]) == 400
    assert all(earlier <= later for earlier, later in itertools.pairwise(lines))
