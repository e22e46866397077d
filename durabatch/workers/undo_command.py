"""
The steps of an undo for runs of commands: each is one run of the ``--undo-command``, with the timeout of any command.
"""

from __future__ import annotations

import os

import msgspec

from durabatch.errors import UndoError
from durabatch.loading import LoadedHandler
from durabatch.undo_client import IN_STEP, UNDO_VARIABLE
from durabatch.undo_template import UndoTemplate
from durabatch.workers.allowance import Allowance
from durabatch.workers.capture import MAX_CAPTURE_BYTES, Capture
from durabatch.workers.command import failed, run_child
from durabatch.workers.context import Context
from durabatch.workers.protocol import Step
from durabatch.workers.surroundings import ITEM_MARKER

__all__ = ["UndoCommand", "load"]

#: What the command finds in its environment besides what stands in its words.
ACTION_VARIABLE, ARGUMENTS_VARIABLE = "DURABATCH_UNDO_ACTION", "DURABATCH_UNDO_ARGS"

_step: msgspec.json.Decoder[Step] = msgspec.json.Decoder(Step)


def load(text: str | None, allowance: Allowance, *, own_groups: bool = True) -> LoadedHandler:
    """
    Return what undoes steps with the command in *text*; with None, what says of each that there is no command. Nothing is started.

    Args:
        allowance: How long it may take.
        own_groups: Each command gets a process group.

    Raises:
        UsageError: The text is no command with placeholders that there are.
    """
    call = UndoCommand(None if text is None else UndoTemplate.parse(text), allowance, own_groups=own_groups)
    return LoadedHandler(takes_context=True, call=call, function=call, is_command=True)


class UndoCommand:
    """A command to be run with one step after the other, or with several at once."""

    def __init__(self, template: UndoTemplate | None, allowance: Allowance, *, own_groups: bool) -> None:
        self._template = template
        self._allowance = allowance
        self._own_groups = own_groups

    def __call__(self, payload: str, context: object | None) -> dict[str, bool]:
        """
        Run the command for a step, the JSON text *payload*, and return that it ran. Whether something was to be undone is its own affair.

        Raises:
            UndoError: There is no command, or the entry has no value for one of its placeholders.
            CommandError: It could not be started, or ended with another status than 0.
            CommandTimeoutError: Its time was up.
        """
        if not isinstance(context, Context):
            raise TypeError("a command needs the context of its item")
        step = _step.decode(payload)
        if self._template is None:
            raise UndoError(f"{step.action!r} was logged by a command, and there is no --undo-command", "Give the one that undoes it.")
        argv = self._template.render(step.action, step.arguments, context.item_key)
        environment = environment_of(step, context, f"{self._allowance.marker}/{context.item_id}/{context.attempt}")
        stdout, stderr = Capture(MAX_CAPTURE_BYTES), Capture(MAX_CAPTURE_BYTES)
        ended = run_child(argv, environment, stdout, stderr, context, self._allowance, own_group=self._own_groups)
        if ended.status != 0 or ended.ended_by is not None:
            raise failed(ended, stdout, stderr)
        return {"ran": True}


def environment_of(step: Step, context: Context, marker: str) -> dict[str, str]:
    """Return the environment of a step: that of the worker, and what is to be undone."""
    facts = {
        "DURABATCH_KEY": context.item_key,
        "DURABATCH_ATTEMPT": str(context.attempt),
        "DURABATCH_IDEMPOTENCY_KEY": step.key,
        ACTION_VARIABLE: step.action,
        ARGUMENTS_VARIABLE: msgspec.json.encode(step.arguments).decode(),
        UNDO_VARIABLE: IN_STEP,
        ITEM_MARKER: marker,
    }
    return {**os.environ, **{name: text for name, text in facts.items() if "\0" not in text}}
