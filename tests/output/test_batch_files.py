from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import tracemalloc

import pytest

from durabatch import errors
from durabatch.models import Result
from durabatch.output import atomic
from durabatch.output.batch_files import BatchFiles

RESULTS = [
    Result("a", "succeeded", None, 1, '{"n":1.0,"t":"ä\\u0007"}'),
    Result('b"\n', "failed", "ValueError: no\x1b[2J", 3, None),
    Result("c", "skipped", None, 1, None),
    Result("d", "succeeded", None, 2, "null"),
]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_batch_is_one_document_in_input_order(tmp_path):
    """Run, number and every item, failed ones included, each with its five members."""
    path = BatchFiles(tmp_path / "out", "nightly#2").write(1, RESULTS)
    assert path == tmp_path / "out" / "batch_0001.json"
    assert json.loads(path.read_text()) == {
        "run": "nightly#2",
        "batch": 1,
        "items": [
            {"key": "a", "state": "succeeded", "value": {"n": 1.0, "t": "ä\a"}, "error": None, "attempts": 1},
            {"key": 'b"\n', "state": "failed", "value": None, "error": "ValueError: no\x1b[2J", "attempts": 3},
            {"key": "c", "state": "skipped", "value": None, "error": None, "attempts": 1},
            {"key": "d", "state": "succeeded", "value": None, "error": None, "attempts": 2},
        ],
    }


def test_a_value_is_written_as_it_is_stored(tmp_path):
    """Not parsed and made again: numbers keep their digits, and no control character of a text gets out raw."""
    text = BatchFiles(tmp_path, "r").write(1, [Result("a", "succeeded", None, 1, '{"n":1.00000000000000000001,"b":1e2}')]).read_text()
    assert '"value":{"n":1.00000000000000000001,"b":1e2}' in text
    assert "\x1b" not in BatchFiles(tmp_path, "r").write(2, RESULTS).read_text()


def test_each_item_stands_on_its_own_line(tmp_path):
    """Files can be compared and searched by line."""
    lines = BatchFiles(tmp_path, "r").write(1, RESULTS).read_text().splitlines()
    assert len(lines) == len(RESULTS) + 2
    assert lines[1].startswith('{"key":"a",')


def test_the_number_has_four_digits_and_more_when_needed(tmp_path):
    """Names sort as numbers do, up to ten thousand batches."""
    files = BatchFiles(tmp_path, "r")
    assert [files.write(number, []).name for number in (7, 9999, 12345)] == ["batch_0007.json", "batch_9999.json", "batch_12345.json"]
    assert json.loads((tmp_path / "batch_0007.json").read_text())["items"] == []


def test_an_earlier_file_is_replaced_and_nothing_is_left_beside(tmp_path):
    """A batch that is written again, after a retry or a crash, has its new content under its name."""
    files = BatchFiles(tmp_path, "r")
    (tmp_path / ".batch_0001.json.part").write_text("left by a crash, and longer than what follows" * 100)
    files.write(1, RESULTS)
    files.write(1, RESULTS[:1])
    assert names(tmp_path) == ["batch_0001.json"]
    assert len(json.loads((tmp_path / "batch_0001.json").read_text())["items"]) == 1


@pytest.mark.parametrize("name", ["batch_0001.json", "batch_0017.json", "summary.json"])
def test_the_directory_of_another_run_is_refused(tmp_path, name):
    """Whichever file tells of the other run, nothing is written beside it."""
    (tmp_path / name).write_text('{\n  "run": "other \\"run\\"",\n  "batch": 1}')
    with pytest.raises(errors.UsageError, match="holds the output of run 'other \"run\"'") as caught:
        BatchFiles(tmp_path, "mine")
    assert caught.value.exit_code == 2
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("text", ["", "[1]", '{"name": "mine"}', '{"run": 7}', '{"run": "mine', "\x00\xff"])
def test_a_file_of_another_program_is_never_overwritten(tmp_path, text):
    """A file with one of our names that we did not write stays as it is."""
    (tmp_path / "batch_0001.json").write_text(text)
    with pytest.raises(errors.UsageError, match="not written by durabatch"):
        BatchFiles(tmp_path, "mine")
    assert (tmp_path / "batch_0001.json").read_text() == text


def test_the_same_run_goes_on_in_its_directory(tmp_path):
    """A resume finds its own files, and other files do not matter."""
    (tmp_path / "notes.txt").write_text("mine")
    BatchFiles(tmp_path, "mine").write(1, RESULTS)
    BatchFiles(tmp_path, "mine").write(2, RESULTS)
    assert names(tmp_path) == ["batch_0001.json", "batch_0002.json", "notes.txt"]


def test_a_missing_directory_is_made_with_its_parents(tmp_path):
    """Nobody has to make it first."""
    BatchFiles(tmp_path / "a" / "b", "r")
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("below", ["file", "file/out"])
def test_a_file_in_place_of_the_directory_is_wrong_use(tmp_path, below):
    """Exit code 2 before anything runs."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(errors.UsageError, match="--output"):
        BatchFiles(tmp_path / below, "r")


def test_a_directory_that_cannot_be_written_is_wrong_use(tmp_path, monkeypatch):
    """Exit code 2 before anything runs, and not after hours of work."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(errors.UsageError, match="no permission to write"):
        BatchFiles(tmp_path, "r")


def test_a_disk_without_room_leaves_the_earlier_file(tmp_path):
    """A file size limit makes the write fail for real: exit code 4, no part is left, and the old content is."""
    files = BatchFiles(tmp_path, "r")
    files.write(1, RESULTS)
    before = (tmp_path / "batch_0001.json").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(errors.OutputError, match=r"batch_0001.json: cannot be written \(no room on the disk\). Make room") as caught:
            files.write(1, [Result("a", "succeeded", None, 1, '"' + "x" * 50_000 + '"')])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.exit_code == 4
    assert names(tmp_path) == ["batch_0001.json"]
    assert (tmp_path / "batch_0001.json").read_bytes() == before


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "no room on the disk"), (errno.EDQUOT, "no room on the disk"), (errno.EIO, "Input/output error")]
)
def test_whatever_step_fails_no_part_is_left(tmp_path, monkeypatch, step, number, words):
    """The file is there whole or not at all, and the error says why."""
    files = BatchFiles(tmp_path, "r")

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic.os, step, fail)
    with pytest.raises(errors.OutputError, match=words):
        files.write(1, RESULTS)
    assert names(tmp_path) == []


def test_a_link_in_place_of_a_part_is_not_followed(tmp_path):
    """Nobody makes us write into a file of their choice."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".batch_0001.json.part").symlink_to(tmp_path / "victim")
    with pytest.raises(errors.OutputError):
        BatchFiles(tmp_path / "out", "r").write(1, RESULTS)
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_removed_directory_is_an_error_of_the_output(tmp_path):
    """It is no crash: the results are in the ledger."""
    files = BatchFiles(tmp_path / "out", "r")
    (tmp_path / "out").rmdir()
    with pytest.raises(errors.OutputError, match="the results are in the ledger"):
        files.write(1, RESULTS)


def test_an_interruption_leaves_no_part(tmp_path):
    """Whatever ends the writing, the directory is as it was."""
    with pytest.raises(KeyboardInterrupt):
        atomic.write_whole(tmp_path / "x.json", interrupted())
    assert names(tmp_path) == []


def packed_lines(path):
    return [json.loads(line) for line in subprocess.run(["zstd", "-dc", path], capture_output=True, check=True).stdout.splitlines()]


def test_the_other_formats_hold_the_same_items(tmp_path):
    """An object a line, compressed or not, or a row with a column for each field; failed ones included."""
    paths = {format: BatchFiles(tmp_path / format, "r", format).write(2, RESULTS) for format in ("json", "jsonl", "csv", "jsonl.zst")}
    items = json.loads(paths["json"].read_text())["items"]
    assert [json.loads(line) for line in paths["jsonl"].read_text().splitlines()] == items == packed_lines(paths["jsonl.zst"])
    assert paths["csv"].read_bytes().decode() == (
        "key,state,value,n,t,error,attempts\n"
        "a,succeeded,,1.0,ä\x07,,1\n"
        '"b""\n",failed,,,,ValueError: no\x1b[2J,3\n'
        "c,skipped,,,,,1\n"
        "d,succeeded,,,,,2\n"
    )
    assert {format: path.name for format, path in paths.items()} == {format: f"batch_0002.{format}" for format in paths}


def test_a_directory_without_documents_tells_of_its_run_as_well(tmp_path):
    """The mark beside the files has the name: the same run goes on there, another one is refused, and files of nobody's are, too."""
    BatchFiles(tmp_path / "out", "mine", "csv").write(1, RESULTS)
    BatchFiles(tmp_path / "out", "mine", "jsonl").write(1, RESULTS)
    with pytest.raises(errors.UsageError, match="holds the output of run 'mine'"):
        BatchFiles(tmp_path / "out", "other", "csv")
    (tmp_path / "out" / ".durabatch.json").unlink()
    with pytest.raises(errors.UsageError, match=r"batch_0001.csv was not written by durabatch"):
        BatchFiles(tmp_path / "out", "mine", "csv")


def test_a_batch_of_big_values_is_written_one_at_a_time(tmp_path):
    """However many there are, no more than one of them is in memory, in any format."""

    class Many:
        def __iter__(self):
            return (Result(f"k{n}", "succeeded", None, 1, '"' + chr(97 + n) * (1 << 20) + '"') for n in range(24))

    for format in ("json", "jsonl", "csv", "jsonl.zst"):
        files = BatchFiles(tmp_path, "r", format)
        tracemalloc.start()
        files.write(1, Many())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 << 20, format


def interrupted():
    yield "begun"
    raise KeyboardInterrupt
