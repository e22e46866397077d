"""
Transactions: steps that a program does itself, one after the other, and all of them or none.

    with ledger.transaction("TRANS-001") as tx:
        hub = tx.do(create_hub, title="New Hub")
        tx.do(associate, hub)

What a step has recorded by ``ctx.undo`` and ``ctx.files`` is undone, newest first over all steps, when an exception leaves the block.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from durabatch.api.async_transaction import AsyncTransaction
from durabatch.api.steps import Broken, called_with, context_of, kept, name_of, opened, payload_of, put_back, request_for, undone
from durabatch.errors import DurabatchError, UsageError
from durabatch.loading import is_async_function
from durabatch.workers.promises import Promises

if TYPE_CHECKING:
    from durabatch.api.place import LedgerFile
    from durabatch.runner.transacting import Step, Transacting
    from durabatch.workers.context import Context

__all__ = ["OpenTransaction", "Transaction", "TransactionFiles"]

_T = TypeVar("_T")
ASYNC_HINT = "Use `async with ledger.transaction(...)`, and await tx.do(...)."
PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]


class OpenTransaction:
    """
    A transaction that is about to begin: what ``with`` and ``async with`` take.

    Args:
        name: Its id.
        settings: Fields of RunSettings, for the undoing of its steps and the limits of what they record.
    """

    def __init__(self, ledger: LedgerFile, name: str, *, trust_ledger: bool, settings: dict[str, Any]) -> None:
        self.request = request_for(
            str(ledger.path), name, settings, durability=ledger.durability, allow_network_fs=ledger.allow_network_fs
        )
        self.trust_ledger = trust_ledger
        self.sync: Transaction | None = None
        self.aio: AsyncTransaction | None = None

    def begin(self) -> Transacting:
        """Take the ledger and begin; errors as for :meth:`durabatch.Ledger.transaction`."""
        return opened(self.request, trust_ledger=self.trust_ledger)

    def __enter__(self) -> Transaction:
        """Begin."""
        self.sync = Transaction(self.begin())
        return self.sync

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trail: TracebackType | None) -> None:
        """Commit, or roll back."""
        if self.sync is not None:
            self.sync.end(error)

    async def __aenter__(self) -> AsyncTransaction:
        """Begin."""
        self.aio = AsyncTransaction()
        await self.aio.begin(self.begin)
        return self.aio

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trail: TracebackType | None) -> None:
        """Commit, or roll back."""
        if self.aio is not None:
            await self.aio.end(error)


class Transaction:
    """
    A transaction that is open. It belongs to the thread that opened it.

    Attributes:
        files: Changes of files, each a step; see ``Context.files``.
    """

    def __init__(self, core: Transacting) -> None:
        self.core = core
        self.pid = os.getpid()
        self.broken = Broken()
        self.promises = Promises(core.record, max_undo_bytes=core.request.settings.max_undo_bytes)
        self.files = TransactionFiles(self)

    @property
    def name(self) -> str:
        """Its id; with ``#2``, ``#3`` ... where earlier ones of that id were rolled back."""
        return self.core.active.name

    def do(self, function: Callable[..., _T], /, *arguments: Any, **named: Any) -> _T:
        """
        Call *function* as the next step, and return what it returns.

        A parameter ``ctx``, or one that is annotated with Context, gets the step's context, whose ``undo`` and ``files`` record what takes
        its effects back. Arguments and value are kept in the ledger, as far as JSON can hold them.

        Raises:
            UndoError: A step has failed before and left effects; nothing was called.
            UsageError: The function is a coroutine function, or called by a step; nothing was called.
            Exception: What the function raises. The block can go on after it when the step had recorded nothing.
        """
        if is_async_function(function):
            raise UsageError(f"{name_of(function)} is a coroutine function", ASYNC_HINT)

        def call(context: Context) -> _T:
            before, by_name = called_with(function, context, arguments, named)
            return function(*before, **by_name)

        return self.step(name_of(function), payload_of(arguments, named), call)

    def undo(self, action: str, /, **arguments: Any) -> None:
        """Record what takes back an effect that the block itself is about to have, as a step of its own; see ``Context.undo``."""
        self.step("undo", payload_of([action], arguments), lambda context: context.undo(action, **arguments))

    def step(self, name: str, payload: str, call: Callable[[Context], _T]) -> _T:
        """Do the next step; *payload* is what is kept of what it is called with."""
        self.broken.check(self.core)
        step = self.core.begin(name, payload)
        context = context_of(self.core, step, self.promises)
        try:
            value = call(context)
            refuse_awaitable(name, value)
            context._end(has_failed=False)
        except BaseException as error:
            context._end(has_failed=True)
            self.fail(step, context, error)
            raise
        step.spent = context.spent or {}
        text, left_out = kept(value, self.core.request.settings.max_result_bytes)
        self.core.succeed(step, text, left_out=left_out)
        return value

    def fail(self, step: Step, context: Context, error: BaseException) -> None:
        """Record that a step has failed; where even that fails, *error* says so, and the step stays one that has not ended."""
        step.spent = context.spent or {}
        try:
            self.core.fail(step, error)
        except DurabatchError as fault:
            put_back(error, f"that step {step.key} has failed could not be recorded: {fault}")
        self.broken.note(self.core, step)

    def end(self, error: BaseException | None) -> None:
        """Commit; or, with an *error* or where a step has left effects, roll back. A child that was forked off does neither."""
        if os.getpid() != self.pid:
            return
        final = self.broken.final(self.core) if error is None else None
        reason = error or final
        if reason is not None:
            put_back(reason, undone(self.core))
        if final is not None:
            raise final
        if reason is None:
            commit(self.core)


def refuse_awaitable(name: str, value: object) -> None:
    """Raise UsageError for a value that a loop would have to make first."""
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        raise UsageError(f"{name} returned something to be awaited", ASYNC_HINT)


def commit(core: Transacting) -> None:
    """Commit, and let go of the ledger; an error says that the transaction may be open."""
    try:
        core.commit()
    except BaseException as error:
        put_back(error, f"transaction {core.active.name!r} may be open still: `durabatch transactions` shows it")
        raise
    finally:
        core.let_go()


class TransactionFiles:
    """Changes of files, each a step of a transaction of its own that undoes it with all others."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def write(self, path: PathLike, data: bytes | str) -> None:
        """Make a file with this content; see ``Context.files``."""
        self._step("write", [path], lambda context: context.files.write(path, data))

    def replace(self, path: PathLike, data: bytes | str) -> None:
        """Give a file other content."""
        self._step("replace", [path], lambda context: context.files.replace(path, data))

    def move(self, source: PathLike, target: PathLike) -> None:
        """Move a file, a directory or a link."""
        self._step("move", [source, target], lambda context: context.files.move(source, target))

    def mkdir(self, path: PathLike) -> None:
        """Make a directory."""
        self._step("mkdir", [path], lambda context: context.files.mkdir(path))

    def remove(self, path: PathLike) -> None:
        """Remove a file, a directory with all that is in it, or a link."""
        self._step("remove", [path], lambda context: context.files.remove(path))

    def _step(self, name: str, paths: list[PathLike], call: Callable[[Context], Any]) -> None:
        self._transaction.step(f"files.{name}", payload_of(paths, {}), call)
