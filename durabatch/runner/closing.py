"""
Closing an open run, from any process: it is written down, and whoever works on the run notices.
"""

from __future__ import annotations

import os
from contextlib import closing

from durabatch.clock import now_us
from durabatch.engine.close import close_run
from durabatch.engine.status import status
from durabatch.runner.adding import Submitter
from durabatch.runner.steering import Answer

__all__ = ["closed"]


def closed(path: str | os.PathLike[str], wanted: str | int | None, *, durability: str = "power", allow_network_fs: bool = False) -> Answer:
    """
    Have a run take no more items, and return where it stands then.

    Raises:
        NotFoundError: There is no such run.
        LedgerError: The ledger cannot be used.
    """
    with closing(Submitter(os.fspath(path), durability=durability, allow_network_fs=allow_network_fs)) as submitter:
        ledger = submitter.connection(create=False)
        found = status(ledger, wanted)
        is_new = close_run(ledger, found.run_id, now_us=now_us())
        return Answer(status(ledger, found.run_id), "closed" if is_new else "it was closed already")
