from __future__ import annotations

import os

import pytest

from durabatch.errors import UsageError
from durabatch.output.places import file_format, refuse_same


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Give a directory with inputs in which the test works."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text("{}")
    (tmp_path / "docs").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "batch_0001.json").write_text("{}")
    (tmp_path / "link.jsonl").symlink_to("in.jsonl")
    return tmp_path


@pytest.mark.parametrize(
    ("output", "inputs", "why"),
    [
        ("in.jsonl", ["in.jsonl"], "output and input are the same file: in.jsonl"),
        ("link.jsonl", ["-", "./docs/../in.jsonl"], "output and input are the same file"),
        ("docs", ["docs"], "output and input are the same directory: docs"),
        ("out", ["out/batch_0001.json"], "output and input are the same file: .*batch_0001.json would be written by --output out"),
        ("l.db", ["in.jsonl"], "--output: l.db is the ledger"),
        ("l.db-wal", ["in.jsonl"], "is the ledger"),
    ],
)
def test_output_never_goes_over_input_or_ledger(here, output, inputs, why):
    """Whatever name the file has, and also when it is one of the files that the output consists of."""
    with pytest.raises(UsageError, match=why) as caught:
        refuse_same(output, inputs, [str(here / name) for name in ("l.db", "l.db-wal")])
    assert caught.value.exit_code == 2


def test_what_is_being_written_is_no_input(here):
    """The file that grows would feed itself."""
    os.rename("in.jsonl", "all.jsonl.partial")
    with pytest.raises(UsageError, match="output and input are the same file"):
        refuse_same("all.jsonl", ["all.jsonl.partial"], [])


@pytest.mark.parametrize(
    ("output", "inputs"),
    [(None, ["in.jsonl"]), ("new.jsonl", ["in.jsonl", "*.jsonl", "missing"]), ("out", ["in.jsonl"]), ("docs/out", ["docs"])],
)
def test_other_places_are_accepted(here, output, inputs):
    """Beside the input, or below a directory that is one."""
    refuse_same(output, inputs, [str(here / "l.db")])
    assert file_format("docs.csv") == ("csv", "")
    (here / "docs.csv").mkdir()
    assert file_format("docs.csv") is None
