"""
The file of failures: the items that failed, as lines of JSON that are input again.

Each line is the payload of an item to the byte, and so is its key: ``durabatch run HANDLER FILE.failures.jsonl`` (with the ``--key`` of
the first run, if it had one) tries them again as a run of its own. What was wrong with them `durabatch errors` tells.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from durabatch.output.atomic import write_whole

__all__ = ["SUFFIX", "sibling", "write_failures"]

SUFFIX = ".failures.jsonl"


def sibling(output: Path) -> Path:
    """Return where the failures of a run go whose results go to *output*."""
    return output.with_name(output.name + SUFFIX)


def write_failures(path: Path, payloads: Iterable[str]) -> None:
    """
    Write one payload a line to *path*, in place of what is there; on return the file is on disk.

    Raises:
        OutputError: It could not be written; what was there before is there still.
    """
    write_whole(path, (f"{payload}\n" for payload in payloads))
