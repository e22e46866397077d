"""
Transactions for asynchronous programs: the same, with everything awaited.

    async with ledger.transaction("TRANS-001") as tx:
        hub = await tx.do(create_hub, title="New Hub")

The ledger belongs to a thread of its own, so that the loop never waits for a disk.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import inspect
import os
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from durabatch.api.steps import Broken, called_with, context_of, kept, name_of, payload_of, put_back, undone
from durabatch.errors import DurabatchError, UndoError, UsageError
from durabatch.loading import is_async_function
from durabatch.workers.awaiting import AsyncUndoLog, on_loop
from durabatch.workers.promises import Promises
from durabatch.workers.protocol import Promise, Recorded

if TYPE_CHECKING:
    from durabatch.runner.transacting import Step, Transacting
    from durabatch.workers.context import Context

__all__ = ["AsyncTransaction", "AsyncTransactionFiles", "Pending"]

_T = TypeVar("_T")
PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]
#: The transactions one of whose steps the present task belongs to.
_inside: contextvars.ContextVar[tuple[object, ...]] = contextvars.ContextVar("durabatch_transactions", default=())


class Pending(Generic[_T]):
    """A step that begins when it is awaited; one that never is keeps its transaction from being committed."""

    def __init__(self, name: str, begin: Callable[[], Awaitable[_T]], unawaited: list[Pending[Any]]) -> None:
        self.name = name
        self._begin = begin
        self._unawaited = unawaited
        unawaited.append(self)

    def __await__(self) -> Generator[Any, None, _T]:
        """Do the step, and return its value."""
        if self in self._unawaited:
            self._unawaited.remove(self)
        return (yield from self._begin().__await__())


class AsyncTransaction:
    """
    A transaction that is open in an event loop. Steps that are awaited at the same time are done one after the other.

    Attributes:
        files: Changes of files, each a step that is to be awaited; see ``Context.files``.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="durabatch")
        self.turn = asyncio.Lock()
        self.broken = Broken()
        self.unawaited: list[Pending[Any]] = []
        self.opened: list[Transacting] = []
        self.files = AsyncTransactionFiles(self)

    async def begin(self, begin: Callable[[], Transacting]) -> None:
        """Take the ledger; what keeps it from being taken comes out."""
        try:
            await self.in_thread(self.open, begin)
        except BaseException:
            if self.opened:
                # It was cancelled meanwhile.
                await self.in_thread(undone, self.core)
            self.thread.shutdown(wait=False)
            raise
        limit = self.core.request.settings.max_undo_bytes
        self.promises = on_loop(Promises(self.send, max_undo_bytes=limit), asyncio.get_running_loop())
        self.plain_promises = Promises(self.send_and_wait, max_undo_bytes=limit)

    def open(self, begin: Callable[[], Transacting]) -> None:
        """Take the ledger, in the thread that it then belongs to."""
        self.opened.append(begin())

    @property
    def core(self) -> Transacting:
        """What does the work; there once it has begun."""
        return self.opened[0]

    @property
    def name(self) -> str:
        """Its id; with ``#2``, ``#3`` ... where earlier ones of that id were rolled back."""
        return self.core.active.name

    def do(self, function: Callable[..., Awaitable[_T] | _T], /, *arguments: Any, **named: Any) -> Pending[_T]:
        """
        Return the next step, to be awaited: calls *function*, and gives what it returns, awaited if it has to be.

        A function that is no coroutine function runs in a thread, where its context is the plain one. All else is as for the ``do`` of
        :class:`durabatch.api.transaction.Transaction`.
        """
        payload, in_loop = payload_of(arguments, named), is_async_function(function)

        async def call(context: Context) -> _T:
            before, by_name = called_with(function, context, arguments, named)
            value = function(*before, **by_name) if in_loop else await asyncio.to_thread(function, *before, **by_name)
            return (await value) if inspect.isawaitable(value) else value

        name = name_of(function)
        return Pending(f"tx.do({name})", lambda: self.step(name, payload, call, in_loop=in_loop), self.unawaited)

    def undo(self, action: str, /, **arguments: Any) -> Pending[None]:
        """Return a step, to be awaited, that records what takes back an effect which the block itself is about to have; see ``Context.undo``."""

        async def call(context: Context) -> None:
            await context.undo(action, **arguments)

        return self.pending(f"tx.undo({action!r})", "undo", payload_of([action], arguments), call)

    def pending(self, shown: str, name: str, payload: str, call: Callable[[Context], Awaitable[None]]) -> Pending[None]:
        """Return a step that is to be awaited."""
        return Pending(shown, lambda: self.step(name, payload, call, in_loop=True), self.unawaited)

    async def step(self, name: str, payload: str, call: Callable[[Context], Awaitable[_T]], *, in_loop: bool) -> _T:
        """Do the next step, once the one before it has ended; *in_loop*: its context is to be awaited, too."""
        if self in _inside.get():
            raise UsageError(f"tx.do({name}) inside of a step: a step begins behind the one before it", "Call the function itself there.")
        async with self.turn:
            self.broken.check(self.core)
            step = await self.in_thread(self.core.begin, name, payload)
            context = context_of(self.core, step, self.promises if in_loop else self.plain_promises)
            inside = _inside.set((*_inside.get(), self))
            try:
                value = await call(context)
                await idle(context)
                context._end(has_failed=False)
            except BaseException as error:
                context.cancelled = isinstance(error, asyncio.CancelledError)
                await idle(context)
                context._end(has_failed=True)
                await self.fail(step, context, error)
                raise
            finally:
                _inside.reset(inside)
            step.spent = context.spent or {}
            text, left_out = kept(value, self.core.request.settings.max_result_bytes)
            await self.in_thread(functools.partial(self.core.succeed, step, text, left_out=left_out))
            return value

    async def fail(self, step: Step, context: Context, error: BaseException) -> None:
        """Record that a step has failed; where even that fails, *error* says so, and the step stays one that has not ended."""
        step.spent = context.spent or {}
        try:
            await self.in_thread(self.core.fail, step, error)
        except DurabatchError as fault:
            put_back(error, f"that step {step.key} has failed could not be recorded: {fault}")
        self.broken.note(self.core, step)

    async def end(self, error: BaseException | None) -> None:
        """Commit; or, with an *error* or where something is left undone, roll back. A child that was forked off does neither."""
        if os.getpid() != self.pid:
            return
        self.promises.close()
        self.plain_promises.close()
        try:
            final = self.final() if error is None else None
            reason = error or final
            if reason is not None:
                put_back(reason, await self.in_thread(undone, self.core))
            if final is not None:
                raise final
            if reason is None:
                await self.in_thread(self.commit)
        finally:
            self.thread.shutdown(wait=False)

    def final(self) -> UndoError | None:
        """Return the error for a transaction that must not be committed, None when it may."""
        if self.unawaited:
            return UndoError(f"{self.unawaited[0].name} was not awaited, so transaction {self.name!r} was rolled back")
        return self.broken.final(self.core)

    def commit(self) -> None:
        """Commit, in the thread of the ledger."""
        try:
            self.core.commit()
        except BaseException as error:
            put_back(error, f"transaction {self.name!r} may be open still: `durabatch transactions` shows it")
            raise
        finally:
            self.core.let_go()

    def send(self, promise: Promise) -> None:
        """Have an entry recorded; the answer comes when it is on disk."""

        def tell(done: concurrent.futures.Future[Recorded]) -> None:
            fault = done.exception()
            self.promises.answer(done.result() if fault is None else Recorded(promise.token, refusal=f"{type(fault).__name__}: {fault}"))

        self.thread.submit(self.core.record, promise).add_done_callback(tell)

    def send_and_wait(self, promise: Promise) -> Recorded:
        """Have an entry recorded and return when it is on disk; for functions that run in threads."""
        return self.thread.submit(self.core.record, promise).result()

    async def in_thread(self, call: Callable[..., _T], *arguments: Any) -> _T:
        """Call something in the thread of the ledger. A cancel waits for its end, so that it is known what was done."""
        doing = self.thread.submit(call, *arguments)
        try:
            return await asyncio.shield(asyncio.wrap_future(doing))
        except asyncio.CancelledError:
            await until(asyncio.wrap_future(doing))
            raise


async def until(doing: asyncio.Future[Any]) -> None:
    """Return when *doing* has ended in whatever way; a further cancel does not change that."""
    while not doing.done():
        try:
            await asyncio.wait([doing])
        except asyncio.CancelledError:
            continue


async def idle(context: Context) -> None:
    """Return when no file operation of a step goes on any more."""
    log = context._undo_log
    if isinstance(log, AsyncUndoLog) and log.is_busy:
        rested = asyncio.Event()
        log.when_idle(rested.set)
        await until(asyncio.ensure_future(rested.wait()))


class AsyncTransactionFiles:
    """Changes of files, each a step of a transaction that is to be awaited."""

    def __init__(self, transaction: AsyncTransaction) -> None:
        self._transaction = transaction

    def write(self, path: PathLike, data: bytes | str) -> Pending[None]:
        """Make a file with this content; see ``Context.files``."""
        return self._step("write", [path], lambda context: context.files.write(path, data))

    def replace(self, path: PathLike, data: bytes | str) -> Pending[None]:
        """Give a file other content."""
        return self._step("replace", [path], lambda context: context.files.replace(path, data))

    def move(self, source: PathLike, target: PathLike) -> Pending[None]:
        """Move a file, a directory or a link."""
        return self._step("move", [source, target], lambda context: context.files.move(source, target))

    def mkdir(self, path: PathLike) -> Pending[None]:
        """Make a directory."""
        return self._step("mkdir", [path], lambda context: context.files.mkdir(path))

    def remove(self, path: PathLike) -> Pending[None]:
        """Remove a file, a directory with all that is in it, or a link."""
        return self._step("remove", [path], lambda context: context.files.remove(path))

    def _step(self, name: str, paths: list[PathLike], call: Callable[[Context], Awaitable[None]]) -> Pending[None]:
        return self._transaction.pending(f"tx.files.{name}", f"files.{name}", payload_of(paths, {}), call)
