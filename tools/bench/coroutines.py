"""
What the items do that wait. Apart from the other handlers, whose workers need not load asyncio.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["nap"]

#: Seconds that an item waits.
NAP_S = 0.05


async def nap(item: dict[str, Any]) -> dict[str, int]:
    """Return the next number after a while, as a service would that is asked for it."""
    await asyncio.sleep(NAP_S)
    return {"n": item["n"] + 1}
