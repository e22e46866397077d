"""
``durabatch retry``: failed items once more, without the input.
"""

from __future__ import annotations

from typing import Any

import click

from durabatch.cli.options import recorded_options, run_argument, verb
from durabatch.cli.starting import resumed
from durabatch.config.resolving import Effective
from durabatch.errors import UsageError
from durabatch.options import did_you_mean
from durabatch.states import ItemState

__all__ = ["command"]

#: States that an item can be taken back from.
STATES = (ItemState.FAILED, ItemState.QUARANTINED, ItemState.SKIPPED, ItemState.CANCELLED, ItemState.UNDONE)


def read_states(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the states, each once; UsageError for one that no item is taken back from."""
    for value in values:
        if value not in STATES:
            raise UsageError(f"--state: {value!r} is not one of {', '.join(STATES)}", did_you_mean(value, STATES))
    return tuple(dict.fromkeys(values))


@verb(
    "retry",
    "durabatch retry",
    "durabatch retry nightly --error TimeoutError --retries 3",
    "durabatch retry --state skipped --state quarantined",
    "durabatch retry --where \"payload ->> '$.site' = 'berlin'\"",
    settings="retry",
)
@run_argument
@click.option("--error", "error_type", metavar="TYPE", help="Only items that failed with this error, as `durabatch errors` names it.")
@click.option("--group", metavar="GROUP", help="Only items of this group of errors, as `durabatch errors` shows it.")
@click.option("--where", metavar="SQL", help="Only items for which this SQL expression over v_item holds.")
@click.option(
    "--state",
    "states",
    metavar="|".join(STATES),
    multiple=True,
    callback=read_states,
    help="Items in this state; may be repeated. [default: failed and quarantined]",
)
@click.option("--undone", is_flag=True, help="Items that were undone: the same as --state undone.")
@click.option("--key", "keys", metavar="KEY", multiple=True, help="Only the item with this key; may be repeated.")
@recorded_options
def command(
    run: str | None, handler: str | None, wishes: Effective, states: tuple[str, ...], undone: bool, **chosen: Any
) -> int:
    """
    Run the failed items again.

    Failed and quarantined items get a fresh allowance of tries; what they have left behind is undone first. Results go to the same place. RUN is a name or an id; without it the
    latest run is meant. What was left of it is done, too. Of items chosen by several options those are meant that all of them choose.
    """
    wanted = dict.fromkeys((*states, *((ItemState.UNDONE,) if undone else ())))
    return resumed("retry", run, wishes, handler, states=tuple(wanted), **chosen)
