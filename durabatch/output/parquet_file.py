"""
Rows as a Parquet file; the package pyarrow comes with the extra ``[parquet]``.

A column has the type that all its cells have: truth value, 64 bit integer, double or text. A column of mixed or nested values holds JSON
text. Rows are handed over a group at a time, so memory is bounded by a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from durabatch.output.columns import Column, Kind, Table, typed
from durabatch.output.rows import ExportRow
from durabatch.output.sinks import SinkSettings, require

__all__ = ["ParquetFile"]

#: A group of rows ends after so many rows, or characters of values.
GROUP_ROWS, GROUP_CHARACTERS = 20_000, 8 << 20


class ParquetFile:
    """
    Writes a Parquet file.

    Raises:
        UsageError: pyarrow is not installed.
    """

    wants_columns = True

    def __init__(self, settings: SinkSettings) -> None:
        require("pyarrow", "parquet", "a .parquet file")
        self.settings = settings
        self.writer: Any = None
        self.rows: list[list[Any]] = []
        self.characters = 0

    def open(self, path: Path, columns: Sequence[Column]) -> None:
        """Begin a new file at *path*."""
        import pyarrow
        import pyarrow.parquet

        self.table = Table(self.settings.members, columns)
        types: dict[Kind, Any] = {Kind.TRUTH: pyarrow.bool_(), Kind.WHOLE: pyarrow.int64(), Kind.BIG: pyarrow.int64(), Kind.NUMBER: pyarrow.float64()}
        self.schema = pyarrow.schema([(one.heading, types.get(one.kind, pyarrow.string())) for one in self.table.columns])
        self.writer = pyarrow.parquet.ParquetWriter(str(path), self.schema, compression="zstd")

    def write(self, row: ExportRow) -> None:
        """Write one row, with others of its group."""
        self.rows.append([typed(value, column) for value, column in zip(self.table.cells(row), self.table.columns, strict=True)])
        self.characters += len(row.value_json or "") + len(row.payload_json or "")
        if len(self.rows) >= GROUP_ROWS or self.characters >= GROUP_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        """Hand over the rows gathered so far."""
        import pyarrow

        columns = zip(*self.rows, strict=True)
        arrays = [pyarrow.array(cells, type=one.type) for cells, one in zip(columns, self.schema, strict=True)]
        self.writer.write_batch(pyarrow.RecordBatch.from_arrays(arrays, schema=self.schema))
        self.rows.clear()
        self.characters = 0

    def close(self) -> None:
        """Write the rest and the end of the file."""
        if self.writer is None:
            return
        writer = self.writer
        try:
            if self.rows:
                self.flush()
        finally:
            self.writer = None
            self.rows.clear()
            writer.close()
