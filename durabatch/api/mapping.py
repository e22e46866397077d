"""
``map`` and ``amap``: the results of a function over items, as they come.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from durabatch.api.ledger import Ledger, Wishes
from durabatch.models import Result

if TYPE_CHECKING:
    from durabatch.runner.asking import Handler, Items

__all__ = ["amap", "map"]


def map(
    handler: Handler,
    items: Items,
    *,
    ledger: str | os.PathLike[str] = "durabatch.db",
    name: str | None = None,
    key: str | None = None,
    ordered: bool = False,
    fresh: bool = False,
    on_change: str | None = None,
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
        on_change: What to do when the items or the handler's version have changed: ``ledger``, ``merge``, ``source`` or the path of a plan.
        settings: Fields of RunSettings: ``workers`` (default: usable cores), ``batch_size``, ``max_attempts``, ``params`` …

    Raises:
        DurabatchError: See :mod:`durabatch.errors`. Results yielded before are recorded.
        InputChangedError: The items have changed, and ``on_change`` is None. Nothing was run.
        RunHaltedError: The run stopped before its end, with its reason.
        KeyboardInterrupt: SIGINT came; running items were finished first.
    """
    from durabatch.runner.session import Session
    from durabatch.runner.yielding import yielded

    with Ledger(ledger) as held:
        wishes = Wishes(name=name, key=key, fresh=fresh, on_change=on_change)
        request = held.request(handler, items, wishes, settings)
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
