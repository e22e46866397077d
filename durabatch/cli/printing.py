"""
Words and data on their way out: stdout holds data only, stderr everything else, and neither lets data steer a terminal.

Text for people has its control and direction characters shown as escapes; JSON is UTF-8 whatever the locale, and escapes by itself.
A stderr that cannot be written to never ends anything; a stdout that cannot is an :class:`OutputError`.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

__all__ = [
    "OutputError",
    "clean",
    "display_width",
    "duration_text",
    "emit",
    "emit_json",
    "emit_lines",
    "flush",
    "has_color",
    "json_text",
    "painted",
    "plural",
    "prepare_streams",
    "rate_text",
    "say",
    "shortened",
    "silence_stdout",
    "table",
    "use_color",
    "write_bytes",
]

#: Control characters, marks that turn the direction of text around, line separators, and halves of characters.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
#: What looks like a number, with its unit, or says that there is none.
NUMBER = re.compile(r"(?:>=)?-?[\d,.]+(?:e[+-]?\d+)?(?: ?(?:s|/s|/min|/h|[mhd] \d+[smh]))?|NULL", re.ASCII)
STYLES = {"good": "32", "bad": "31", "warn": "33", "strong": "1"}
#: Lines are written together up to this many characters.
CHUNK_CHARACTERS = 1 << 16
#: Rows that a table looks at before it settles its widths; later ones may stick out.
MEASURED_ROWS = 1000
#: A column that is not the last is cut at this width.
WIDEST_COLUMN = 60

color_mode = "auto"


class OutputError(Exception):
    """
    stdout cannot be written to.

    Args:
        cause: What the system said.
    """

    def __init__(self, cause: OSError) -> None:
        self.cause = cause
        super().__init__(cause.strerror or str(cause))

    @property
    def is_reader_gone(self) -> bool:
        """True when whoever read stdout has had enough, as `head` does."""
        return isinstance(self.cause, BrokenPipeError)


def prepare_streams() -> None:
    """Make every text printable on stdout and stderr, and let no file take the number of a standard stream that is closed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def use_color(mode: str) -> None:
    """Decide about color from now on: ``auto``, ``always`` or ``never``."""
    global color_mode
    color_mode = mode


def has_color(stream: IO[str] | None) -> bool:
    """Return whether *stream* gets color: by the mode; else when it is a terminal and NO_COLOR is not set."""
    if color_mode != "auto" or stream is None:
        return color_mode == "always" and stream is not None
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def painted(text: str, style: str, stream: IO[str] | None) -> str:
    """Return *text* in the colors of *style* when *stream* gets color, else as it is."""
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if has_color(stream) else text


def clean(text: str) -> str:
    r"""Return *text* on one line and harmless: an escape character is shown as ``\x1b``, a line end as ``\n``."""
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def say(line: str) -> None:
    """Print *line* on stderr as it is. When that cannot be done nothing happens: what is said is never worth a run."""
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def emit(line: str) -> None:
    """
    Print *line* of text for people on stdout; data in it is clean already.

    Raises:
        OutputError: stdout is gone or full.
    """
    with output_errors():
        sys.stdout.write(f"{line}\n")


def emit_lines(lines: Iterable[str]) -> None:
    """
    Print *lines* of JSON, CSV and the like on stdout in UTF-8, many with one write.

    Raises:
        OutputError: stdout is gone or full. *lines* is read no further.
    """
    waiting: list[str] = []
    size = 0
    for line in lines:
        waiting.append(line)
        size += len(line) + 1
        if size >= CHUNK_CHARACTERS:
            write_utf8(waiting)
            waiting, size = [], 0
    write_utf8(waiting)


def emit_json(document: dict[str, Any]) -> None:
    """Print *document* on stdout with ``schema_version`` as its first key."""
    emit_lines([json_text({"schema_version": 1, **document})])


def json_text(value: object) -> str:
    """Return *value* as JSON on one line; numbers that JSON does not know become text."""
    from pydantic_core import to_json

    return to_json(value, inf_nan_mode="strings").decode()


def flush() -> None:
    """
    See all of stdout off.

    Raises:
        OutputError: stdout is gone or full.
    """
    if sys.stdout is not None:
        with output_errors():
            sys.stdout.flush()


def silence_stdout() -> None:
    """Let what is still buffered for stdout go nowhere, so that the end of the process says nothing about it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, width: int | None = None) -> Iterator[str]:
    """
    Yield the lines of a table: headers, then rows, in columns; columns of numbers are set to the right.

    Args:
        rows: Cells, made clean here.
        width: Cut lines to this many places; None leaves the last column whole.
    """
    source = iter(rows)
    first = [[clean(cell) for cell in row] for _, row in zip(range(MEASURED_ROWS), source, strict=False)]
    columns = list(zip(map(clean, headers), *first, strict=True))
    widths = [min(WIDEST_COLUMN, max(map(display_width, column))) for column in columns]
    right = {
        number for number, (_, *cells) in enumerate(columns) if any(cells) and all(not cell or NUMBER.fullmatch(cell) for cell in cells)
    }
    for row in ([clean(header) for header in headers], *first):
        yield table_line(row, widths, right, width)
    for later in source:
        yield table_line([clean(cell) for cell in later], widths, right, width)


def table_line(cells: list[str], widths: list[int], right: set[int], width: int | None) -> str:
    """Return one line of a table; every cell but the last is cut to its column."""
    last = len(cells) - 1
    shown = [fitted(cell, widths[number], to_right=number in right, cut=number < last) for number, cell in enumerate(cells)]
    line = "  ".join(shown).rstrip()
    return line if width is None else shortened(line, width)


def fitted(cell: str, width: int, *, to_right: bool, cut: bool) -> str:
    """Return *cell* filled up, and if need be cut, to *width* places."""
    cell = shortened(cell, width) if cut else cell
    space = " " * (width - display_width(cell))
    return space + cell if to_right else cell + space


def shortened(text: str, width: int) -> str:
    """Return *text* in at most *width* places, with dots where something is missing."""
    if display_width(text) <= width:
        return text
    kept, used = [], 3
    for character in text:
        used += display_width(character)
        if used > width:
            break
        kept.append(character)
    return "".join(kept) + "..."


def display_width(text: str) -> int:
    """Return the places that *text* takes on a terminal: wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF") for one in text)


def plural(count: int, noun: str) -> str:
    """Return ``1 item``, ``2,000 items``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration_text(seconds: float) -> str:
    """Return *seconds* for people: ``0.3 s``, ``42 s``, ``3m 05s``, ``2h 10m``, ``4d 3h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02}m" if whole < 86400 else f"{whole // 86400}d {whole % 86400 // 3600}h"


def rate_text(items_per_s: float) -> str:
    """Return a rate for people: ``1,240/s``, ``3.2/s``, ``14/min``."""
    if items_per_s >= 9.95:
        return f"{items_per_s:,.0f}/s"
    return (
        f"{items_per_s:.1f}/s"
        if items_per_s >= 0.95
        else f"{items_per_s * 60:.0f}/min"
        if items_per_s * 60 >= 0.95
        else f"{items_per_s * 3600:.1f}/h"
    )


def write_utf8(lines: list[str]) -> None:
    """Write *lines* and their ends to stdout in UTF-8."""
    write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))


def write_bytes(data: bytes) -> None:
    """
    Print *data* on stdout as it is.

    Raises:
        OutputError: stdout is gone or full.
    """
    with output_errors():
        sys.stdout.flush()
        sys.stdout.buffer.write(data)


@contextlib.contextmanager
def output_errors() -> Iterator[None]:
    """Turn what the system says about stdout in the body into an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(error) from error
    except AttributeError as error:
        # Python has no stdout at all when its descriptor was closed before the start.
        raise OutputError(OSError(9, "it is closed")) from error
