"""
Looking again each second: lines that stay in their place on a terminal, a line whenever something has changed elsewhere.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Self, TypeVar

from durabatch.cli import printing

__all__ = ["Log", "Screen", "looked_again"]

EACH_S = 1.0

_Seen = TypeVar("_Seen")


def looked_again(look: Callable[[], _Seen], goes_on: Callable[[_Seen], bool], show: Callable[[_Seen], None]) -> _Seen:
    """Look each second and show what was seen, as long as it goes on; return what was seen last, which is not shown."""
    while goes_on(seen := look()):
        show(seen)
        time.sleep(EACH_S)
    return seen


class Screen:
    """Lines on the terminal that stdout is, drawn again in the same place; they are gone when the context is left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(no_color=not printing.has_color(sys.stdout), highlight=False)
        self.live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)

    def __enter__(self) -> Self:
        """Begin to draw."""
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the lines away."""
        self.live.stop()

    def show(self, lines: list[str]) -> None:
        """Draw *lines*, each cut to the width of the terminal."""
        from rich.text import Text

        text = Text("\n", no_wrap=True, overflow="ellipsis").join(Text.from_ansi(line) for line in lines)
        self.live.update(text, refresh=True)


class Log:
    """
    Lines one after the other, each printed at once.

    Args:
        write: What prints a line.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self.write = write
        self.last = ""

    def show(self, line: str) -> None:
        """Print *line*, unless it is the one before."""
        if line != self.last:
            self.last = line
            self.write(line)
            printing.flush()
