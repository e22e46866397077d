"""
The undo log of async handlers: what they call is to be awaited, and what they did not await fails their item.

Entries are sent when ``ctx.undo`` is called. File operations begin when they are awaited and run in threads of their own, so that the loop is
not held up; an attempt does not end, not even by a cancel, before they have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from durabatch.errors import UndoError
from durabatch.workers.promises import OVER, Promises, UndoLog, accept, entry_of
from durabatch.workers.protocol import Recorded

if TYPE_CHECKING:
    from durabatch.workers.files import AsyncFiles

__all__ = ["AsyncUndoLog", "Awaited", "on_loop"]

#: Threads in which the file operations of a process run.
MAX_THREADS = 16
#: Made when the first operation comes; its threads end with the process.
_executors: list[ThreadPoolExecutor] = []


def on_loop(promises: Promises, loop: asyncio.AbstractEventLoop) -> Promises:
    """Return *promises*, from here on those of async handlers on *loop*."""
    promises.loop = loop
    promises.make_log = partial(AsyncUndoLog, promises, loop)
    return promises


class AsyncUndoLog(UndoLog):
    """The undo entries of one attempt of an async handler."""

    def __init__(self, promises: Promises, loop: asyncio.AbstractEventLoop, dispatch_id: int, item_id: int, number: int) -> None:
        super().__init__(promises, dispatch_id, item_id, number)
        self._loop = loop
        self._unawaited: list[Awaited] = []
        self._running: set[Future[None]] = set()

    @property
    def is_busy(self) -> bool:  # type: ignore[override]
        """Whether a file operation still runs."""
        return bool(self._running)

    def undo(self, action: str, arguments: Mapping[str, Any]) -> Awaited:
        """Send an entry of an action of the user's and return what is to be awaited until it is on disk."""
        text, is_irreversible = entry_of(action, arguments)
        if not self.promises.is_in_loop():
            raise UndoError(f"ctx.undo({action!r}) was called outside the loop of its async handler", "Call and await it in the handler.")
        return self.awaited(action, text, is_irreversible=is_irreversible)

    def files(self, run_name: str) -> AsyncFiles:
        """Return the file operations, each to be awaited."""
        from durabatch.workers.files import AsyncFiles, Files

        return AsyncFiles(Files(self.keep, self.promises.max_undo_bytes, run_name), self.work)

    def awaited(self, action: str, arguments: str, *, is_irreversible: bool = False) -> Awaited:
        """Send the next entry and return what is to be awaited until it is on disk."""
        answer: asyncio.Future[Recorded] = self._loop.create_future()

        def settle(recorded: Recorded) -> None:
            if not answer.done():
                answer.set_result(recorded)

        def answered(recorded: Recorded) -> None:
            try:
                self._loop.call_soon_threadsafe(settle, recorded)
            except RuntimeError:
                # The loop is closed, and with it everything that could wait.
                return

        async def wait() -> None:
            # Shielded: it may be given up and awaited again.
            accept(action, await asyncio.shield(answer))

        self.post(action, arguments, answered, is_irreversible=is_irreversible)
        return Awaited(f"ctx.undo({action!r})", wait, self._unawaited)

    def work(self, name: str, work: Callable[[], None]) -> Awaited:
        """Return what is to be awaited to have *work*, an operation called *name*, done in a thread."""
        return Awaited(f"ctx.{name}", lambda: self._do(work), self._unawaited)

    def end(self, *, has_failed: bool) -> None:
        """Record nothing more; UndoError when the attempt has succeeded and something was not awaited to its end."""
        super().end(has_failed=has_failed)
        if self._unawaited and not has_failed:
            raise UndoError(f"{self._unawaited[0].name} was not awaited", "An effect may come only when its undo entry is on disk.")

    def when_idle(self, call: Callable[[], object]) -> None:
        """Have the loop *call* once no file operation runs any more."""
        if not self._running:
            call()
            return
        next(iter(self._running)).add_done_callback(lambda _: self._soon(partial(self.when_idle, call)))

    async def _do(self, work: Callable[[], None]) -> None:
        if self._is_over or self.promises.is_closed:
            raise UndoError(OVER)
        doing = executor().submit(work)
        for kept in (self._running, self.promises.doing):
            kept.add(doing)
            doing.add_done_callback(kept.discard)
        try:
            await asyncio.shield(asyncio.wrap_future(doing))
        except asyncio.CancelledError:
            if not doing.cancel():
                await ended(doing)
            raise

    def _soon(self, call: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            # The loop is closed: the attempt was cut off.
            return


class Awaited:
    """
    Something that an async handler has to await: until then its undo entry is not known to be on disk.

    Attributes:
        name: What was called, for messages.
    """

    __slots__ = ("_unawaited", "_wait", "name")

    def __init__(self, name: str, wait: Callable[[], Coroutine[Any, Any, None]], unawaited: list[Awaited]) -> None:
        self.name = name
        self._wait = wait
        self._unawaited = unawaited
        unawaited.append(self)

    def __await__(self) -> Generator[Any, None, None]:
        """Wait for it; UndoError when nothing was recorded."""
        try:
            yield from self._wait().__await__()
        finally:
            if self in self._unawaited:
                self._unawaited.remove(self)


def executor() -> ThreadPoolExecutor:
    """Return the threads for file operations."""
    if not _executors:
        _executors.append(ThreadPoolExecutor(MAX_THREADS, "durabatch-files"))
    return _executors[0]


async def ended(doing: Future[None]) -> None:
    """Return when *doing* has ended in whatever way; a further cancel does not change that."""
    while not doing.done():
        try:
            await asyncio.wait([asyncio.wrap_future(doing)])
        except asyncio.CancelledError:
            continue
