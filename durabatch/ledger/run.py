"""
The run table: one row an execution, with its counters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pydantic_core import from_json, to_json

from durabatch.errors import LedgerDamagedError, NotFoundError
from durabatch.ledger.connection import Connection
from durabatch.ledger.executor import Executor
from durabatch.ledger.paths import shown
from durabatch.states import ItemState, RunState

__all__ = [
    "RunRow", "Tally", "add", "conclude", "find", "find_id", "forget_fingerprint", "get", "id_by_name", "insert", "is_output_restarted", "list_all", "list_transactions", "newest_of_series", "open_transactions", "reopen", "restart_output", "set_binding_limit", "set_claimed", "set_fingerprint", "set_flow",
    "set_intake", "set_open", "set_output", "set_pace", "set_spent", "set_state", "set_watermark",
]  # fmt: skip

#: What SQLite can hold as a key.
LARGEST_ID = (1 << 63) - 1
#: Columns that hold JSON.
JSON_COLUMNS = ("handler", "source", "fingerprint", "settings", "spent", "flow", "intake", "provenance", "output")


@dataclass(slots=True)
class Tally:
    """Differences to the counters of one run, gathered over a tick and written once."""

    total: int = 0
    pending: int = 0
    scheduled: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    cancelled: int = 0
    quarantined: int = 0
    undone: int = 0
    attempts: int = 0
    batches: int = 0
    cached: int = 0
    gone: int = 0
    undo: int = 0

    def move(self, count: int, source: ItemState, target: ItemState) -> None:
        """Count *count* items out of one state and into another."""
        setattr(self, source, getattr(self, source) - count)
        setattr(self, target, getattr(self, target) + count)

    def as_row(self) -> dict[str, int]:
        """Return the differences by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class RunRow:
    """One row of the run table; JSON columns are decoded."""

    run_id: int
    name: str
    series: str
    state: str
    reason: str | None
    exit_code: int | None
    handler: dict[str, Any]
    source: dict[str, Any]
    fingerprint: list[dict[str, Any]] | None
    settings: dict[str, Any]
    source_position: str | None
    intake_complete: int
    next_item_id: int
    dispatch_count: int
    batch_count: int
    attempt_count: int
    total_count: int
    pending_count: int
    scheduled_count: int
    running_count: int
    succeeded_count: int
    failed_count: int
    skipped_count: int
    cancelled_count: int
    quarantined_count: int
    undone_count: int
    items_per_s: float
    elapsed_us: int
    created_at_us: int
    started_at_us: int | None
    finished_at_us: int | None
    spent: dict[str, float]
    binding_limit: str | None
    flow: dict[str, Any]
    intake: dict[str, Any]
    provenance: dict[str, Any]
    output: dict[str, Any]
    is_open: int
    gone_count: int
    cached_count: int
    is_transaction: int
    undo_count: int

    @property
    def open_count(self) -> int:
        """Items that have not ended."""
        return self.pending_count + self.scheduled_count + self.running_count

    @property
    def ended_count(self) -> int:
        """Items that have ended, whichever way."""
        return self.total_count - self.open_count


def decode(ledger: Executor, values: tuple[Any, ...]) -> RunRow:
    """
    Return the row whose columns are *values*, in the order of the table.

    Raises:
        LedgerDamagedError: A column that holds JSON does not.
    """
    row = dict(zip((field.name for field in fields(RunRow)), values, strict=True))
    for column in JSON_COLUMNS:
        try:
            row[column] = None if row[column] is None else from_json(row[column])
        except ValueError as error:
            raise LedgerDamagedError(
                shown(ledger.files.ledger), f"is damaged ({column} of run {row['run_id']} is no JSON)", "`durabatch verify` lists what is broken."
            ) from error
    return RunRow(**row)


def insert(
    ledger: Connection, *, series: str, handler: object, source: object, fingerprint: object, settings: object, provenance: object,
    is_open: bool, now_us: int, is_transaction: bool = False,
) -> int:  # fmt: skip
    """Add the next run of *series* and return its id; from the second on its name is ``<series>#<n>``."""
    row = {
        "name": free_name(ledger, series),
        "series": series,
        "handler": to_json(handler).decode(),
        "source": to_json(source).decode(),
        "fingerprint": encoded(fingerprint),
        "settings": to_json(settings).decode(),
        "provenance": to_json(provenance).decode(),
        "is_open": int(is_open),
        "is_transaction": int(is_transaction),
        "created_at_us": now_us,
    }
    return int(ledger.value("run_insert", row))


def free_name(ledger: Executor, series: str) -> str:
    """Return the name of the next run of *series*, which no other run has."""
    number = int(ledger.value("run_count_of_series", (series,))) + 1
    name = series if number == 1 else f"{series}#{number}"
    while ledger.value("run_id_by_name", (name,)) is not None:
        number += 1
        name = f"{series}#{number}"
    return name


def get(ledger: Executor, run_id: int) -> RunRow:
    """
    Return the run *run_id*.

    Raises:
        NotFoundError: There is none.
    """
    values = ledger.row("run_get", (run_id,))
    if values is None:
        raise NotFoundError(f"no run {run_id} in this ledger", "`durabatch runs` lists them.")
    return decode(ledger, values)


def find(ledger: Executor, name_or_id: str | int | None) -> RunRow:
    """
    Return the run with this name (the newest of a series) or id; for None the active or else the latest one.

    Raises:
        NotFoundError: There is none; the message lists up to five that are there.
    """
    if name_or_id is None:
        run_id = ledger.value("run_id_latest")
        if run_id is None:
            hint = "`durabatch transactions` lists its transactions." if list_transactions(ledger) else "Start one with `durabatch run`."
            raise NotFoundError("the ledger holds no run", hint)
        return get(ledger, run_id)
    run_id = find_id(ledger, name_or_id)
    if run_id is None:
        names = [row.name for row in list_all(ledger)][-5:]
        there = f"There are: {', '.join(names)}." if names else "The ledger holds no run."
        raise NotFoundError(f"no run {str(name_or_id)!r} in this ledger", there)
    return get(ledger, run_id)


def find_id(ledger: Executor, name_or_id: str | int) -> int | None:
    """Return the id of the newest run of that series, else of the run with that name, else that id if there is such a run, else None."""
    found = None
    if isinstance(name_or_id, str):
        found = ledger.value("run_id_newest_of_series", (name_or_id,)) or ledger.value("run_id_by_name", (name_or_id,))
    if found is None and str(name_or_id).isdecimal() and int(name_or_id) <= LARGEST_ID:
        found = ledger.value("run_get", (int(name_or_id),))
    return None if found is None else int(found)


def id_by_name(ledger: Executor, name: str) -> int | None:
    """Return the id of the run that is called exactly so, or None."""
    found = ledger.value("run_id_by_name", (name,))
    return None if found is None else int(found)


def newest_of_series(ledger: Executor, series: str) -> RunRow | None:
    """Return the newest run of *series*, or None."""
    run_id = ledger.value("run_id_newest_of_series", (series,))
    return None if run_id is None else get(ledger, run_id)


def list_all(ledger: Executor) -> list[RunRow]:
    """Return all runs, oldest first."""
    return [decode(ledger, values) for values in ledger.rows("run_list")]


def list_transactions(ledger: Executor) -> list[RunRow]:
    """Return all transactions, oldest first."""
    return [decode(ledger, values) for values in ledger.rows("run_list_transactions")]


def open_transactions(ledger: Executor) -> list[tuple[int, str]]:
    """Return id and name of the transactions that are neither committed nor rolled back, oldest first."""
    return [(row[0], row[1]) for row in ledger.rows("run_list_open_transactions")]


def reopen(
    ledger: Connection, run_id: int, *, handler: object, settings: object, fingerprint: object = None, source: object = None, provenance: object = None
) -> None:
    """Take a stopped run up again; of *fingerprint*, *source* and *provenance* None leaves the recorded one."""
    ledger.execute(
        "run_reopen",
        {
            "run_id": run_id,
            "handler": to_json(handler).decode(),
            "settings": to_json(settings).decode(),
            "fingerprint": encoded(fingerprint),
            "source": encoded(source),
            "provenance": encoded(provenance),
        },
    )


def encoded(value: object) -> str | None:
    """Return *value* as JSON text, None for None."""
    return None if value is None else to_json(value).decode()


def add(ledger: Connection, run_id: int, tally: Tally) -> None:
    """Apply the differences in *tally*."""
    ledger.execute("run_add", {**tally.as_row(), "run_id": run_id})


def set_intake(ledger: Connection, run_id: int, *, position: str | None, complete: bool, intake: Mapping[str, object]) -> None:
    """Remember where intake goes on, whether more items may come, and what was read so far."""
    ledger.execute(
        "run_set_intake",
        {"run_id": run_id, "source_position": position, "intake_complete": int(complete), "intake": to_json(intake).decode()},
    )


def set_open(ledger: Connection, run_id: int, *, is_open: bool, complete: bool) -> None:
    """Remember whether items may come from any process, and whether no more will come at all."""
    ledger.execute("run_set_open", {"run_id": run_id, "is_open": int(is_open), "intake_complete": int(complete)})


def set_fingerprint(ledger: Connection, run_id: int, fingerprint: object) -> None:
    """Remember how the input files stand now."""
    ledger.execute("run_set_fingerprint", (run_id, encoded(fingerprint)))


def set_output(ledger: Connection, run_id: int, output: Mapping[str, object]) -> None:
    """Remember how far the output file has grown; empty: it is to be written from its start."""
    ledger.execute("run_set_output", (run_id, to_json(output).decode()))


def restart_output(ledger: Connection, run_id: int) -> None:
    """Have the output file written from its start: something in it is no longer so."""
    ledger.execute("run_restart_output", (run_id,))


def is_output_restarted(ledger: Executor, run_id: int) -> bool:
    """Tell whether nothing is remembered of what was written of the output."""
    return "batches" not in from_json(ledger.value("run_get_output", (run_id,)))


def forget_fingerprint(ledger: Connection, run_id: int) -> None:
    """Remember that no input is the one that the items came from."""
    ledger.execute("run_forget_fingerprint", (run_id,))


def set_claimed(ledger: Connection, run_id: int, *, next_item_id: int, dispatch_count: int, now_us: int) -> None:
    """Remember the watermark and the last dispatch number."""
    ledger.execute("run_set_claimed", {"run_id": run_id, "next_item_id": next_item_id, "dispatch_count": dispatch_count, "now_us": now_us})


def set_watermark(ledger: Connection, run_id: int, next_item_id: int) -> None:
    """Remember that no fresh item stands before *next_item_id*."""
    ledger.execute("run_set_watermark", (run_id, next_item_id))


def set_spent(ledger: Connection, run_id: int, spent: Mapping[str, float]) -> None:
    """Remember what the attempts of the run have spent, by unit."""
    ledger.execute("run_set_spent", (run_id, to_json(spent).decode()))


def set_flow(ledger: Connection, run_id: int, flow: Mapping[str, object]) -> None:
    """Remember what the limits of the run need after a resume."""
    ledger.execute("run_set_flow", (run_id, to_json(flow).decode()))


def set_binding_limit(ledger: Connection, run_id: int, binding_limit: str | None) -> None:
    """Remember what holds the run back now."""
    ledger.execute("run_set_binding_limit", (run_id, binding_limit))


def set_state(ledger: Connection, run_id: int, state: RunState, reason: str | None) -> None:
    """Pause a run or let it go on; to end it there is ``conclude``."""
    ledger.execute("run_set_state", (run_id, state, reason))


def set_pace(ledger: Connection, run_id: int, *, elapsed_us: int, items_per_s: float) -> None:
    """Remember the time spent and the present rate."""
    ledger.execute("run_set_pace", {"run_id": run_id, "elapsed_us": elapsed_us, "items_per_s": items_per_s})


def conclude(ledger: Connection, run_id: int, state: RunState, *, reason: str | None, exit_code: int, items_per_s: float, now_us: int) -> None:
    """Stop or end the run."""
    over = state in (RunState.FINISHED, RunState.CANCELLED, RunState.ROLLED_BACK)
    row = {
        "run_id": run_id, "state": state, "reason": reason, "exit_code": exit_code,
        "items_per_s": items_per_s, "finished_at_us": now_us if over else None,
    }
    ledger.execute("run_conclude", row)
