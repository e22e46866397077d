"""
Output is written after the commit that finished a batch; a death in between must leave nothing out, nothing half and nothing twice.
"""

from __future__ import annotations

import json
import random
import subprocess

import pytest

from tests.crash.processes import eventually

KEYS = [f"k{n}" for n in range(160)]
#: Output, and further options; the bytes of the file follow from the order of the batches, where that is the input's.
FILES = [("all.csv", ["--keep-order"]), ("all.jsonl", ["--keep-order"]), ("all.jsonl.zst", ["--keep-order"]), ("all.jsonl", [])]
COMMAND = 'cat > /dev/null; echo "$DURABATCH_BATCH" >> told'


def survive(place, rng, kills, *arguments):
    """Start the run and kill it as often as that, at random moments; yield after each death, and after the end."""
    for _ in range(kills):
        noted = place.noted()
        child = place.run(*arguments)
        eventually(lambda noted=noted, child=child: place.has_begun(child, noted), "some work")
        child.read_for(rng.uniform(0.0, 0.15))
        # The coordinator first: a worker that died before it would have charged its items with an attempt.
        child.destroy()
        yield
    child = place.run(*arguments)
    assert child.end() == 0, child.stderr()
    yield


def undisturbed(place, command, output, *options):
    """Do the same work elsewhere without a disturbance, and return what stands in the output there, by name."""
    (place.folder / "calm").mkdir()
    words = (
        "run",
        "jobs.py:work",
        "items.txt",
        "--ledger",
        "calm/l.db",
        "--name",
        "kill",
        "--progress",
        "none",
        "--batch-size",
        "7",
        "-j",
        "0",
    )
    assert command(*words, "--output", f"calm/{output}", *options).code == 0
    return content(place.folder / "calm" / output)


def content(path):
    """Return the bytes of a file, or of those in a directory that tell no times."""
    if path.is_file():
        return {path.name: path.read_bytes()}
    return {one.name: one.read_bytes() for one in path.iterdir() if one.name != "summary.json"}


@pytest.fixture
def slow_items(place, monkeypatch):
    """Have the handler take its time with the same items: how long is not in their keys, nor in their values."""
    monkeypatch.chdir(place.folder)
    monkeypatch.setenv("NOTES", str(place.folder / "quiet"))
    place.items(KEYS)
    jobs = place.folder / "jobs.py"
    jobs.write_text(jobs.read_text().replace('["0", "well"]', '["0.004" if os.environ.get("SLOW") else "0", "well"]'))


def test_after_kills_the_batch_files_are_those_of_a_quiet_run(place, slow_items, command, seed, scaled, monkeypatch):
    """However often the run is killed: a batch file that is there is whole, and in the end each is there, to the byte, with nothing beside."""
    expected = undisturbed(place, command, "out")
    monkeypatch.setenv("SLOW", "1")
    rng = random.Random(seed)
    for _ in survive(place, rng, scaled(30), "items.txt", "--output", "out", "--batch-size", "7", "--retries", "99"):
        files = {path.name: path.read_bytes() for path in (place.folder / "out").glob("batch_*.json")}
        assert {name: expected[name] for name in files} == files
    assert content(place.folder / "out") == expected
    recorded = {one.key: one.value for one in place.ledger["kill"].results()}
    batches = [json.loads(expected[name]) for name in sorted(expected)]
    assert {item["key"]: item["value"] for batch in batches for item in batch["items"]} == recorded
    summary = json.loads((place.folder / "out" / "summary.json").read_text())
    assert (summary["counts"]["succeeded"], summary["batch_count"]) == (len(KEYS), len(expected))


def test_after_kills_a_file_that_grows_is_that_of_a_quiet_run(place, slow_items, command, seed, scaled, long, monkeypatch):
    """In input order to the byte, else line by line; under its own name only when it is whole. Each batch is told of at least once, in order."""
    rng = random.Random(seed)
    for output, options in FILES if long else [rng.choice(FILES)]:
        expected = undisturbed(place, command, output, *options)
        arguments = ("items.txt", "--output", output, "--batch-size", "7", "--retries", "99", "--on-batch", COMMAND, *options)
        monkeypatch.setenv("SLOW", "1")
        path, sessions = place.folder / output, [0]
        for _ in survive(place, rng, scaled(30), *arguments):
            assert not path.exists() or in_order(path.read_bytes(), options) == in_order(expected[output], options)
            told = (place.folder / "told").read_text().split() if (place.folder / "told").exists() else []
            sessions.append(len(told))
            session = [int(number) for number in told[sessions[-2] :]]
            assert not options or session == sorted(session)
        assert {int(number) for number in told} == set(range(1, -(-len(KEYS) // 7) + 1))
        assert in_order(path.read_bytes(), options) == in_order(expected[output], options)
        assert not path.with_name(f"{output}.partial").exists()
        monkeypatch.delenv("SLOW")
        empty(place)


def in_order(data, options):
    """Return what two files must have in common: every byte with --keep-order, else the lines."""
    return data if options else sorted(data.splitlines())


def empty(place):
    """Have the place as it was before."""
    subprocess.run("rm -rf calm told notes l.db* all.*", shell=True, cwd=place.folder, check=True)
