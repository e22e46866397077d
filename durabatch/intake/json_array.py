"""
The elements of a JSON array as items, without the array ever being in memory: strict, as JSON lines are.
"""

from __future__ import annotations

from typing import Any

from durabatch.errors import InputError
from durabatch.intake.array_text import ArrayText
from durabatch.intake.keys import Keys
from durabatch.intake.records import Records, as_input_error
from durabatch.intake.source import Batch, Row
from durabatch.intake.text import SkipBad

__all__ = ["JsonArrayReader"]

TRAILING = "not JSON: more text after the value"


class JsonArrayReader:
    """
    Reads the elements of an array; source positions are their numbers.

    Args:
        array: The opened input, where reading begins.
        base: Source position before the first element.
        keys: The key decision of the source; the first record makes it.
        skip_bad: Leaves out elements that cannot be items; None stops before the first.
        numbers: ``text`` keeps numbers as their text where they cannot be kept exactly.
    """

    def __init__(self, array: ArrayText, base: int, keys: Keys, skip_bad: SkipBad | None = None, *, numbers: str = "exact") -> None:
        self.waits = array.waits
        self._array = array
        self._base = base
        self._records = Records(keys, array.where, numbers, met=array.item > 0)
        self._skip_bad = skip_bad

    def read(self, max_items: int, max_bytes: int) -> Batch:
        """Return the next items."""
        array = self._array
        first = array.item
        try:
            taken = array.take(max_items, max_bytes)
        except InputError as error:
            return Batch([], problem=self._refuse(error))
        rows: list[Row] = []
        problem = self._add(rows, taken, first)
        self._records.watch(rows, self._base)
        return Batch(rows, sum(map(len, taken)) + len(taken), problem, ended=array.ended and problem is None)

    def _refuse(self, error: InputError) -> InputError | None:
        if not self._array.can_step_over or self._skip_bad is None or not self._skip_bad(error):
            return error
        self._array.step_over()
        return None

    def _add(self, rows: list[Row], taken: list[bytes], first: int) -> InputError | None:
        """Append the items of *taken*; at a bad one that is not left out the place is set before it and what is wrong is returned."""
        start = 0
        while (bad := self._records.add(rows, taken[start:] if start else taken, self._base + first + start)) is not None:
            index = start + bad[0]
            line, column = self._array.place_of(taken, index)
            problem = as_input_error(bad[1], taken[index], lambda line: f"{self._array.where}:{line}", line, column)
            if TRAILING in problem.what:
                problem = InputError(problem.where, problem.what.removeprefix(f"{problem.where}: ").replace(TRAILING, "a comma is missing"))
            if self._skip_bad is None or not self._skip_bad(problem):
                self._array.give_back(taken, index)
                return problem
            start = index + 1
        return None

    def state(self) -> dict[str, Any]:
        """Return the place behind the elements read."""
        return self._array.state()

    def position(self) -> int:
        """Return the position of the last element taken."""
        return self._base + self._array.item

    def ready(self) -> bool:
        """Return False when reading would wait."""
        return self._array.ready()

    def close(self) -> None:
        """Close the input."""
        self._array.close()
