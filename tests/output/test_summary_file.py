from __future__ import annotations

import json

import pytest

from durabatch.models import Counts, Result, RunStatus
from durabatch.output.batch_files import BatchFiles
from durabatch.output.summary_file import SummaryFile, build, spread


def status(**changes):
    given = {
        "run_id": 1, "name": "jobs", "state": "finished", "reason": None, "handler": "jobs:work", "counts": Counts(total=8, succeeded=6, failed=2),
        "batch_count": 3, "attempt_count": 9, "intake_complete": True, "items_per_s": 2.0, "eta_s": None, "started_at": None, "finished_at": None,
        "elapsed_s": 4.0, "binding_limit": None, "exit_code": 1, **changes,
    }  # fmt: skip
    return RunStatus(**given)


def test_a_summary_says_how_the_run_went():
    """Every member has its number, from the counters and the batches alone."""
    summary = build(status(), [(1, 0, 1.0), (2, 2, 3.0), (3, 0, 2.0)], retries=1, output_bytes=77)
    assert summary.pop("counts")["failed"] == 2
    assert summary == {
        "run": "jobs", "state": "finished", "reason": None, "batch_count": 3, "failed_batch_count": 1, "success_rate": 0.75, "elapsed_s": 4.0,
        "seconds_per_batch": {"mean": 2.0, "p50": 2.0, "p95": 3.0}, "items_per_minute": 120.0, "retries": 1, "output_bytes": 77,
    }  # fmt: skip


def test_a_run_without_an_ended_item_has_no_rates():
    """What cannot be computed is null, and no division fails."""
    summary = build(
        status(state="halted", reason="drained", counts=Counts(total=8, pending=8), elapsed_s=0.0), [], retries=0, output_bytes=0
    )
    assert [summary[name] for name in ("success_rate", "items_per_minute", "reason")] == [None, None, "drained"]
    assert set(summary["seconds_per_batch"].values()) == {None}


@pytest.mark.parametrize(
    ("seconds", "p50", "p95"),
    [([5.0], 5.0, 5.0), ([2.0, 1.0], 1.0, 2.0), ([3.0, 1.0, 2.0], 2.0, 3.0), ([float(n) for n in range(100, 0, -1)], 50.0, 95.0)],
)
def test_percentiles_are_values_that_occurred(seconds, p50, p95):
    """The nearest rank, whatever the order of the batches."""
    found = spread(seconds)
    assert (found["p50"], found["p95"]) == (p50, p95)


@pytest.mark.parametrize("format", ["json", "csv", "jsonl.zst"])
def test_the_file_counts_the_bytes_of_all_batches(tmp_path, format):
    """Those of earlier sessions too, since they lie in the directory, and nothing else that lies there."""
    files = BatchFiles(tmp_path, "jobs", format)
    sizes = [files.write(number, [Result("a", "succeeded", None, 1, "1")] * number).stat().st_size for number in (1, 2)]
    (tmp_path / "batch_notes.txt").write_text("mine")
    path = SummaryFile(tmp_path).write(build(status(), [], retries=0, output_bytes=files.output_bytes()))
    assert path == tmp_path / "summary.json"
    assert json.loads(path.read_text())["output_bytes"] == sum(sizes)
    assert json.loads(path.read_text())["counts"]["total"] == 8
    assert BatchFiles(tmp_path, "jobs", format).output_bytes() == sum(sizes)
    SummaryFile(tmp_path).write(build(status(state="halted"), [], retries=0, output_bytes=0))
    assert json.loads(path.read_text())["state"] == "halted"
