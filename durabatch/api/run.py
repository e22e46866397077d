"""
One run of a ledger, as Python users hold it: every verb of the command line is a method with its name.

Reading never waits for a coordinator and never disturbs one. ``resume``, ``retry``, ``rollback`` and ``work`` coordinate: they own the ledger for their time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from durabatch.api.checkpoint import Checkpointed
from durabatch.api.place import closing
from durabatch.api.steering import SteeredRun
from durabatch.clock import now_us
from durabatch.engine import results as reading
from durabatch.engine import status as standing
from durabatch.engine.submit import locate
from durabatch.errors import LedgerDamagedError, NotFoundError, UsageError
from durabatch.ledger import item, run
from durabatch.ledger.reader import Reader
from durabatch.models import AttemptView, ErrorGroup, Explanation, Result, RunStatus, Summary

if TYPE_CHECKING:
    from typing import BinaryIO

    from durabatch.engine.rollback import PlannedStep, Scope
    from durabatch.output.export import Exported
    from durabatch.output.write_back import WrittenBack
    from durabatch.runner.asking import Handler
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


class Run(SteeredRun, Checkpointed):
    """One run of a ledger; every verb of the command line is a method with its name."""

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

    def resume(self, *, handler: Handler | None = None, trust_ledger: bool = False, force: bool = False, **overrides: Any) -> Summary:
        """
        Finish what is unfinished.

        Args:
            handler: In the place of the recorded one.
            trust_ledger: Import the recorded handler although another user or machine made the ledger.
            force: Go on although the last checkpoint is not as it was recorded.
            overrides: Fields of RunSettings and callbacks, in the place of the recorded ones.
        """
        from durabatch.runner.session import execute

        return execute(replace(self.again("resume", handler, overrides), trust_ledger=trust_ledger, force=force))

    def retry(
        self, error: str | None = None, *, undone: bool = False, handler: Handler | None = None, trust_ledger: bool = False, **overrides: Any
    ) -> Summary:
        """
        Run the failed items again, all or those with the error type *error*; needs no input. What they have left behind is undone first.

        Args:
            undone: Run those again that were undone, and not the failed ones.
            handler, trust_ledger, overrides: As for ``resume``.
        """
        from durabatch.runner.session import execute

        states = ("undone",) if undone else ()
        return execute(replace(self.again("retry", handler, overrides), error_type=error, states=states, trust_ledger=trust_ledger))

    def rollback(
        self,
        *,
        batch: int | None = None,
        to_batch: int | None = None,
        items: str | Iterable[str] = (),
        where: str | None = None,
        workers: int | None = None,
        keep_going: bool = False,
        force: bool = False,
        handler: Handler | None = None,
        trust_ledger: bool = False,
        **overrides: Any,
    ) -> Summary:
        """
        Undo what the items of the run did, newest first; of several choices all must hold of an item, without any all of the run is meant.

        Killed and called again it goes on, and undoes nothing twice. ``rolled_back`` of the summary says what is undone and what remains;
        ``exit_code`` is 1 when something does.

        Args:
            batch: Only the items of this batch.
            to_batch: Only what ran after this checkpoint was made, so that it is what remains; 0 for everything.
            items: Only the items with these keys, or this one.
            where: Only items for which this SQL expression over v_item holds.
            workers: Undo several items at once, in so many processes: they do not depend on each other. 0: in this process, one step at a
                time. None: one step at a time in one process, or in this one where only it has the handler.
            keep_going: A step that fails for good ends the rollback of its item alone.
            force: Undo changes of files also where something was changed since.
            handler, trust_ledger, overrides: As for ``resume``; ``timeout``, ``max_attempts`` and ``backoff_s`` are those of steps.

        Raises:
            UsageError: The ledger names code of somebody else's, or an argument is wrong. Nothing was changed.
            NotFoundError: There is no such batch or item. Nothing was changed.
            LedgerError: The ledger cannot be used, or somebody has it.
        """
        from durabatch.runner.session import execute

        in_order = workers is None or workers <= 1
        request = self.again("rollback", handler, {**overrides, "workers": self.undoing_workers() if workers is None else workers})
        scope = self.scope(batch=batch, to_batch=to_batch, items=items, where=where)
        return execute(
            replace(request, scope=scope, in_order=in_order, keep_going=keep_going, force=force, trust_ledger=trust_ledger)
        )

    def rollback_steps(
        self, *, batch: int | None = None, to_batch: int | None = None, items: str | Iterable[str] = (), where: str | None = None
    ) -> Iterator[PlannedStep]:
        """
        Yield what ``rollback`` with the same choice would undo, in its order, and undo nothing; also while the run is on.

        Raises:
            NotFoundError: There is no such batch or item.
            SqlError: The expression is wrong.
        """
        from durabatch.engine.rollback import planned

        reader = self.ledger.reader()
        return closing(reader, planned(reader, self.run_id, self.scope(batch=batch, to_batch=to_batch, items=items, where=where)))

    def scope(self, *, batch: int | None, to_batch: int | None, items: str | Iterable[str], where: str | None) -> Scope:
        """Return which items are meant; UsageError when no item can be."""
        from durabatch.engine.rollback import Scope

        if batch is not None and to_batch is not None:
            raise UsageError("batch and to_batch exclude each other", "Give one of them.")
        keys = (items,) if isinstance(items, str) else tuple(items)
        return Scope(batch=batch, to_batch=to_batch, keys=keys, where=where)

    def undoing_workers(self) -> int:
        """Return how many processes undo when nobody says so: none where only this program has the handler."""
        with self.ledger.reader() as reader:
            return int(run.get(reader, self.run_id).handler.get("kind") != "inline")

    def work(self, *, handler: Handler | None = None, trust_ledger: bool = False, **overrides: Any) -> Summary:
        """Work on an open run and wait for more items, until it is closed or ``idle_exit_s`` is over. The arguments are those of ``resume``."""
        from durabatch.runner.session import execute

        return execute(replace(self.again("resume", handler, overrides), trust_ledger=trust_ledger, open=True))

    def again(self, verb: Literal["resume", "retry", "rollback"], handler: Handler | None, overrides: dict[str, Any]) -> RunRequest:
        """Return the request for a verb on this run."""
        from durabatch.runner import asking

        callbacks = {name: overrides.pop(name) for name in CALLBACKS if name in overrides}
        asked = asking.ask_again(verb, handler, overrides, ledger=str(self.ledger.path), run_id=self.run_id)
        return replace(asked, durability=self.ledger.durability, allow_network_fs=self.ledger.allow_network_fs, **callbacks)
