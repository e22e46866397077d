"""
How a run tells how far it is, on stderr: a bar for a terminal, a line now and then for a log, JSON for a program, or nothing.

A display is fed after commits, so what it shows is on disk. It draws at most a few times a second whatever it is fed, and being unable
to draw never ends a run. Closing it takes the bar away: the summary says the rest.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol

from durabatch.cli import printing
from durabatch.cli.printing import clean, duration_text, rate_text, say
from durabatch.clock import monotonic_s
from durabatch.models import Progress, Summary

__all__ = ["BarDisplay", "Display", "JsonDisplay", "PlainDisplay", "SilentDisplay", "chosen_kind", "open_display", "progress_text"]

BAR_S, PLAIN_S, JSON_S = 0.2, 30.0, 1.0
#: Places for ``1,203,456 of 2,000,000 done, 13 failed, 8,200/s, 1m 37s left``.
FIGURES_WIDTH = 64


class Display(Protocol):
    """What shows the progress of one run."""

    def show(self, progress: Progress) -> None:
        """Take in how far the run is."""
        ...

    def note(self, sentence: str) -> None:
        """Print *sentence*, whatever else is shown."""
        ...

    def close(self) -> None:
        """Show how far the run came in the end, where that is not for others to say; nothing is drawn afterwards."""
        ...


class SilentDisplay:
    """Shows no progress, only notes."""

    def show(self, progress: Progress) -> None:
        """Do nothing: this kind of display was asked to be silent."""

    def note(self, sentence: str) -> None:
        """Print *sentence*."""
        say(f"durabatch: {clean(sentence)}")

    def close(self) -> None:
        """Do nothing: there is nothing to take away."""


class Ticker:
    """Says when it is time again: at once the first time, then every *interval_s*."""

    def __init__(self, interval_s: float, clock: Callable[[], float]) -> None:
        self.interval_s = interval_s
        self.clock = clock
        self.last_s: float | None = None

    def is_due(self) -> bool:
        """Return whether it is time, and count it as used."""
        now_s = self.clock()
        if self.last_s is not None and now_s - self.last_s < self.interval_s:
            return False
        self.last_s = now_s
        return True


class PlainDisplay(SilentDisplay):
    """A line at the start, one every 30 seconds, one at the end; for logs."""

    interval_s = PLAIN_S

    def __init__(self, clock: Callable[[], float] = monotonic_s) -> None:
        self.ticker = Ticker(self.interval_s, clock)
        self.latest: Progress | None = None
        self.shown: Progress | None = None

    def show(self, progress: Progress) -> None:
        """Print what ``write`` prints, when it is time."""
        self.latest = progress
        if self.ticker.is_due():
            self.write(progress)

    def close(self) -> None:
        """Print the last line, unless it was printed."""
        if self.latest is not None and self.latest is not self.shown:
            self.write(self.latest)

    def write(self, progress: Progress) -> None:
        """Print one line."""
        self.shown = progress
        say(f"durabatch: {clean(progress.run_name)}: {progress_text(progress)}")


class JsonDisplay(PlainDisplay):
    """A JSON object a line, about every second: ``{"event": "progress" | "note" | "end", ...}``; for programs."""

    interval_s = JSON_S

    def note(self, sentence: str) -> None:
        """Print *sentence* as an event."""
        say(event_text("note", {"text": sentence}))

    def write(self, progress: Progress) -> None:
        """Print one object."""
        self.shown = progress
        facts = asdict(progress)
        say(event_text("progress", {"run": facts.pop("run_name"), **facts}))

    def end(self, summary: Summary) -> None:
        """Print how it ended as the last event."""
        facts = {"exit_code": summary.exit_code, "executed": summary.executed, "resumed": summary.resumed, "output": summary.output}
        errors = [asdict(group) for group in summary.errors]
        undone = None if summary.rolled_back is None else asdict(summary.rolled_back)
        say(event_text("end", {**facts, "run": summary.status.as_json(), "errors": errors, "rolled_back": undone}))


class BarDisplay:
    """One bar of rich's at the bottom of a terminal; whatever else is printed meanwhile goes above it."""

    def __init__(self, clock: Callable[[], float] = monotonic_s) -> None:
        self.ticker = Ticker(BAR_S, clock)
        self.bar: Any = None
        self.task: Any = None

    def show(self, progress: Progress) -> None:
        """Redraw when it is time."""
        if not self.ticker.is_due():
            return
        with contextlib.suppress(OSError):
            total = progress.counts.total if progress.intake_complete else None
            completed, total = (progress.counts.ended, total) if progress.undoing is None else progress.undoing
            now = {"total": total, "completed": completed, "figures": progress_text(progress)}
            if self.bar is None:
                self.open(progress.run_name, now)
            else:
                self.bar.update(self.task, **now)
                self.bar.refresh()

    def note(self, sentence: str) -> None:
        """Print *sentence* above the bar."""
        if self.bar is None:
            say(f"durabatch: {clean(sentence)}")
            return
        with contextlib.suppress(OSError):
            self.bar.console.print(f"durabatch: {clean(sentence)}", markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            with contextlib.suppress(OSError):
                self.bar.stop()
            self.bar = None

    def open(self, name: str, now: dict[str, Any]) -> None:
        """Draw the bar for the first time; rich is loaded here, since most commands never need it."""
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        console = Console(stderr=True, no_color=not printing.has_color(sys.stderr))
        bar_width = max(8, min(24, console.width - FIGURES_WIDTH - 16))
        name_width = max(8, min(32, console.width - FIGURES_WIDTH - bar_width - 2))
        columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width), TextColumn("{task.fields[figures]}", markup=False))
        # What handlers print in this process is shown above the bar; stdout that leads elsewhere is left alone.
        to_terminal = sys.stdout is not None and sys.stdout.isatty()
        self.bar = RichProgress(*columns, console=console, auto_refresh=False, transient=True, redirect_stdout=to_terminal)
        self.task = self.bar.add_task(printing.shortened(clean(name), name_width), **now)
        self.bar.start()


def chosen_kind(kind: str) -> str:
    """Return *kind*, or for ``auto`` a bar on a terminal and plain lines elsewhere."""
    if kind != "auto":
        return kind
    is_terminal = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return "bar" if is_terminal else "plain"


def open_display(kind: str) -> Display:
    """Return the display of that kind; nothing is drawn yet."""
    kinds: dict[str, Callable[[], Display]] = {"bar": BarDisplay, "plain": PlainDisplay, "json": JsonDisplay, "none": SilentDisplay}
    return kinds[chosen_kind(kind)]()


def progress_text(progress: Progress) -> str:
    """
    Return ``1,203 of 2,000 done, 13 failed, 820/s, 1 s left``; a total that still grows is shown as ``>=1,400``.

    Of a rollback: ``120 of 412 steps undone, 48 items``.
    """
    counts = progress.counts
    if progress.undoing is not None:
        done, all_steps = progress.undoing
        return f"{done:,} of {all_steps:,} steps undone, {printing.plural(counts.undone, 'item')}"
    total = f"{counts.total:,}" if progress.intake_complete else f">={counts.total:,}"
    failed = counts.failed + counts.quarantined
    parts = [f"{counts.ended:,} of {total} done", f"{failed:,} failed" if failed else ""]
    parts += [rate_text(progress.items_per_s) if progress.items_per_s and counts.left else ""]
    parts += [f"{duration_text(progress.eta_s)} left" if progress.eta_s is not None and counts.left else ""]
    return ", ".join(part for part in parts if part)


def event_text(event: str, facts: dict[str, Any]) -> str:
    """Return one line of JSON."""
    return printing.json_text({"schema_version": 1, "event": event, **facts})
