"""
Batching strategies by name: those of durabatch, and those that installed packages bring.

A package brings one by an entry point of the group ``durabatch.batching``; it names a function (or class) that takes a
:class:`~durabatch.flow.batching.strategy.BatchSettings` and returns a :class:`~durabatch.flow.batching.strategy.BatchStrategy`.
Names of durabatch cannot be taken by others.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING

from durabatch.errors import UsageError
from durabatch.flow.batching.bytes import ByteBatches
from durabatch.flow.batching.fixed import FixedBatches
from durabatch.flow.batching.memory import MemoryBatches
from durabatch.flow.batching.strategy import BatchSettings, BatchStrategy
from durabatch.flow.batching.time import TimeBatches

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

__all__ = ["ENTRY_POINTS", "strategy", "strategy_names"]

ENTRY_POINTS = "durabatch.batching"
OPTION = "--batch-strategy"
BUILT_IN: dict[str, Callable[[BatchSettings], BatchStrategy]] = {
    "bytes": lambda settings: ByteBatches(settings.size),
    "fixed": lambda settings: FixedBatches(settings.size),
    "memory": lambda settings: MemoryBatches(settings.size, settings.memory_threshold),
    "time": lambda settings: TimeBatches(settings.size, settings.seconds),
}


def strategy_names() -> list[str]:
    """Return the names of all strategies there are, sorted."""
    return sorted({*BUILT_IN, *brought_in().names})


def strategy(name: str, settings: BatchSettings) -> BatchStrategy:
    """
    Return the strategy called *name*, new.

    Raises:
        UsageError: There is none of that name, or a package brings one that does not work.
    """
    if name in BUILT_IN:
        return BUILT_IN[name](settings)
    for point in brought_in().select(name=name):
        return made_by(point, settings)
    names = strategy_names()
    near = difflib.get_close_matches(name, names, n=1)
    raise UsageError(f"{OPTION}: {name!r} is not one of {', '.join(names)}", f"Did you mean {near[0]!r}?" if near else "")


def brought_in() -> EntryPoints:
    """Return what installed packages bring; looked for when asked, as the import alone costs more than a small run."""
    from importlib.metadata import entry_points

    return entry_points(group=ENTRY_POINTS)


def made_by(point: EntryPoint, settings: BatchSettings) -> BatchStrategy:
    """Return the strategy of an entry point; whatever goes wrong in it is the package's, and said as such."""
    try:
        made = point.load()(settings)
    except Exception as error:
        raise broken(point, " ".join(f"{type(error).__name__}: {error}".split())) from error
    if not isinstance(made, BatchStrategy):
        raise broken(point, f"{type(made).__name__} lacks is_full, cut or learn")
    return made


def broken(point: EntryPoint, why: str) -> UsageError:
    """Return the error for a strategy that a package brings and that does not work."""
    package = f" of {point.dist.name}" if point.dist else ""
    return UsageError(
        f"{OPTION}: {point.name!r}{package} ({point.value}) cannot be used: {why}", f"Use {', '.join(BUILT_IN)}, or mend the package."
    )
