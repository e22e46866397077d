"""
That a run stops before its end, and how.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Stopping"]


@dataclass(slots=True)
class Stopping:
    """
    Why the run stops before its end, and since when; ``cancelled`` says that it is not to be resumed.

    Without ``exit_code`` it is that of a run that has finished. ``by_limit``: one of its own limits has halted it.
    """

    reason: str
    since_s: float
    cancelled: bool = False
    exit_code: int | None = 3
    by_limit: bool = False
