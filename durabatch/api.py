"""
What Python users hold: ``map``, ``amap``, and the ledger with its runs.

Reading never waits for a coordinator and never disturbs one. ``run``, ``resume``, ``retry`` and ``map`` coordinate: they own the ledger
for their time, and a second one is refused. The runner is imported by those alone, so that looking at a ledger starts quickly.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from durabatch.engine import results as reading
from durabatch.engine import status as standing
from durabatch.engine.submit import locate
from durabatch.errors import NotFoundError, UsageError
from durabatch.ledger import item, run
from durabatch.ledger.reader import Reader
from durabatch.models import AttemptView, ErrorGroup, Finding, Progress, Result, RunStatus, Summary

if TYPE_CHECKING:
    from durabatch.runner.asking import Handler, Items
    from durabatch.runner.orders import Verb
    from durabatch.runner.request import BatchOutput, RunRequest

__all__ = ["Ledger", "Run", "amap", "map"]

#: Seconds that an ad-hoc query may take.
SQL_TIMEOUT_S = 30.0
#: Items read at once when they are chosen by an expression.
PAGE = 1000
#: What may be called while a run is at work.
CALLBACKS = ("on_batch", "on_progress", "on_note")


def map(
    handler: Handler,
    items: Items,
    *,
    ledger: str | os.PathLike[str] = "durabatch.db",
    name: str | None = None,
    key: str | None = None,
    ordered: bool = False,
    fresh: bool = False,
    **settings: Any,
) -> Iterator[Result]:
    """
    Yield one Result per item as they finish, failed ones too; every result is on disk before it is yielded.

    The same call again goes on where the last one stopped: what is recorded is yielded first and not run again.

    Args:
        handler: Called with one item, or an item and a Context. Worker processes import it by its name.
        items: Values, a path, or ``durabatch.csv(…)`` and its kind.
        ledger: The file that remembers; made when it is not there.
        name: Name of the run; default: the handler's name.
        key: For records, the field that identifies an item.
        ordered: Yield in input order; ``keep_order=True`` does so too, and has output and ``on_batch`` follow it.
        fresh: Start anew, beside the earlier runs of that name.
        settings: Fields of RunSettings: ``workers`` (default: usable cores), ``batch_size``, ``max_attempts``, ``params`` …

    Raises:
        DurabatchError: See :mod:`durabatch.errors`. Results yielded before are recorded.
        RunHaltedError: The run stopped before its end, with its reason.
        KeyboardInterrupt: SIGINT came; running items were finished first.
    """
    from durabatch.runner.session import Session
    from durabatch.runner.yielding import yielded

    with Ledger(ledger) as held:
        request = held.request(handler, items, name=name, key=key, fresh=fresh, settings=settings)
        yield from yielded(Session(request), ordered=ordered or request.settings.keep_order)


async def amap(handler: Handler, items: Items, **options: Any) -> AsyncIterator[Result]:
    """
    Do what :func:`map` does, for asynchronous programs: the event loop goes on while results are waited for.

    Args and errors are those of :func:`map`. Signals are left to the program.
    """
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    loop = asyncio.get_running_loop()
    results = map(handler, items, **options)
    # The ledger belongs to one thread, so all steps are made in the same one.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="durabatch") as thread:
        try:
            while (one := await loop.run_in_executor(thread, next, results, None)) is not None:
                yield one
        finally:
            await loop.run_in_executor(thread, results.close)  # type: ignore[attr-defined]


class Ledger:
    """
    A ledger file. Takes no lock by itself; a context manager for symmetry.

    Args:
        path: The file; made by the first ``run``.
        durability: ``power`` or ``process``: what a commit survives.
        allow_network_fs: Accept a network file system, if only this host ever opens the file.
    """

    def __init__(self, path: str | os.PathLike[str] = "durabatch.db", *, durability: str = "power", allow_network_fs: bool = False) -> None:
        if durability not in ("power", "process"):
            raise UsageError(f"durability: {durability!r} is not 'power' or 'process'")
        self.path = Path(path)
        self.durability = durability
        self.allow_network_fs = allow_network_fs

    def __enter__(self) -> Self:
        """Return the ledger itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held between calls, so nothing is to be done."""

    def __getitem__(self, name_or_id: str | int) -> Run:
        """
        Return the run with this name (the newest of its series) or id.

        Raises:
            NotFoundError: There is none.
        """
        with self.reader() as reader:
            return Run(self, run.find(reader, name_or_id).run_id)

    def reader(self) -> Reader:
        """Return a read-only connection."""
        return Reader(self.path)

    def latest(self) -> Run:
        """Return the active or else the latest run."""
        with self.reader() as reader:
            return Run(self, standing.status(reader, None).run_id)

    def runs(self) -> list[RunStatus]:
        """Return the status of all runs, oldest first."""
        with self.reader() as reader:
            return standing.list_runs(reader)

    def run(
        self,
        handler: Handler,
        items: Items,
        *,
        name: str | None = None,
        key: str | None = None,
        fresh: bool = False,
        on_batch: Callable[[BatchOutput], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_note: Callable[[str], None] | None = None,
        **settings: Any,
    ) -> Summary:
        """
        Run *handler* over *items*, or go on with the run of that name, and return how it ended.

        Args and errors as for :func:`map`; a run that was stopped is told by ``exit_code`` and ``status.reason``.
        """
        from durabatch.runner.session import execute

        request = self.request(handler, items, name=name, key=key, fresh=fresh, settings=settings)
        return execute(replace(request, on_batch=on_batch, on_progress=on_progress, on_note=on_note))

    def request(self, handler: Handler, items: Items, *, name: str | None, key: str | None, fresh: bool, settings: dict[str, Any]) -> RunRequest:
        """Return the request for a run."""
        from durabatch.runner import asking

        asked = asking.ask(handler, items, key=key, settings=settings, ledger=str(self.path))
        return replace(asked, series=name or asked.series, fresh=fresh, durability=self.durability, allow_network_fs=self.allow_network_fs)

    def sql(self, query: str, *, timeout_s: float = SQL_TIMEOUT_S) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
        """
        Return column names and rows of a query that only reads; ``item_value(item_id)`` gives an item's value as JSON, packed or not.

        Raises:
            SqlError: It is wrong, tries to write, or takes too long.
        """
        reader = self.reader()
        values = reading.ValueReader(reader)

        def item_value(item_id: int) -> str | None:
            return next((one.value_json for one in reading.chosen(values.ledger, [item_id])), None)

        reader.add_function("item_value", item_value)
        columns, rows = reader.query(query, timeout_s=timeout_s)
        return columns, closing(reader, rows)

    def verify(self) -> list[Finding]:
        """Return every rule of the ledger that does not hold; an empty list says that it is sound."""
        from durabatch.engine.verify import verify

        with self.reader() as reader:
            return verify(reader)


def closing(reader: Reader, rows: Iterator[Any]) -> Iterator[Any]:
    """Yield *rows* and close their reader behind the last one."""
    with reader:
        yield from rows


class Run:
    """One run of a ledger; every verb of the command line is a method with its name."""

    def __init__(self, ledger: Ledger, run_id: int) -> None:
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

    def errors(self) -> list[ErrorGroup]:
        """Return the failed items grouped by error, biggest group first."""
        with self.ledger.reader() as reader:
            return standing.error_groups(reader, self.run_id)

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
