"""
What a Start names, loaded: the handler, the preflight check, and the resources that the handler declares.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from durabatch import loading
from durabatch.errors import UsageError
from durabatch.loading import LoadedHandler
from durabatch.workers.allowance import Allowance
from durabatch.workers.protocol import Start, Task
from durabatch.workers.resources import Resources

__all__ = ["Handlers", "check_cpu_limit", "load_handlers"]


@dataclass(frozen=True, slots=True)
class Handlers:
    """
    The handler of a worker with what belongs to it.

    Attributes:
        handler: What items are given to.
        check: What they are given to before the first handler runs; None without a preflight check.
        resources: What the handler may ask its context for.
        undo_command: What undoes the effects of commands; None for those of functions.
    """

    handler: LoadedHandler
    check: LoadedHandler | None
    resources: Resources
    undo_command: LoadedHandler | None = None

    def of(self, task: Task) -> LoadedHandler:
        """Return what items of a task are given to: the handler, the check, or what undoes an effect; UsageError when there is no check."""
        if task == "run":
            return self.handler
        if task == "undo":
            return self.undoing()
        if self.check is None:
            raise UsageError("this run has no preflight check")
        return self.check

    def undoing(self, step: str | None = None) -> LoadedHandler:
        """Return what undoes an effect; with the *step* at hand, as JSON text, for a loop: an async action is then to be awaited."""
        if self.undo_command is not None:
            return self.undo_command
        # Here: most workers never undo anything.
        from durabatch.workers import undoing

        return undoing.plain if step is None else undoing.for_loop(step)


def load_handlers(
    start: Start,
    allowance: Allowance,
    *,
    function: Callable[..., object] | None = None,
    own_groups: bool = True,
) -> Handlers:
    """
    Return what a Start names. Nothing is set up yet.

    Args:
        function: The handler itself, where it has no name by which it could be found.
        own_groups: Commands get process groups of their own.

    Raises:
        HandlerImportError: Something cannot be imported or used.
    """

    def load(ref: dict[str, Any], load_function: Callable[..., LoadedHandler]) -> LoadedHandler:
        if ref["kind"] in loading.WITHOUT_ITEMS or ref["kind"] == "inline":
            # What an inline run did is undone without its handler, which only its program had.
            return loading.load_actions(ref)
        if ref["kind"] != "command":
            return load_function(ref, start.params)
        # Here: most workers start no programs.
        from durabatch.workers import command

        return command.load(
            ref, allowance, max_output_bytes=start.max_result_bytes, own_groups=own_groups,
            undo_command=start.undo_command, is_check=load_function is loading.load_check,
        )  # fmt: skip

    handler = load(start.handler, loading.load) if function is None else loading.from_function(function, start.params)
    check = None
    if start.preflight is not None:
        from durabatch.workers.preflight import checking

        check = checking(load(start.preflight, loading.load_check), in_loop=handler.is_async)
    undo_command = None
    if start.handler["kind"] == "command" and function is None:
        from durabatch.workers import undo_command as undo_commands

        undo_command = undo_commands.load(start.undo_command, allowance, own_groups=own_groups)
    return Handlers(handler, check, resources_of(handler), undo_command)


def resources_of(handler: LoadedHandler) -> Resources:
    """Return the resources that a handler declares, of the kind that fits it."""
    spec = handler.spec
    if handler.is_async:
        from durabatch.workers.async_resources import AsyncResources

        return AsyncResources(spec.setup, spec.teardown, spec.resources)
    return Resources(spec.setup, spec.teardown, spec.resources)


def check_cpu_limit(start: Start, handler: LoadedHandler, *, inline: bool) -> None:
    """Return when the processor time of an attempt can be limited as the Start says; UsageError when it cannot."""
    if start.cpu_limit_s is None or handler.is_command:
        return
    if inline:
        raise UsageError("--cpu-limit needs worker processes, or a command", "Give --workers 1 or more.")
    if handler.is_async or start.concurrency > 1:
        raise UsageError("--cpu-limit needs concurrency 1, or a command", "Give --concurrency 1.")
