"""
Batch files are written after the commit that finished the batch; a death in between must leave none out and none half.
"""

from __future__ import annotations

import json
import random

from tests.crash.processes import eventually


def test_after_kills_the_batch_files_hold_exactly_what_the_ledger_holds(place, seed, scaled):
    """However often the run is killed: a batch file that is there is whole, and in the end there is one for each batch, in input order, with every item once."""
    rng = random.Random(seed)
    keys = [f"k{n}" for n in range(400)]
    rows = [f"{key} 0.004" for key in keys]
    place.items(rows)
    arguments = ("items.txt", "--output", "out", "--batch-size", "7", "--retries", "99")
    for _ in range(scaled(50)):
        noted = place.noted()
        child = place.run(*arguments)
        eventually(lambda noted=noted, child=child: place.has_begun(child, noted), "some work")
        child.read_for(rng.uniform(0.0, 0.2))
        child.destroy(rng)
        for path in sorted((place.folder / "out").glob("batch_*.json")):
            assert all(item["state"] == "succeeded" for item in json.loads(path.read_text())["items"])
    child = place.run(*arguments)
    assert child.end() == 0, child.stderr()
    files = sorted((place.folder / "out").glob("batch_*.json"))
    batches = [json.loads(path.read_text()) for path in files]
    assert [batch["batch"] for batch in batches] == list(range(1, -(-len(keys) // 7) + 1))
    assert [item["key"] for batch in batches for item in batch["items"]] == rows
    recorded = {one.key: one.value for one in place.ledger["kill"].results()}
    assert {item["key"]: item["value"] for batch in batches for item in batch["items"]} == recorded
    summary = json.loads((place.folder / "out" / "summary.json").read_text())
    assert (summary["counts"]["succeeded"], summary["batch_count"]) == (len(keys), len(batches))
