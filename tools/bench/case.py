"""
What a comparison is: sides that do the same, and what should come out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Case", "Side"]


@dataclass(frozen=True, slots=True)
class Side:
    """
    One way to do it; the first side of a case is durabatch.

    Attributes:
        function: ``MODULE.NAME`` of this directory.
        root: The checkout whose durabatch is measured; None for the one that is found here.
    """

    label: str
    function: str
    make_arguments: Callable[[], dict[str, Any]]
    root: str | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments; input files are made when they are first asked for."""
        return self.make_arguments()


@dataclass(frozen=True, slots=True)
class Case:
    """
    Sides to compare.

    Attributes:
        unit: Of the values: ``items/s``, ``rows/s``, ``MB/s``, ``files/min`` and ``%`` are better when higher, ``s`` when lower.
        goal: What should come out, in words.
    """

    name: str
    unit: str
    sides: tuple[Side, ...]
    goal: str = ""
