from __future__ import annotations

import pytest

from durabatch.cli import failures, printing
from durabatch.errors import InputError, LedgerMissingError


def ends(error: BaseException, *, traceback: bool = False) -> int:
    def call() -> int:
        raise error

    return failures.guarded(call, failures.Manner(traceback=traceback))


def test_an_error_of_ours_is_one_line_with_its_code(capsys):
    """What, why and what to do next; a full stop at the end, control characters escaped, no traceback."""
    assert ends(InputError("a\x1b.csv:7", "ragged row")) == 2
    assert ends(LedgerMissingError("x.db", "there is no such ledger", "Give another.")) == 4
    assert capsys.readouterr().err == "durabatch: a\\x1b.csv:7: ragged row.\ndurabatch: x.db: there is no such ledger. Give another.\n"


def test_a_traceback_is_shown_on_request_only(capsys):
    """--traceback puts it above the line."""
    assert ends(InputError("a", "b"), traceback=True) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "durabatch: a: b."


def test_an_internal_error_is_one_line_and_a_private_file(capsys, tmp_path, monkeypatch):
    """Exit code 70; the file holds version and traceback, and only this user can read it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert ends(KeyError("odd")) == 70
    (kept,) = tmp_path.iterdir()
    line = capsys.readouterr().err
    assert line == f"durabatch: internal error: KeyError: 'odd'. Please report it with {kept}, which holds the traceback.\n"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "Traceback" in kept.read_text()
    assert kept.read_text().startswith("durabatch ")


def test_an_internal_error_is_not_lost_when_no_file_can_be_made(capsys, tmp_path, monkeypatch):
    """The traceback is printed instead, and also on request."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    assert ends(KeyError("odd")) == 70
    assert "Traceback" in capsys.readouterr().err
    assert ends(KeyError("odd"), traceback=True) == 70
    assert capsys.readouterr().err.count("Traceback") == 1


def test_ctrl_c_outside_of_a_run_is_quiet(capsys):
    """Exit code 130 and not a word."""
    assert ends(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "code", "words"), [(BrokenPipeError(32, "Broken pipe"), 0, ""), (OSError(28, "No space"), 4, "No space")]
)
def test_a_gone_reader_is_fine_and_a_full_disk_is_not(error, code, words, capsys, monkeypatch):
    """`| head` ends quietly with 0; a full disk is said, with 4."""
    monkeypatch.setattr(printing, "silence_stdout", lambda: None)
    assert ends(printing.OutputError(error)) == code
    assert words in capsys.readouterr().err
