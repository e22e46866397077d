"""The errors of a command that did not do its work, with what it left behind. A module of its own: failure.py and command.py both need it."""

from __future__ import annotations

__all__ = ["CommandError", "CommandTimeoutError"]


class CommandError(Exception):
    """
    A command could not be started, ended with another status than 0, or printed what cannot be read.

    ``exit_code`` is its exit status, negative for the number of the signal that ended it, None when it never ran. The tails are the ends
    of what it printed, capped. ``peak_rss_bytes`` is the most memory that its process had, or the worker's when that was more.
    """

    def __init__(
        self,
        message: str,
        *,
        exit_code: int | None = None,
        stdout_tail: str | None = None,
        stderr_tail: str | None = None,
        peak_rss_bytes: int | None = None,
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.stdout_tail = stdout_tail
        self.stderr_tail = stderr_tail
        self.peak_rss_bytes = peak_rss_bytes


class CommandTimeoutError(CommandError):
    """A command was ended because its time, or its processor time, ran out."""
