"""Inputs that are no files: saved in one, for a run reads its input several times.

Standard input is one, and so is what `stillhouse.run` takes beside a path: rows of Python, and tables of the
Arrow stream protocol, as pandas, polars, pyarrow and duckdb have them.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.jsonl import JsonlReader
from stillhouse.jobs.formats.opening import open_file
from stillhouse.jobs.formats.parquet import ParquetReader, pyarrow_parquet
from stillhouse.jobs.formats.reading import Reading
from stillhouse.jobs.formats.writers import to_json
from stillhouse.protocols import RowReader

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Spool", "StdinSpool", "spool_of"]

# Rows of a table that are saved together.
GROUP_ROWS = 4096


class Spool(Protocol):
    """An input that is saved in a file.

    Attributes:
        has_types: whether its columns have types, which an output with types keeps.
    """

    has_types: bool

    def save(self, folder: Path) -> Path:
        """Save the rows in a file in this folder, and return its path; once.

        Raises:
            ConfigurationError: it holds something that is no row.
        """

    def open(self, path: Path) -> RowReader:
        """Open what was saved."""


class StdinSpool:
    """Standard input: JSONL, a JSON array, or one of these compressed.

    Args:
        reading: how it is read, as far as it is said.
    """

    has_types = False

    def __init__(self, reading: Reading | None = None) -> None:
        self._reading = reading

    def save(self, folder: Path) -> Path:
        path = folder / "rows.jsonl"
        with path.open("xb") as stream:
            shutil.copyfileobj(sys.stdin.buffer, stream, 1 << 20)
        return path

    def open(self, path: Path) -> RowReader:
        return open_file(str(path), self._reading, "standard input")


def spool_of(rows: Any) -> Spool:
    """Return the spool of an input that is neither a path nor the name of a source.

    Args:
        rows: a table with the Arrow stream protocol, a `datasets.Dataset`, or an iterable of rows. A row is a
            mapping, a text (its column is `prompt`), or a list of messages (its column is `messages`).

    Raises:
        ConfigurationError: it is none of these.
    """
    if hasattr(rows, "__arrow_c_stream__"):
        return _TableSpool(rows)
    if hasattr(rows, "with_format") and hasattr(rows, "features"):
        return _TableSpool(rows, is_dataset=True)
    is_frame = hasattr(rows, "columns") and hasattr(rows, "to_dict")
    if is_frame or isinstance(rows, (bytes, bytearray, Mapping)) or not isinstance(rows, Iterable):
        raise ConfigurationError(
            f"an input of the type {type(rows).__name__} has no rows that can be read",
            hint="give a path, a list or a generator of dicts, or a table with the Arrow stream protocol: "
            "pandas from 2.2, polars, pyarrow, duckdb",
        )
    return _RowSpool(rows)


class _RowSpool:
    """Rows of Python, each read once."""

    has_types = False

    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows = rows

    def save(self, folder: Path) -> Path:
        path = folder / "rows.jsonl"
        with path.open("xb") as stream:
            for number, row in enumerate(self._rows, 1):
                stream.write(to_json(_columns(row, number)).encode() + b"\n")
        return path

    def open(self, path: Path) -> RowReader:
        return JsonlReader(str(path))


def _columns(row: Any, number: int) -> dict[Any, Any]:
    if isinstance(row, Mapping):
        return dict(row)
    if isinstance(row, str):
        return {"prompt": row}
    if isinstance(row, (list, tuple)) and all(isinstance(message, Mapping) for message in row):
        return {"messages": list(row)}
    raise ConfigurationError(
        f"row {number:,} of the input is of the type {type(row).__name__}",
        hint="give each row as a dict of its columns, a text, or a list of messages",
    )


class _TableSpool:
    """A table of typed columns, saved as Parquet."""

    has_types = True

    def __init__(self, table: Any, *, is_dataset: bool = False) -> None:
        self._table, self._is_dataset = table, is_dataset

    def save(self, folder: Path) -> Path:
        parquet = pyarrow_parquet()
        path = folder / "rows.parquet"
        try:
            batches = _batches_of_dataset(self._table) if self._is_dataset else _batches(self._table)
            with parquet.ParquetWriter(path, next(batches)) as writer:
                for batch in batches:
                    writer.write(batch, row_group_size=GROUP_ROWS)
        except OSError:
            raise
        except Exception as error:  # whatever the library that has the table raises
            raise ConfigurationError(
                f"the {type(self._table).__name__} cannot be read as a table: {error}",
                hint="give a table whose columns Parquet can hold, or its rows as dicts",
            ) from None
        return path

    def open(self, path: Path) -> RowReader:
        return _SavedTable(str(path))


def _batches(table: Any) -> Iterator[Any]:
    """Yield the schema, then the rows in parts."""
    import pyarrow as pa

    reader = pa.RecordBatchReader.from_stream(table)
    yield reader.schema
    for batch in reader:
        yield pa.table(batch)


def _batches_of_dataset(dataset: Any) -> Iterator[Any]:
    """Yield the same of a `datasets.Dataset`, or an iterable one."""
    parts: Iterator[pa.Table] = dataset.with_format("arrow").iter(batch_size=GROUP_ROWS)
    first = next(parts, None)
    if first is None:
        yield dataset.features.arrow_schema
        return
    yield first.schema
    yield first
    yield from parts


class _SavedTable(ParquetReader):
    """A saved table; its digest is that of its rows, for other versions of the library save other bytes."""

    def digest(self) -> str:
        digest = blake2b(digest_size=32)
        for row in self:
            digest.update(row.digest.to_bytes(8, signed=True))
        return digest.hexdigest()
