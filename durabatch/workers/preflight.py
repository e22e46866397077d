"""
The preflight check: asked about every item before the first handler runs.

    None or True                    the item passes
    False                           it is skipped
    a text, or (text, remedy)       it is skipped for that reason
    Skip, or any exception          the same
    exit status of a command        0 passes; otherwise the last line on its standard error is the reason
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from durabatch.loading import LoadedHandler
from durabatch.verdicts import Skip, Verdict

__all__ = ["checking", "judge"]

REFUSED = "refused by the preflight check"


def checking(check: LoadedHandler, *, in_loop: bool) -> LoadedHandler:
    """
    Return *check* with its answers as ends of an item: None, or an exception that says why not.

    Args:
        in_loop: Coroutines are run by a loop; otherwise an async check gets one of its own for every item.
    """
    if check.is_command:
        return dataclasses.replace(check, call=lambda payload, context: check.call(payload, context) and None)
    if not check.is_async:
        return dataclasses.replace(check, call=lambda payload, context: judge(check.call(payload, context)))

    async def ask(payload: str, context: object | None) -> None:
        judge(await check.call(payload, context))  # type: ignore[misc]

    return dataclasses.replace(check, call=ask if in_loop else in_own_loop(ask), is_async=in_loop)


def in_own_loop(ask: Callable[[str, object | None], Any]) -> Callable[[str, object | None], object]:
    """Return a function that runs a coroutine function to its end."""
    import asyncio

    return lambda payload, context: asyncio.run(ask(payload, context))


def judge(answer: object) -> None:
    """Return when *answer* lets the item pass; raise Skip with its reason when it does not."""
    if answer is None or answer is True:
        return
    if isinstance(answer, Verdict):
        raise answer
    if answer is False:
        raise Skip(REFUSED)
    if isinstance(answer, str):
        raise Skip(answer or REFUSED)
    if isinstance(answer, tuple) and len(answer) == 2:
        raise Skip(answer[0], answer[1])
    if inspect.iscoroutine(answer):
        answer.close()
    raise Skip(f"the preflight check returned {type(answer).__name__}, which says neither yes nor no")
