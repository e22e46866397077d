from __future__ import annotations

import io
import json

import pytest

from durabatch.cli import printing


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢", "plain é 漢"),
        ("\x1b]52;c;x\x07", r"\x1b]52;c;x\x07"),
        ("a\nb\tc\x7f\x9b", r"a\nb\tc\x7f\x9b"),
        ("\u202eevil\u2066", r"\u202eevil\u2066"),
        ("half \udcff", r"half \udcff"),
    ],
)
def test_data_cannot_steer_a_terminal(text, shown):
    """Control and direction characters are shown as escapes, on one line; everything else stays."""
    assert printing.clean(text) == shown


def test_a_table_is_aligned_by_the_places_that_text_takes():
    """Wide characters count two, numbers stand to the right, and line ends stay inside their cell."""
    lines = list(printing.table(("key", "n", "error"), [["漢字", "5", ""], ["a", "1,234", "two\nlines"]]))
    assert lines == ["key       n  error", "漢字      5", r"a     1,234  two\nlines"]


def test_a_table_is_cut_to_the_terminal():
    """A line is never longer than asked for, and says that something is missing."""
    lines = list(printing.table(("key", "error"), [["k", "x" * 100]], width=20))
    assert [len(line) for line in lines] == [10, 20]
    assert lines[1].endswith("...")


def test_a_table_reads_a_long_list_as_it_comes():
    """The first lines are there before the last row is asked for, so memory does not grow with the list."""
    rows = ([str(number)] for number in range(10**9))
    lines = printing.table(("n",), rows)
    assert [next(lines) for _ in range(3)] == ["  n", "  0", "  1"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.34, "0.3 s"),
        (9.97, "10 s"),
        (59.4, "59 s"),
        (59.7, "1m 00s"),
        (3599.6, "1h 00m"),
        (7800, "2h 10m"),
        (270000, "3d 3h"),
    ],
)
def test_durations_are_short(seconds, text):
    """Two units at most, and never 60 seconds."""
    assert printing.duration_text(seconds) == text


@pytest.mark.parametrize(("rate", "text"), [(1240.4, "1,240/s"), (3.21, "3.2/s"), (0.5, "30/min"), (0.001, "3.6/h")])
def test_slow_rates_have_a_unit_that_fits(rate, text):
    """Less than one a second is told by the minute or the hour."""
    assert printing.rate_text(rate) == text


def test_json_is_utf8_whatever_the_locale(monkeypatch):
    """An ASCII terminal changes how text is shown, and never what data is."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    printing.prepare_streams()
    printing.emit("é")
    printing.emit_json({"key": "é\u202e", "n": float("nan")})
    printing.flush()
    text, document = stream.buffer.getvalue().split(b"\n", 1)
    assert text == rb"\xe9"
    assert json.loads(document) == {"schema_version": 1, "key": "é\u202e", "n": "NaN"}


def test_a_gone_reader_and_a_full_disk_are_told_apart(monkeypatch):
    """Both end the printing; only the first is what the user wanted."""

    class Broken(io.StringIO):
        def write(self, _text):
            raise self.error

    stream = Broken()
    monkeypatch.setattr("sys.stdout", stream)
    for error, gone in ((BrokenPipeError(32, "Broken pipe"), True), (OSError(28, "No space left on device"), False)):
        stream.error = error
        with pytest.raises(printing.OutputError) as caught:
            printing.emit("x")
        assert caught.value.is_reader_gone is gone


def test_a_stderr_that_cannot_be_written_to_ends_nothing(monkeypatch):
    """What is said is never worth a run."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    stream.close()
    printing.say("lost")
    monkeypatch.setattr("sys.stderr", None)
    printing.say("lost")
    assert not printing.has_color(None)


def test_color_follows_the_option_then_no_color_then_the_terminal(monkeypatch):
    """always and never win; auto asks NO_COLOR and the terminal."""
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for mode, no_color, expected in (("auto", "", True), ("auto", "1", False), ("always", "1", True), ("never", "", False)):
        monkeypatch.setattr(printing, "color_mode", mode)
        monkeypatch.setenv("NO_COLOR", no_color)
        assert printing.has_color(terminal) is expected
        assert ("\x1b" in printing.painted("x", "bad", terminal)) is expected
