"""
Entry of a measuring process: ``child.py MODULE.FUNCTION ARGUMENTS`` prints what the function returns as one line of JSON.
"""

from __future__ import annotations

import importlib
import json
import sys

import checkout  # noqa: F401 - comes before whatever imports durabatch


def main() -> None:
    """Call the function with the arguments and print its numbers."""
    module, _, name = sys.argv[1].partition(".")
    function = getattr(importlib.import_module(module), name)
    print("\n" + json.dumps(function(**json.loads(sys.argv[2]))))


if __name__ == "__main__":
    main()
