"""
Resources of async handlers: as :mod:`durabatch.workers.resources`, and each part may be async.

Where a factory is async, a handler awaits what ``ctx.resource`` returns; however many wait for it, it is opened once.

    factory returns or is                    what the handler awaits     at the end
    an async generator function              what it yields              it goes on after the yield
    a coroutine function                     what it returns             aclose(), else close(), is called and awaited
    an async context manager without both    what entering it gives      it is left
"""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Callable
from typing import Any

from durabatch.workers.resources import DEFAULT, Resources, entered, set_up_error

__all__ = ["AsyncResources"]


class AsyncResources(Resources):
    """The resources of one worker, for coroutines on one loop."""

    async def start(self) -> None:
        """Call the set-up; HandlerImportError, with its exception as the cause, when that fails."""
        value = None
        if self._setup is not None:
            try:
                value = self._values[DEFAULT] = await finished(self._setup())
            except BaseException as error:
                raise set_up_error(self._setup, error) from error
        if self._teardown is not None:
            teardown = self._teardown
            self._closers.append(lambda: teardown(value))

    def open(self, name: str) -> Any:
        """Return the resource *name*, or what is to be awaited for it; UsageError for a name that is not declared."""
        value = super().open(name)
        # Shielded: an item whose time is up must not take the resource from the others that wait for it.
        return asyncio.shield(value) if isinstance(value, Opening) else value

    async def stop(self) -> None:
        """Close everything in reverse order. What fails is printed and does not keep the rest from being closed."""
        self._values.clear()
        while self._closers:
            try:
                await finished(self._closers.pop()())
            except BaseException:  # noqa: BLE001 - as in Resources.close
                traceback.print_exc()

    def _entered(self, name: str) -> tuple[Any, Callable[[], Any] | None]:
        made = self._factories[name]()
        if not is_async(made):
            close = getattr(made, "aclose", None)
            return (made, close) if callable(close) else entered(made)
        return Opening(self._open(name, made), loop=asyncio.get_running_loop()), None

    async def _open(self, name: str, made: Any) -> Any:
        try:
            value, close = await entered_async(made)
        except BaseException:
            # The next item that asks tries again.
            self._values.pop(name, None)
            raise
        if close is not None:
            self._closers.append(close)
        return value


class Opening(asyncio.Task[Any]):
    """A resource that is being opened, or was."""


def is_async(made: Any) -> bool:
    """Return whether what a factory made has to be awaited or entered in a loop."""
    is_manager = hasattr(made, "__aenter__") and not hasattr(made, "close") and not hasattr(made, "aclose") and not hasattr(made, "acquire")
    return inspect.isawaitable(made) or inspect.isasyncgen(made) or is_manager


async def entered_async(made: Any) -> tuple[Any, Callable[[], Any] | None]:
    """Return what handlers get of what an async factory made, and what closes it."""
    if inspect.isasyncgen(made):
        return await anext(made), lambda: anext(made, None)
    value = await made if inspect.isawaitable(made) else made
    close = getattr(value, "aclose", None) or getattr(value, "close", None)
    if callable(close):
        return value, close
    if hasattr(value, "__aenter__") and not hasattr(value, "acquire"):
        return await value.__aenter__(), lambda: value.__aexit__(None, None, None)
    return entered(value)


async def finished(value: Any) -> Any:
    """Return *value*, awaited when it has to be."""
    return await value if inspect.isawaitable(value) else value
