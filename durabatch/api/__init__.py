"""
What Python users hold: ``map``, ``amap``, and the ledger with its runs.

The runner is imported by the calls that coordinate alone, so that looking at a ledger starts quickly.
"""

from durabatch.api.ledger import Ledger
from durabatch.api.mapping import amap, map
from durabatch.api.run import Run

__all__ = ["Ledger", "Run", "amap", "map"]
