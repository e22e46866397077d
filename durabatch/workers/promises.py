"""
What an attempt promises to be able to take back: undo entries, each on disk before whoever recorded it goes on.

    ctx.undo(...) ──Promise──▶ coordinator ──COMMIT──▶ Recorded ──▶ ctx.undo returns

In a worker the link sends a promise and brings the answer; inline the coordinator is asked directly. There are two faces: plain handlers
wait in their thread (here), async handlers get something to await (:mod:`durabatch.workers.awaiting`).
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from durabatch import actions
from durabatch.codec import encode_value, frame_digest, pack_frame
from durabatch.errors import ResultError, ResultTooLargeError, UndoError
from durabatch.sizes import size_text
from durabatch.workers.protocol import MAX_FRAME_BYTES, Promise, Recorded

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

    from durabatch.workers.files import AsyncFiles, Files

__all__ = ["MAX_ARGUMENTS_BYTES", "OVER", "Answered", "Promises", "UndoLog", "accept", "entry_of"]

#: Most bytes of the arguments of one entry, as JSON.
MAX_ARGUMENTS_BYTES = 64 * 1024
#: What surrounds an old content in its frame.
SPARE_BYTES = 1 << 20
#: How often is looked, at the end, whether a file operation still runs.
CLOSING_LOOK_S = 0.002
OVER = "the attempt is over, so nothing can be recorded for it any more"

Answered = Callable[[Recorded], None]


class Promises:
    """
    The promises of one worker that wait for their answer; safe to use from several threads.

    Args:
        send: Sends a promise; returns its answer, or None when that comes by ``answer``. With a loop it is called in the loop's thread.
        max_undo_bytes: Most bytes of old content that one entry may keep.

    Attributes:
        loop: The loop of async handlers, see :func:`durabatch.workers.awaiting.on_loop`; None for plain ones.
        make_log: Makes the log of an attempt, with the face that the handler needs, of its dispatch, item and number.
        is_closed: Nothing is recorded any more.
        doing: File operations of async handlers that run in threads.
    """

    def __init__(self, send: Callable[[Promise], Recorded | None], *, max_undo_bytes: int = 64 << 20) -> None:
        self.max_undo_bytes = max_undo_bytes
        self.loop: asyncio.AbstractEventLoop | None = None
        self.make_log: Callable[[int, int, int], UndoLog] = partial(UndoLog, self)
        self._send = send
        self._pid = os.getpid()
        self._tokens = itertools.count(1)
        self._waiting: dict[int, Answered] = {}
        self.is_closed = False
        self.doing: set[Future[None]] = set()

    def post(self, promise: Promise, answered: Answered) -> None:
        """
        Send a promise and return; *answered* is called once, in whatever thread, perhaps before this returns.

        Raises:
            UndoError: This is a process that the handler forked off, or the run is over. Nothing was recorded.
        """
        if os.getpid() != self._pid:
            raise UndoError("an effect can be recorded only by the process that runs the handler, not by one that it has forked off")
        if self.is_closed:
            raise UndoError(OVER)
        self._waiting[promise.token] = answered
        if self.loop is None or self.is_in_loop():
            try:
                self._post(promise)
            except BaseException:
                self._waiting.pop(promise.token, None)
                raise
        else:
            self._in_loop(promise)

    def answer(self, recorded: Recorded) -> None:
        """Hand an answer to whoever waits for it."""
        answered = self._waiting.pop(recorded.token, None)
        if answered is not None:
            answered(recorded)

    def next_token(self) -> int:
        """Return a number that no promise has had."""
        return next(self._tokens)

    def is_in_loop(self) -> bool:
        """Return whether the caller is run by the loop."""
        import asyncio

        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    def close(self) -> None:
        """Refuse what still waits and what comes later; wait for what is being done to files."""
        self.is_closed = True
        self._refuse()
        while any(not one.done() for one in list(self.doing)):
            time.sleep(CLOSING_LOOK_S)
            self._refuse()

    def _refuse(self) -> None:
        for token in list(self._waiting):
            self.answer(Recorded(token, refusal=OVER))

    def _post(self, promise: Promise) -> None:
        recorded = self._send(promise)
        if recorded is not None:
            self.answer(recorded)

    def _post_guarded(self, promise: Promise) -> None:
        if promise.token not in self._waiting:
            # Refused meanwhile.
            return
        try:
            self._post(promise)
        except BaseException as error:  # noqa: BLE001 - whoever waits is in another thread and must be told
            self.answer(Recorded(promise.token, refusal=f"{type(error).__name__}: {error}"))

    def _in_loop(self, promise: Promise) -> None:
        assert self.loop is not None
        try:
            self.loop.call_soon_threadsafe(self._post_guarded, promise)
        except RuntimeError:
            self.answer(Recorded(promise.token, refusal=OVER))


class UndoLog:
    """
    The undo entries of one attempt of a plain handler, in the order in which they were recorded.

    Attributes:
        is_busy: Something that the handler began still runs, and has to end before the attempt does.
    """

    is_busy = False

    def __init__(self, promises: Promises, dispatch_id: int, item_id: int, number: int) -> None:
        self.promises = promises
        self._dispatch_id = dispatch_id
        self._item_id = item_id
        self._number = number
        self._count = 0
        #: Entries are numbered and sent under it: a handler may record in several threads.
        self._turn = threading.Lock()
        self._is_over = False

    def undo(self, action: str, arguments: Mapping[str, Any]) -> object:
        """Record an entry of an action of the user's and return None: it is on disk. UndoError: it is not."""
        text, is_irreversible = entry_of(action, arguments)
        self.wait(action, text, is_irreversible=is_irreversible)
        return None

    def files(self, run_name: str) -> Files | AsyncFiles:
        """Return the file operations that record here what undoes them."""
        from durabatch.workers.files import Files

        return Files(self.keep, self.promises.max_undo_bytes, run_name)

    def keep(self, action: str, arguments: Mapping[str, Any], old: bytes | None) -> None:
        """Record an entry of a file action with what stands there now, and wait in this thread until it is on disk; UndoError when it is not."""
        self.wait(action, text_of(action, arguments), old=old)

    def post(self, action: str, arguments: str, answered: Answered, *, is_irreversible: bool = False, old: bytes | None = None) -> None:
        """Send the next entry, with its arguments as JSON text, and return; see ``Promises.post``."""
        kept: dict[str, Any] = {}
        if old is not None:
            kept = {"old": packed(action, old), "old_bytes": len(old), "old_digest": frame_digest(old)}
        with self._turn:
            if self._is_over:
                raise UndoError(OVER)
            self._count += 1
            token, place = self.promises.next_token(), (self._dispatch_id, self._item_id, self._number, self._count)
            self.promises.post(Promise(token, *place, action, arguments, is_irreversible, **kept), answered)

    def wait(self, action: str, arguments: str, *, is_irreversible: bool = False, old: bytes | None = None) -> None:
        """Send the next entry and wait in this thread until it is on disk; UndoError when it is not."""
        answers: list[Recorded] = []
        there = threading.Lock()
        there.acquire()

        def answered(recorded: Recorded) -> None:
            answers.append(recorded)
            there.release()

        self.post(action, arguments, answered, is_irreversible=is_irreversible, old=old)
        there.acquire()
        accept(action, answers[0])

    def end(self, *, has_failed: bool) -> None:  # noqa: ARG002 - a plain handler has waited for everything
        """Record nothing more."""
        with self._turn:
            self._is_over = True


def entry_of(action: object, arguments: Mapping[str, Any]) -> tuple[str, bool]:
    """
    Return the arguments of an entry as JSON text, and whether its effect cannot be taken back.

    Raises:
        UndoError: No such action, arguments that it does not take, or that JSON cannot hold.
    """
    if not isinstance(action, str):
        raise UndoError(f"ctx.undo: {action!r} is not the name of an action", 'Register it: @durabatch.undo_action("delete_site").')
    if action.startswith(actions.BUILT_IN):
        raise UndoError(f"ctx.undo({action!r}): file actions are recorded by ctx.files itself", "Call that instead.")
    known = actions.find(action)
    text = text_of(action, arguments)
    wrong = actions.misfit(known, arguments)
    if wrong is not None:
        raise UndoError(f"ctx.undo({action!r}): the action {wrong[0]} {wrong[1]!r}", f"It is {actions.place_of(known.function)}.")
    return text, known.irreversible


def text_of(action: str, arguments: Mapping[str, Any]) -> str:
    """Return arguments as strict JSON text of bounded size, UndoError when that cannot be."""
    try:
        return encode_value(dict(arguments), limit_bytes=MAX_ARGUMENTS_BYTES)
    except ResultTooLargeError as error:
        what = f"arguments of {size_text(error.size_bytes)}, an undo entry holds {size_text(MAX_ARGUMENTS_BYTES)}"
        raise UndoError(f"ctx.undo({action!r}): {what}", "Store what is large elsewhere, and give its place.") from None
    except ResultError as error:
        raise UndoError(f"ctx.undo({action!r}): {error.what}", "Arguments are JSON: text, numbers, true and false, lists, objects.") from None


def accept(action: str, recorded: Recorded) -> None:
    """Return when an entry is on disk; UndoError when it is not, and why."""
    if recorded.refusal is not None:
        raise UndoError(f"the undo entry {action!r} was not recorded: {recorded.refusal}")


def packed(action: str, old: bytes) -> bytes:
    """Return an old content compressed; UndoError when it is too large for a frame."""
    data = pack_frame(old)
    if len(data) > MAX_FRAME_BYTES - SPARE_BYTES:
        raise UndoError(f"{action}: an old content of {size_text(len(data))}, compressed, is too large for an undo entry")
    return data
