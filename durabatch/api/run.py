"""
One run of a ledger, as Python users hold it: every verb of the command line is a method with its name.

Reading never waits for a coordinator and never disturbs one. ``resume``, ``retry`` and ``work`` coordinate: they own the ledger for their time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from durabatch.api.place import LedgerFile, closing
from durabatch.clock import now_us
from durabatch.engine import results as reading
from durabatch.engine import status as standing
from durabatch.engine.submit import locate
from durabatch.errors import LedgerDamagedError, NotFoundError
from durabatch.ledger import item
from durabatch.ledger.reader import Reader
from durabatch.models import AttemptView, ErrorGroup, Explanation, Result, RunStatus, Summary

if TYPE_CHECKING:
    from typing import BinaryIO

    from durabatch.output.export import Exported
    from durabatch.output.write_back import WrittenBack
    from durabatch.runner.asking import Handler
    from durabatch.runner.orders import Verb
    from durabatch.runner.request import RunRequest

__all__ = ["SQL_TIMEOUT_S", "Run"]

#: Seconds that an ad-hoc query may take.
SQL_TIMEOUT_S = 30.0
#: Items read at once when they are chosen by an expression.
PAGE = 1000
#: What may be called while a run is at work.
CALLBACKS = ("on_batch", "on_progress", "on_note")


def raised(error: LedgerDamagedError) -> None:
    """Raise what was found of a stored value."""
    raise error


class Run:
    """One run of a ledger; every verb of the command line is a method with its name."""

    def __init__(self, ledger: LedgerFile, run_id: int) -> None:
        self.ledger = ledger
        self.run_id = run_id

    def status(self) -> RunStatus:
        """Return where the run stands."""
        with self.ledger.reader() as reader:
            return standing.status(reader, self.run_id)

    def results(self) -> Iterator[Result]:
        """Yield every item in input order, whatever became of it."""
        reader = self.ledger.reader()
        return closing(reader, reading.results(reader, self.run_id))

    def items(
        self, *, state: str | None = None, where: str | None = None, limit: int | None = None, on_damage: reading.OnDamage | None = None
    ) -> Iterator[Result]:
        """
        Yield items in input order.

        Args:
            state: Only those in this state.
            where: Only those for which this SQL expression over v_item holds.
            limit: At most so many.
            on_damage: Called with an error for each item whose stored value is damaged, which is then yielded without a value.

        Raises:
            LedgerDamagedError: A stored value is damaged and *on_damage* is None.
            SqlError: The expression is wrong.
        """
        reader = self.ledger.reader()
        if state is None and where is None:
            found = reading.results(reader, self.run_id, on_damage=on_damage)
        else:
            found = self.chosen(reader, state, where or "1", on_damage)
        return closing(reader, (one for index, one in zip(range(limit), found, strict=False)) if limit is not None else found)

    def chosen(self, reader: Reader, state: str | None, where: str, on_damage: reading.OnDamage | None) -> Iterator[Result]:
        """Yield the items for which an expression holds, a page at a time."""
        _, rows = reader.query(item.where_query(where), (self.run_id, state), timeout_s=SQL_TIMEOUT_S)
        ids = [row[0] for row in rows]
        for start in range(0, len(ids), PAGE):
            yield from reading.chosen(reader, ids[start : start + PAGE], on_damage=on_damage)

    def export(
        self,
        output: str | os.PathLike[str] | BinaryIO,
        *,
        format: str | None = None,
        state: str | Iterable[str] = "succeeded",
        where: str | None = None,
        incremental: bool = False,
        failures: str | os.PathLike[str] | None = None,
        raw_formulas: bool = False,
        on_damage: reading.OnDamage | None = None,
    ) -> Exported:
        """
        Write items to a file, as of one moment and in input order, and return what was written.

        Args:
            output: The file, which appears whole or not at all, or an open binary file for json, jsonl or csv.
            format: ``json``, ``jsonl``, ``csv``, ``xlsx``, ``parquet``, ``sqlite``, or one of a package; None goes by the suffix.
            state: Items in this state, or in one of these.
            where: Only those for which this SQL expression over v_item holds.
            incremental: Only what earlier incremental exports have not written to this output; when there is nothing, it stays as it is.
            failures: Where the payloads of failed items go; None: beside *output*, as ``OUTPUT.failures.jsonl``, when there are any.
            raw_formulas: Leave text in csv and xlsx as it is that a spreadsheet takes for a formula.
            on_damage: Called with an error for each item whose stored value is damaged, which is left out; None raises it.

        Raises:
            UsageError: Format, output or states cannot be used. Nothing was written.
            OutputError: The file could not be written; what was there before is there still.
            LedgerDamagedError: A stored value is damaged and *on_damage* is None.
        """
        from durabatch.output.export import ExportRequest, export

        place = Path(os.fspath(output)) if isinstance(output, (str, os.PathLike)) else None
        states = (state,) if isinstance(state, str) else tuple(state)
        request = ExportRequest(
            ledger=self.ledger.path, run_id=self.run_id, output=place, stream=None if isinstance(output, (str, os.PathLike)) else output,
            format=format, states=states, where=where, incremental=incremental, failures=None if failures is None else Path(failures),
            raw_formulas=raw_formulas, timeout_s=SQL_TIMEOUT_S, allow_network_fs=self.ledger.allow_network_fs,
        )  # fmt: skip
        return export(request, on_damage=on_damage or raised)

    def write_back(
        self,
        workbook: str | os.PathLike[str],
        column: str,
        *,
        force: bool = False,
        raw_formulas: bool = False,
        on_damage: reading.OnDamage | None = None,
    ) -> WrittenBack:
        """
        Put the results into a column of the workbook that the items came from; the workbook as it was stays beside it.

        Args:
            column: Heading of the column; one that is not there is made.
            force: Go on although the workbook is open elsewhere, has changed since, or would lose something.

        Raises:
            UsageError: The run did not read this workbook, or *force* is needed. Nothing was written.
            OutputError: The file could not be written; the workbook is as it was.
        """
        from durabatch.output.write_back import WriteBackRequest, write_back

        request = WriteBackRequest(
            ledger=self.ledger.path, run_id=self.run_id, workbook=Path(workbook), column=column, force=force, raw_formulas=raw_formulas,
            allow_network_fs=self.ledger.allow_network_fs,
        )  # fmt: skip
        return write_back(request, on_damage=on_damage or raised)

    def errors(self) -> list[ErrorGroup]:
        """Return the failed items grouped by error, biggest group first."""
        with self.ledger.reader() as reader:
            return standing.error_groups(reader, self.run_id)

    def has(self, key: str) -> bool:
        """Tell whether the run has an item with this key."""
        with self.ledger.reader() as reader:
            return locate(reader, self.run_id, key) is not None

    def result(self, key: str, *, on_damage: reading.OnDamage | None = None) -> Result:
        """
        Return one item; of what is packed, no more is read than the frame that its value lies in.

        Args:
            on_damage: As for ``items``.

        Raises:
            NotFoundError: The run has no such item.
            LedgerDamagedError: The stored value is damaged and *on_damage* is None.
        """
        with self.ledger.reader() as reader:
            item_id = locate(reader, self.run_id, key)
            if item_id is None:
                raise NotFoundError(f"no item {key!r} in this run", "`durabatch items` lists them.")
            return reading.chosen(reader, [item_id], on_damage=on_damage)[0]

    def attempts(self, key: str) -> list[AttemptView]:
        """
        Return the tries at an item, oldest first.

        Raises:
            NotFoundError: The run has no such item.
        """
        with self.ledger.reader() as reader:
            item_id = locate(reader, self.run_id, key)
            if item_id is None:
                raise NotFoundError(f"no item {key!r} in this run", "`durabatch items` lists them.")
            return standing.attempts(reader, item_id)

    def explain(self, key: str) -> Explanation:
        """
        Return in words what happened to an item, and why it would run next, or would not.

        Raises:
            NotFoundError: The run has no such item.
        """
        from durabatch.engine.explain import explain

        with self.ledger.reader() as reader:
            return explain(reader, self.run_id, key, now_us=now_us())

    def resume(self, *, handler: Handler | None = None, trust_ledger: bool = False, **overrides: Any) -> Summary:
        """
        Finish what is unfinished.

        Args:
            handler: In the place of the recorded one.
            trust_ledger: Import the recorded handler although another user or machine made the ledger.
            overrides: Fields of RunSettings and callbacks, in the place of the recorded ones.
        """
        from durabatch.runner.session import execute

        return execute(replace(self.again("resume", handler, overrides), trust_ledger=trust_ledger))

    def retry(self, error: str | None = None, *, handler: Handler | None = None, trust_ledger: bool = False, **overrides: Any) -> Summary:
        """Run the failed items again, all or those with the error type *error*; needs no input. The other arguments are those of ``resume``."""
        from durabatch.runner.session import execute

        return execute(replace(self.again("retry", handler, overrides), error_type=error, trust_ledger=trust_ledger))

    def pause(self) -> RunStatus:
        """
        Have the coordinator of the run, in whatever process, hand out nothing more until ``unpause``; items at work go on to their end.

        Like the other methods that steer, it waits up to 5 seconds for its effect and returns where the run stands then.

        Raises:
            LedgerError: Nobody works on the run, or the coordinator has not answered; an order that was given stays.
            UsageError: The coordinator refuses the order.
        """
        return self.steer("pause")

    def unpause(self) -> RunStatus:
        """Go on after ``pause``; errors as there."""
        return self.steer("unpause")

    def scale(self, workers: int) -> RunStatus:
        """Work with so many worker processes from now on; those that are too many end after what they are at. Errors as for ``pause``."""
        return self.steer("scale", f"{workers}")

    def set(self, **settings: Any) -> RunStatus:
        """Change ``rate``, ``timeout`` (None: off), ``batch_size`` or ``concurrency`` of the run while it works; errors as for ``pause``."""
        return self.steer("set", *(f"{name}={'off' if value is None else value}" for name, value in settings.items()))

    def drain(self) -> RunStatus:
        """Stop the run as a first signal does: items at work end, all others wait for the next call. Errors as for ``pause``."""
        return self.steer("drain")

    def cancel(self) -> RunStatus:
        """
        End the run for good: items at work are interrupted, all that have not ended are cancelled. Works without a coordinator, too.

        Raises:
            LedgerError: The ledger is at work for another run, or the coordinator has not answered.
            UsageError: The run has ended.
        """
        return self.steer("cancel")

    def close(self) -> RunStatus:
        """
        Have an open run take no more items and finish, whoever works on it; return where it stands then.

        Raises:
            LedgerError: The ledger cannot be used.
        """
        from durabatch.runner.closing import closed

        held = self.ledger
        return closed(held.path, self.run_id, durability=held.durability, allow_network_fs=held.allow_network_fs).status

    def work(self, *, handler: Handler | None = None, trust_ledger: bool = False, **overrides: Any) -> Summary:
        """Work on an open run and wait for more items, until it is closed or ``idle_exit_s`` is over. The arguments are those of ``resume``."""
        from durabatch.runner.session import execute

        return execute(replace(self.again("resume", handler, overrides), trust_ledger=trust_ledger, open=True))

    def steer(self, verb: Verb, *words: str) -> RunStatus:
        """Give the order *verb* with what stands behind it on the command line, and return where the run stands then."""
        from durabatch.runner.steering import steered

        return steered(self.ledger.path, self.run_id, verb, *words, allow_network_fs=self.ledger.allow_network_fs).status

    def again(self, verb: Literal["resume", "retry"], handler: Handler | None, overrides: dict[str, Any]) -> RunRequest:
        """Return the request for a verb on this run."""
        from durabatch.runner import asking

        callbacks = {name: overrides.pop(name) for name in CALLBACKS if name in overrides}
        asked = asking.ask_again(verb, handler, overrides, ledger=str(self.ledger.path), run_id=self.run_id)
        return replace(asked, durability=self.ledger.durability, allow_network_fs=self.ledger.allow_network_fs, **callbacks)
