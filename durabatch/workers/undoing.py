"""
One effect is undone: look whether it is there, call the action, look again.

    verify says undone ──▶ {"ran": false}
    else ──▶ action ──▶ verify says undone, or there is none ──▶ {"ran": true}

Actions are those of the user's modules, by name, and those of ``ctx.files``, which look by themselves. Nothing here knows the ledger: that a
step was begun is on disk before it comes here, and that it is done is recorded by whoever sent it.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import msgspec

from durabatch import actions
from durabatch.actions import Action
from durabatch.codec import unpack_frame
from durabatch.errors import UndoError
from durabatch.loading import LoadedHandler, is_async_function
from durabatch.verdicts import Irreversible, Skip, Snooze, Verdict
from durabatch.workers.context import Context
from durabatch.workers.protocol import Step

__all__ = ["UndoContext", "for_loop", "plain", "undo", "undo_in_loop"]

#: The two ends of a step, as its value.
RAN, NOTHING_TO_UNDO = {"ran": True}, {"ran": False}

#: Longest old content that is unpacked.
MAX_OLD_BYTES = 4 << 30


class UndoContext:
    """
    What an undo action may know and do: its optional parameter ``ctx``; ``verify`` may have it too.

    Attributes:
        idempotency_key: A text that is the same at every try to undo this effect, and differs from that of any other effect.
        item_key: Key of the item whose effect it is.
        attempt: Number of this try at undoing it, from 1.
        run_name: Name of the run.
        is_forced: The user wants it undone although something was changed since.
    """

    __slots__ = ("_context", "attempt", "idempotency_key", "is_forced", "item_key", "run_name")

    def __init__(self, context: Context, step: Step) -> None:
        self._context = context
        self.idempotency_key = step.key
        self.item_key = context.item_key
        self.attempt = context.attempt
        self.run_name = context.run_name
        self.is_forced = step.is_forced

    def resource(self, name: str = "default") -> Any:
        """Return what the handler declared as its resource, see :meth:`durabatch.Context.resource`; UsageError for an unknown name."""
        return self._context.resource(name)

    def log(self, text: object) -> None:
        """Write *text* to the standard error of the worker, every line of it marked with the item's key."""
        self._context.log(text)

    def __repr__(self) -> str:
        return f"UndoContext(idempotency_key={self.idempotency_key!r}, attempt={self.attempt})"


def undo(payload: str, context: object | None) -> dict[str, bool]:
    """
    Undo the effect that *payload*, the JSON of a Step, names, and return ``{"ran": ...}``. What is async runs in a loop of its own.

    Raises:
        UndoError: It remains, and a further try does not change that unless the error says so.
        Irreversible: It cannot be taken back.
        Exception: What the action raised. It may remain; a further try may help.
    """
    assert isinstance(context, Context)
    step = decode(payload)
    if step.action.startswith(actions.BUILT_IN):
        return undo_file(step, context._old)
    effect = Effect(step, context)
    if effect.is_async:
        return run_to_end(undo_in_loop(payload, context))  # type: ignore[no-any-return]
    with fitting():
        if effect.can_look and plainly(effect.look()):
            return NOTHING_TO_UNDO
        judge(plainly(effect.act()))
        if effect.can_look and not plainly(effect.look()):
            raise remaining(step)
    return RAN


async def undo_in_loop(payload: str, context: object | None) -> dict[str, bool]:
    """As :func:`undo`, with what is async awaited in the running loop; not for files."""
    assert isinstance(context, Context)
    step = decode(payload)
    effect = Effect(step, context)
    with fitting():
        if effect.can_look and await awaited(effect.look()):
            return NOTHING_TO_UNDO
        judge(await awaited(effect.act()))
        if effect.can_look and not await awaited(effect.look()):
            raise remaining(step)
    return RAN


#: What gives steps to :func:`undo`, as the handler of a worker.
plain = LoadedHandler(takes_context=True, call=undo, function=undo)
in_loop = LoadedHandler(takes_context=True, call=undo_in_loop, function=undo_in_loop, is_async=True)


def for_loop(payload: str) -> LoadedHandler:
    """Return what undoes a step in a worker with a loop: there if its action is async, otherwise in a thread. Never raises."""
    try:
        action = actions.find(decode(payload).action)
    except UndoError:
        # Said again, and recorded, when the step is run; files have no action.
        return plain
    return in_loop if is_async(action) else plain


class Effect:
    """
    An effect with the action that takes it back.

    Raises:
        UndoError: There is no such action, or it takes other arguments now.
        Irreversible: The action says so.
    """

    def __init__(self, step: Step, context: Context) -> None:
        self._action = usable(step)
        self._arguments = step.arguments
        self._context = UndoContext(context, step)

    @property
    def is_async(self) -> bool:
        """Whether something of it has to be awaited."""
        return is_async(self._action)

    @property
    def can_look(self) -> bool:
        """Whether it can be found out if the effect is taken back."""
        return self._action.verify is not None

    def look(self) -> Any:
        """Return whether the effect is taken back, or what is to be awaited for that."""
        assert self._action.verify is not None
        return self._call(self._action.verify, all_of_them=False)

    def act(self) -> Any:
        """Call the action; return its value, or what is to be awaited for that."""
        return self._call(self._action.function, all_of_them=True)

    def _call(self, function: Callable[..., Any], *, all_of_them: bool) -> Any:
        return function(**actions.arguments_for(function, self._arguments, self._context, all_of_them=all_of_them))


def decode(payload: str) -> Step:
    """Return the step; UndoError when it cannot be read."""
    try:
        return msgspec.json.decode(payload, type=Step)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise UndoError(f"the undo entry cannot be read: {error}", "Run `durabatch verify`.") from None


def usable(step: Step) -> Action:
    """Return the action of a step; UndoError when it is not there or does not fit any more, Irreversible when it cannot undo."""
    action = actions.find(step.action)
    if action.irreversible:
        raise Irreversible(f"{step.action!r} cannot be undone")
    wrong = actions.misfit(action, step.arguments)
    if wrong is not None:
        changed = "no longer takes" if wrong[0] == "takes no" else "now needs"
        raise UndoError(
            f"action {step.action!r} {changed} {wrong[1]!r}", f"Let {actions.place_of(action.function)} take what older entries hold, too."
        )
    return action


@contextlib.contextmanager
def fitting() -> Iterator[None]:
    """Turn a verdict that only a handler can give into an UndoError: an action can say that the effect remains, and no more."""
    try:
        yield
    except (Skip, Snooze) as verdict:
        what = f"an undo action cannot answer {type(verdict).__name__}: the effect remains"
        raise UndoError(what, "Let it raise Retry, or Fail.") from verdict


def judge(value: object) -> None:
    """Return when an action that returned *value* may have done its work; raise the value when it is a verdict."""
    if isinstance(value, Verdict):
        raise value


def undo_file(step: Step, old: bytes | None) -> dict[str, bool]:
    """Undo what ``ctx.files`` did, with the old content as it was packed; UndoError when something was changed since."""
    # Here: most steps undo nothing of files.
    from durabatch.workers.file_undo import UNDO

    function = UNDO.get(step.action)
    if function is None:
        raise UndoError(f"no undo action {step.action!r}: another version of durabatch has recorded it")
    content = None if old is None else unpack_frame(old, raw_bytes=None, limit_bytes=MAX_OLD_BYTES)
    return RAN if function(step.arguments, content, is_forced=step.is_forced) else NOTHING_TO_UNDO


def remaining(step: Step) -> UndoError:
    """Return the error for an action that has ended while its effect is still there."""
    return UndoError(f"{step.action!r} ran, but verify says it is not undone", retryable=True)


def is_async(action: Action) -> bool:
    """Return whether an action, or its ``verify``, has to be awaited."""
    return is_async_function(action.function) or is_async_function(action.verify)


def plainly(value: Any) -> Any:
    """Return *value*, what it comes to when it has to be awaited."""
    return run_to_end(awaited(value)) if inspect.isawaitable(value) else value


async def awaited(value: Any) -> Any:
    """Return *value*, awaited when it has to be."""
    return await value if inspect.isawaitable(value) else value


def run_to_end(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in a loop of its own and return what it comes to; in a thread of its own where a loop runs in this one already."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(asyncio.run, coroutine).result()
