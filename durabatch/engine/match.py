"""
A source that has to be read again (a pipe, an iterable, a directory) is compared with what the ledger holds, in pages.
"""

from __future__ import annotations

from collections.abc import Sequence

from durabatch.codec import payload_digest
from durabatch.engine.submit import InputRow
from durabatch.ledger import item, span
from durabatch.ledger.executor import Executor

__all__ = ["Matcher"]

#: Items compared at once.
PAGE = 2000


class Matcher:
    """Walks the items of a run beside the rows of a source that is read from its start."""

    def __init__(self, ledger: Executor, run_id: int) -> None:
        self.ledger = ledger
        self.run_id = run_id
        self.spans = span.list_of_run(ledger, run_id)
        self.position = 0
        self.known: list[tuple[str, bytes]] = []
        self.next_id = self.spans[0][0] if self.spans else 0

    def first_difference(self, rows: Sequence[InputRow]) -> int | None:
        """
        Compare the next *rows* with the next items; return the index of the first row that differs, or None.

        Rows beyond the last item of the ledger are new and differ from nothing: see ``left``.
        """
        for index, (key, payload, _) in enumerate(rows):
            found = self.take()
            if found is None:
                return None
            self.position += 1
            wanted = str(self.position) if key is None else key
            if found != (wanted, payload_digest(payload)):
                return index
        return None

    def take(self) -> tuple[str, bytes] | None:
        """Return key and digest of the next item, or None behind the last one."""
        if not self.known:
            self.known = self.read_page()
            self.known.reverse()
        return self.known.pop() if self.known else None

    def read_page(self) -> list[tuple[str, bytes]]:
        """Return the identities of the next page of items."""
        while self.spans:
            first, last = max(self.next_id, self.spans[0][0]), self.spans[0][1]
            page = item.list_identity(self.ledger, self.run_id, first, last, PAGE) if first <= last else []
            if page:
                self.next_id = first + len(page)
                return page
            self.spans.pop(0)
        return []
