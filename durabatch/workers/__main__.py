"""
Entry of a worker process: ``python -P .../durabatch/workers/__main__.py IN OUT LOCK``, see ``spawn_argv``.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # Started by path: the worker must use the durabatch of its coordinator, wherever that came from, and all else as installed.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    import durabatch  # noqa: F401

    del sys.path[0]
    from durabatch.workers.main import main

    sys.exit(main(sys.argv[1:]))
