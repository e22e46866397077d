"""
Items that record how their effects are undone before they have them. Imported by workers.
"""

from __future__ import annotations

from typing import Any

import durabatch

__all__ = ["promise", "take_back"]


@durabatch.undo_action("take_back")
def take_back(number: int) -> None:
    """Undo nothing: the no-op among actions."""


def promise(item: dict[str, Any], ctx: durabatch.Context) -> dict[str, int]:
    """Record an undo entry, and return the next number."""
    ctx.undo("take_back", number=item["n"])
    return {"n": item["n"] + 1}
