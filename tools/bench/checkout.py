"""
Importing this makes durabatch importable: that of the checkout which ``BENCH_CHECKOUT`` names, else the installed one, else this checkout's.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

__all__ = ["ROOT", "VARIABLE"]

ROOT = str(Path(__file__).resolve().parents[2])
VARIABLE = "BENCH_CHECKOUT"


def place() -> None:
    """Put the checkout on the module path; ImportError when another durabatch than the one that was asked for would be measured."""
    wanted = os.environ.get(VARIABLE)
    if wanted:
        sys.path.insert(1, wanted)
    found = importlib.util.find_spec("durabatch")
    if found is None:
        sys.path.append(ROOT)
    elif wanted and found.origin != os.path.join(wanted, "durabatch", "__init__.py"):
        raise ImportError(f"durabatch comes from {found.origin}, not from {wanted}")


place()
