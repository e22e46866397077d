"""
Rules about what is to be undone, for :mod:`durabatch.engine.verify`: promises, what waits for them, and the contents of before.
"""

from __future__ import annotations

from collections.abc import Generator

from durabatch.codec import unpack_frame
from durabatch.engine.results import MAX_SEGMENT_BYTES
from durabatch.errors import ResultError
from durabatch.ledger import undo
from durabatch.ledger.executor import Executor
from durabatch.states import UndoState

__all__ = ["kept_promises", "sound_contents", "true_promises", "waiting_for_undo"]

#: (where, what was found)
Broken = tuple[str, str]


def true_promises(ledger: Executor) -> Generator[Broken]:
    """Compare entries with items and attempts, and count them."""
    for run_id, said, found in undo.count_mismatches(ledger):
        yield f"run {run_id}", f"undo_count is {said}, there are {found} entries"
    yield from ((f"undo {undo_id}", fault) for undo_id, fault in undo.odd_entries(ledger))


def waiting_for_undo(ledger: Executor) -> Generator[Broken]:
    """Compare items that wait for something to be undone with what is to be."""
    yield from ((f"undoing {item_id}", fault) for item_id, fault in undo.odd_undoing(ledger))
    yield from ((f"undo {undo_id}", "is to be undone, and its item does not wait for it") for undo_id in undo.unclaimed(ledger))
    yield from ((f"item {item_id}", "waits for something to be undone, and nothing is") for item_id in undo.stranded(ledger))


def kept_promises(ledger: Executor) -> Generator[Broken]:
    """Look for effects that nobody takes back."""
    for undo_id, state in undo.forgotten(ledger):
        yield f"undo {undo_id}", f"is not undone and not to be, and its item is {state}"


def sound_contents(ledger: Executor) -> Generator[Broken]:
    """Unpack every content of before."""
    for undo_id, state, raw_bytes, digest, data in undo.blobs(ledger):
        if state == UndoState.UNDONE:
            yield f"undo_blob {undo_id}", "its effect is undone, and the content of before is still kept"
        elif not (isinstance(raw_bytes, int) and isinstance(data, bytes)):
            yield f"undo_blob {undo_id}", "its size or its data is missing"
        else:
            try:
                unpack_frame(data, raw_bytes=raw_bytes, limit_bytes=MAX_SEGMENT_BYTES, digest=digest or b"")
            except ResultError as error:
                yield f"undo_blob {undo_id}", error.what
