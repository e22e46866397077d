"""
What a handler needs once per worker: the value of its set-up, and named resources opened at first use. All of it is closed at the end.

    factory returns or is          what the handler gets      at the end
    an object with close()         the object                 close() is called
    a context manager without      what entering it gives     it is left
    a generator function           what it yields             it goes on after the yield
    anything else, also a lock     the object                 nothing
"""

from __future__ import annotations

import inspect
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from durabatch.errors import HandlerImportError
from durabatch.workers.context import unknown_resource
from durabatch.workers.failure import message_of

__all__ = ["DEFAULT", "Resources", "entered", "set_up_error"]

#: The name under which the value of the set-up is found.
DEFAULT = "default"


class Resources:
    """
    The resources of one worker, for handlers that are no coroutines; safe to use from several threads.

    Args:
        setup: Makes the value that ``ctx.resource()`` returns; None for none.
        teardown: Called with that value at the end.
        factories: What makes the named ones.
    """

    def __init__(
        self,
        setup: Callable[[], Any] | None = None,
        teardown: Callable[[Any], Any] | None = None,
        factories: Mapping[str, Callable[[], Any]] | None = None,
    ) -> None:
        self._setup = setup
        self._teardown = teardown
        self._factories = dict(factories or {})
        self._values: dict[str, Any] = {}
        self._closers: list[Callable[[], Any]] = []
        # One may need another, in the same thread.
        self._opening = threading.RLock()

    def set_up(self) -> None:
        """Call the set-up; HandlerImportError, with its exception as the cause, when that fails."""
        value = None
        if self._setup is not None:
            try:
                value = self._values[DEFAULT] = self._setup()
            except BaseException as error:
                raise set_up_error(self._setup, error) from error
        if self._teardown is not None:
            teardown = self._teardown
            self._closers.append(lambda: teardown(value))

    def open(self, name: str) -> Any:
        """Return the resource *name*, opened now if it is not yet; UsageError for a name that is not declared."""
        if name in self._values:
            return self._values[name]
        if name not in self._factories:
            raise unknown_resource(name, [*self._values, *self._factories])
        with self._opening:
            if name not in self._values:
                value, close = self._entered(name)
                self._values[name] = value
                if close is not None:
                    self._closers.append(close)
            return self._values[name]

    def _entered(self, name: str) -> tuple[Any, Callable[[], Any] | None]:
        return entered(self._factories[name]())

    def close(self) -> None:
        """Close everything in reverse order. What fails is printed and does not keep the rest from being closed."""
        self._values.clear()
        while self._closers:
            try:
                self._closers.pop()()
            except BaseException:  # noqa: BLE001 - the worker ends; whatever the user's code raises, its neighbours are closed too
                traceback.print_exc()


def entered(made: Any) -> tuple[Any, Callable[[], Any] | None]:
    """Return what a handler gets of what a factory made, and what closes it."""
    if inspect.isgenerator(made):
        return next(made), lambda: next(made, None)
    close = getattr(made, "close", None)
    if callable(close):
        return made, close
    if hasattr(made, "__enter__") and not hasattr(made, "acquire"):
        return made.__enter__(), lambda: made.__exit__(None, None, None)
    return made, None


def set_up_error(setup: object, error: BaseException) -> HandlerImportError:
    """Return the error that says that a worker cannot start, since its set-up fails."""
    name = getattr(setup, "__qualname__", None) or type(setup).__name__
    return HandlerImportError(f"the setup of the handler, {name}(), raised {type(error).__name__}: {message_of(error)}")
