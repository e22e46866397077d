"""
How a command ended, as tests of the command line look at it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Done"]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str
