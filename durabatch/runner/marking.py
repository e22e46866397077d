"""
Naming a checkpoint, from any process: it is written down, whoever works on the run.
"""

from __future__ import annotations

import os
from contextlib import closing

from durabatch.clock import now_us
from durabatch.engine.checkpoints import mark
from durabatch.runner.adding import Submitter

__all__ = ["marked"]


def marked(
    path: str | os.PathLike[str],
    run_id: int,
    label: str,
    wanted: str | int | None,
    *,
    durability: str = "power",
    allow_network_fs: bool = False,
) -> int:
    """
    Give the checkpoint of that number or name (None: the last one) one more name; return its number.

    Raises:
        NotFoundError: There is no such checkpoint.
        UsageError: The name is none, or another checkpoint has it.
        LedgerError: The ledger cannot be used.
    """
    with closing(Submitter(os.fspath(path), durability=durability, allow_network_fs=allow_network_fs)) as submitter:
        return mark(submitter.connection(create=False), run_id, label, wanted, now_us=now_us())
