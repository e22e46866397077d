"""``python -m durabatch``: the same as the command ``durabatch``."""

from __future__ import annotations

from durabatch.cli.main import main

if __name__ == "__main__":
    main()
