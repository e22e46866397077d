"""
What a handler may know and do about the item it was called with: the optional second parameter ``ctx``.
"""

from __future__ import annotations

import dataclasses
import sys

__all__ = ["Context"]


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """
    One attempt at one item, as its handler sees it.

    Args:
        item_id: Number of the item in the ledger; stays the same over attempts and resumes.
        item_key: Identity of the item within its run.
        attempt: Number of this try, from 1.
        run_name: Name of the run.
    """

    item_id: int
    item_key: str
    attempt: int
    run_name: str

    @property
    def idempotency_key(self) -> str:
        """
        A text that is the same at every try of this item, also after a crash, and differs between items and between runs.

        For services that take such a key: a request sent twice counts once.
        """
        return f"{self.run_name}/{self.item_key}"

    def log(self, text: object) -> None:
        """Write *text* to the standard error of the worker, every line of it marked with the item's key."""
        key = self.item_key if self.item_key.isprintable() else repr(self.item_key)
        sys.stderr.write("".join(f"[{key}] {line}\n" for line in str(text).splitlines() or [""]))
        sys.stderr.flush()
