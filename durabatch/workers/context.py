"""
What a handler may know and do about the item it was called with: the optional second parameter ``ctx``.
"""

from __future__ import annotations

import difflib
import math
import re
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from durabatch.errors import UndoError, UsageError
from durabatch.workers.allowance import End

if TYPE_CHECKING:
    from durabatch.workers.promises import Promises, UndoLog
    from durabatch.workers.protocol import Recorded

__all__ = ["Context", "unknown_resource"]

#: Amounts are added under it: a handler may spend in several threads.
_spending = threading.Lock()
#: What a unit is called, here and in ``--budget``.
UNIT = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)


def _no_resource(name: str) -> object:
    raise unknown_resource(name, [])


class Context:
    """
    One attempt at one item, as its handler sees it.

    Args:
        item_id: Number of the item in the ledger; stays the same over attempts and resumes.
        item_key: Identity of the item within its run.
        attempt: Number of this try, from 1.
        run_name: Name of the run.
        open_resource: Finds what ``resource`` returns; without it there is nothing.
        promises: Where undo entries are recorded; without it none can be.
        dispatch_id: What the worker got the item with.

    Attributes:
        cancelled: True once the attempt was told to end, since its time is up: a value no longer counts. For async handlers that catch the
            cancellation; a sync handler is ended from outside, with its process.
        spent: What ``spend`` has noted so far, by unit; None as long as that is nothing.
    """

    __slots__ = (
        "_dispatch_id", "_limit", "_old", "_open_resource", "_promises", "_undo_log", "attempt", "cancelled", "item_id", "item_key", "run_name",
        "spent",
    )  # fmt: skip

    #: The old content that an undo step needs, packed; there for steps alone.
    _old: bytes | None

    def __init__(
        self,
        item_id: int,
        item_key: str,
        attempt: int,
        run_name: str,
        open_resource: Callable[[str], object] = _no_resource,
        promises: Promises | None = None,
        dispatch_id: int = 0,
    ) -> None:
        self.item_id = item_id
        self.item_key = item_key
        self.attempt = attempt
        self.run_name = run_name
        self.cancelled = False
        self.spent: dict[str, float] | None = None
        #: Asked again and again while a command runs: when it has to end.
        self._limit: Callable[[], End | None] | None = None
        self._open_resource = open_resource
        self._promises = promises
        self._dispatch_id = dispatch_id
        self._undo_log: UndoLog | None = None

    @property
    def files(self) -> Any:
        """
        File operations that can be undone: ``write``, ``replace``, ``move``, ``mkdir``, ``remove``; see :class:`durabatch.workers.files.Files`.

        Each records what undoes it, with the old content, before it touches anything. In async handlers each is to be awaited.

        Raises:
            UndoError: This is no attempt of a run.
        """
        return self._log("ctx.files").files(self.run_name)

    @property
    def idempotency_key(self) -> str:
        """
        A text that is the same at every try of this item, also after a crash, and differs between items and between runs.

        For services that take such a key: a request sent twice counts once.
        """
        return f"{self.run_name}/{self.item_key}"

    def resource(self, name: str = "default") -> Any:
        """
        Return what ``@handler(resources={name: factory})`` made: one for each worker, opened at first use, closed at its end.

        Without a name: what ``@handler(setup=...)`` returned. Where the factory is async, an awaitable.

        Raises:
            UsageError: The handler declares nothing of that name.
        """
        return self._open_resource(name)

    def undo(self, action: str, /, **arguments: Any) -> Any:
        """
        Record what takes back an effect, to be called before the effect: the entry is on disk on return. Async handlers await it.

        It is undone when this attempt does not succeed, and when the item is rolled back. Whether the effect happened is not known then.

        Args:
            action: Name of a registered action, see :func:`durabatch.undo_action`.
            arguments: What the action is called with, kept as JSON, at most 64 KiB.

        Raises:
            UndoError: Nothing was recorded: no such action, other arguments than it takes, or ones that JSON cannot hold; the attempt is
                over; or this is no attempt of a run. The effect must not happen.
        """
        return self._log("ctx.undo").undo(action, arguments)

    def spend(self, **amounts: float) -> None:
        """
        Note what this attempt costs, by unit, as in ``ctx.spend(usd=0.02, tokens=1200)``; counts for ``--budget``, also when the item fails.

        Raises:
            UsageError: An amount is not a number, or negative.
        """
        for unit, amount in amounts.items():
            if not UNIT.fullmatch(unit):
                raise UsageError(f"ctx.spend: {unit!r} is not a unit", "Use small letters, digits and _, as in usd.")
            if isinstance(amount, bool) or not isinstance(amount, int | float) or not math.isfinite(amount) or amount < 0:
                raise UsageError(f"ctx.spend: {unit}={amount!r} is not an amount", "Give a number, 0 or more.")
        with _spending:
            if self.spent is None:
                self.spent = {}
            for unit, amount in amounts.items():
                self.spent[unit] = self.spent.get(unit, 0.0) + float(amount)

    def log(self, text: object) -> None:
        """Write *text* to the standard error of the worker, every line of it marked with the item's key."""
        key = self.item_key if self.item_key.isprintable() else repr(self.item_key)
        sys.stderr.write("".join(f"[{key}] {line}\n" for line in str(text).splitlines() or [""]))
        sys.stderr.flush()

    def _log(self, what: str) -> UndoLog:
        """Return the undo log of the attempt; UndoError, about *what* was asked for, where there is none."""
        if self._undo_log is None:
            if self._promises is None:
                raise UndoError(f"{what} works only in an attempt of a run, not in a preflight check and not outside of a run")
            self._undo_log = self._promises.make_log(self._dispatch_id, self.item_id, self.attempt)
        return self._undo_log

    def _promise(
        self, action: str, arguments: str, answered: Callable[[Recorded], None], *, is_irreversible: bool = False
    ) -> None:
        """Send an undo entry with arguments as JSON text, and return; *answered* is called once, in whatever thread. UndoError: not sent."""
        self._log("undo-log").post(action, arguments, answered, is_irreversible=is_irreversible)

    def _end(self, *, has_failed: bool) -> None:
        """Have no more undo entries recorded; UndoError when the attempt has succeeded and something was not awaited."""
        if self._undo_log is not None:
            self._undo_log.end(has_failed=has_failed)

    def __repr__(self) -> str:
        return f"Context(item_id={self.item_id}, item_key={self.item_key!r}, attempt={self.attempt}, run_name={self.run_name!r})"


def unknown_resource(name: str, known: list[str]) -> UsageError:
    """Return the error for a resource that is not declared."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"There is: {', '.join(map(repr, known))}." if known else ""
    return UsageError(f"ctx.resource({name!r}): no such resource", hint or "Declare it: @handler(setup=...) or @handler(resources={...}).")
