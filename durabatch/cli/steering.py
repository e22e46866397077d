"""
What the verbs that steer a run from another terminal have in common: they give an order, wait for its effect, and print the new state.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from durabatch.cli import printing
from durabatch.cli.options import json_option
from durabatch.cli.places import ledger_json
from durabatch.cli.printing import clean, painted, plural
from durabatch.cli.status import LIVE, STYLES, done_text

if TYPE_CHECKING:
    from durabatch.models import RunStatus
    from durabatch.runner.orders import Verb

__all__ = ["network_option", "state_line", "steer", "steering_options"]

_F = TypeVar("_F", bound=Callable[..., Any])

network_option = click.option("--allow-network-fs", is_flag=True, help="Accept a ledger on a network file system that only this host uses.")


def steering_options(function: _F) -> _F:
    """Give a verb the options that all verbs have which steer."""
    return json_option(network_option(function))


def steer(verb: Verb, run: str | None, options: dict[str, Any], *words: str) -> int:
    """
    Give an order to whoever works on *run*, print the state that came of it, and return the exit code.

    Args:
        options: What ``steering_options`` and every verb have.
        words: What stands behind the verb.
    """
    from durabatch.runner.steering import steered

    ledger = options["ledger"]
    answer = steered(ledger, run, verb, *words, allow_network_fs=options["allow_network_fs"], on_note=say_note)
    if options["as_json"]:
        facts = {"verb": verb, "outcome": answer.outcome, "runs": [answer.status.as_json()]}
        printing.emit_json({"ledger": ledger_json(ledger), **facts})
    else:
        printing.emit(state_line(verb, answer.status, answer.outcome))
    return 0


def say_note(sentence: str) -> None:
    """Print *sentence* on stderr."""
    printing.say(f"durabatch: {clean(sentence)}")


def state_line(verb: str, found: RunStatus, outcome: str) -> str:
    """Return the run, its state, what became of the order, and how far it is, on one line."""
    state = painted(found.state, STYLES.get(found.state, "strong"), sys.stdout)
    is_over = found.state not in LIVE
    said = "" if is_over and verb in {"drain", "cancel"} else clean(outcome).removeprefix(found.state).removeprefix(": ")
    at_work = "" if is_over else f"{plural(found.counts.running, 'item')} at work"
    owed = f"{plural(found.undo_left, 'effect')} to be undone: `durabatch resume` does that if nobody is at it" if is_over and found.undo_left else ""
    parts = (said, done_text(found), at_work, owed)
    return f"{clean(found.name)} ({found.run_id})  {state}; " + "; ".join(part for part in parts if part)
