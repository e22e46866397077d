"""
Importing this makes the durabatch of this checkout importable where none is installed.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

__all__ = ["ROOT"]

ROOT = str(Path(__file__).resolve().parents[2])

if importlib.util.find_spec("durabatch") is None:
    sys.path.append(ROOT)
