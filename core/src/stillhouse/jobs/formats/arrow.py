"""Rows of Arrow tables: read, and spooled until the types of all rows are known."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stillhouse.jobs.formats.arrow_types import (
    can_convert,
    convert,
    count_fields,
    depth_of,
    has_empty_struct,
    infer,
    spread,
    unify,
)
from stillhouse.jobs.formats.columns import ResultColumns
from stillhouse.jobs.formats.narrow import Narrowed
from stillhouse.jobs.formats.rows import Row, digest_of, invalid_row
from stillhouse.jobs.formats.writers import to_json
from stillhouse.protocols import OutputColumns

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RowSpool", "readable", "rows_of"]

CHUNK_ROWS = 1000
CHUNK_BYTES = 4 << 20
# A struct with more fields than this is a dictionary whose keys are data.
MAX_FIELDS = 256
# Deeper types can neither be spooled nor written.
MAX_DEPTH = 40

_logger = logging.getLogger("stillhouse.jobs")


def rows_of(batch: pa.RecordBatch, start: int) -> Iterator[Row]:
    """Yield the rows of a batch whose first row has the index `start`.

    Values are Python's: `datetime`, `Decimal`, `bytes`, lists and dicts; a map is a list of pairs.
    Python has no nanoseconds: a timestamp of that unit becomes text, and so does one after the year 9999. A
    row with another value that Python cannot hold fails alone.
    """
    names: list[str] = batch.schema.names
    problems: dict[int, str] = {}
    values = []
    for name, column in zip(names, batch.columns, strict=True):
        found, wrong = _values(column)
        values.append(found)
        problems.update({offset: f"the column {name} cannot be used: {wrong[offset]}" for offset in wrong})
    for offset in range(batch.num_rows):
        index = start + offset
        columns = {name: column[offset] for name, column in zip(names, values, strict=True)}
        digest = digest_of(to_json(columns).encode())
        if offset in problems:
            yield Row(index, index + 1, {}, invalid_row(f"row {index + 1}", problems[offset]), digest)
        else:
            yield Row(index, index + 1, columns, digest=digest, typed=True)


def _values(column: pa.Array) -> tuple[list[Any], dict[int, str]]:
    """Return the values, and the problems of those that cannot be used, by their offset."""
    wanted = readable(column.type)
    try:
        return (column if wanted == column.type else column.cast(wanted)).to_pylist(), {}
    except Exception:  # one value is enough, and it can be wrong in many ways
        found: list[Any] = []
        wrong: dict[int, str] = {}
        for offset in range(len(column)):
            try:
                found.append(column.slice(offset, 1).cast(wanted)[0].as_py())
            except Exception as error:
                try:
                    found.append(column.slice(offset, 1).cast(_texts_for_times(wanted))[0].as_py())
                except Exception:
                    found.append(None)
                    wrong[offset] = str(error)
        return found, wrong


def readable(type: pa.DataType) -> pa.DataType:
    """Return the type that represents the same values with Python's own types."""
    import pyarrow as pa

    if isinstance(type, pa.BaseExtensionType):
        return readable(type.storage_type)
    if pa.types.is_dictionary(type):
        return readable(type.value_type)
    if pa.types.is_temporal(type) and getattr(type, "unit", None) == "ns":
        return pa.duration("us") if pa.types.is_duration(type) else pa.string()
    return _mapped(type, readable)


def _texts_for_times(type: pa.DataType) -> pa.DataType:
    """Return the type with texts for dates and times, of which Python has none after the year 9999."""
    import pyarrow as pa

    if pa.types.is_temporal(type):
        return pa.int64() if pa.types.is_duration(type) else pa.string()
    return _mapped(type, _texts_for_times)


def _mapped(type: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """Apply a function to the types that a nested type is made of; return any other type unchanged."""
    import pyarrow as pa

    if pa.types.is_struct(type):
        return pa.struct([field.with_type(change(field.type)) for field in type])
    if pa.types.is_map(type):
        return pa.map_(change(type.key_type), change(type.item_type))
    if pa.types.is_fixed_size_list(type):
        return pa.list_(change(type.value_type), type.list_size)
    if pa.types.is_large_list(type):
        return pa.large_list(change(type.value_type))
    if pa.types.is_list(type):
        return pa.list_(change(type.value_type))
    return type


class _Chunk(NamedTuple):
    offset: int
    size: int


class RowSpool:
    """Collects rows whose types may vary, and returns tables that all have one schema.

    Rows are kept in a temporary file, in chunks that have the types of their own values; so memory
    is bounded by a chunk. The types are unified: integers with floats, anything with null,
    structs by their fields. A column whose types have nothing in common becomes JSON text, which
    is logged.

    Args:
        folder: where the temporary file is; it has no name, and the system removes it with the process.
        schema: the types of the input's columns, which they keep; `None` if it has none.
        columns: the columns that the output adds; those of an output without options if not said.
    """

    def __init__(
        self, folder: Path, schema: pa.Schema | None = None, columns: OutputColumns | None = None
    ) -> None:
        import pyarrow as pa

        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._columns = ResultColumns() if columns is None else columns
        results = self._columns.types()
        self._declared: dict[str, pa.DataType] = {
            field.name: field.type for field in schema or () if field.name not in results
        }
        given = dict.fromkeys(self._columns.given, pa.null())
        self._types = {**given, **self._declared, **results}
        self._narrowed = Narrowed([*given, *self._declared], self._columns)
        self._texts: set[str] = set()
        self._chunks: list[_Chunk] = []
        self._records: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, record: dict[str, Any]) -> None:
        """Add a row."""
        record = self._narrowed(record)
        self._records.append(record)
        self._bytes += _size(record)
        if len(self._records) >= CHUNK_ROWS or self._bytes >= CHUNK_BYTES:
            self._flush()

    def finish(self) -> pa.Schema:
        """Return the schema of all rows, after the last one was added.

        The columns of the input come first, then those that the output adds.
        """
        import pyarrow as pa

        self._flush()
        for name, type in self._types.items():
            if has_empty_struct(type):  # no file can hold an object without fields
                self._to_text(name)
        for chunk in self._chunks:
            table = self._read(chunk)
            for name, column in zip(table.schema.names, table.columns, strict=True):
                if name not in self._texts and not can_convert(column, self._types[name]):
                    self._to_text(name)
        added = [name for name in self._columns.names if name in self._types]
        names = dict.fromkeys([*(name for name in self._types if name not in self._columns.names), *added])
        return pa.schema([(name, self._types[name]) for name in names])

    def batches(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """Yield all rows in order, in small tables.

        Args:
            schema: what `finish` returned.
        """
        import pyarrow as pa

        for chunk in self._chunks:
            table = self._read(chunk)
            # A column that is text in its chunk is JSON already.
            spooled = {field.name for field in table.schema if field.metadata}
            found = dict(zip(table.schema.names, table.columns, strict=True))
            columns = []
            for field in schema:
                column = found.get(field.name)
                if column is None:
                    columns.append(pa.nulls(table.num_rows, field.type))
                elif field.name in self._texts and field.name not in spooled:
                    columns.append(pa.array(_json_texts(column.to_pylist()), pa.string()))
                else:
                    columns.append(convert(column, field.type))
            yield pa.Table.from_arrays(columns, schema=schema)

    def close(self) -> None:
        """Remove the temporary file."""
        self._file.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._records:
            return
        # Only the values that a row has: of many columns, each row may have a few.
        found: dict[str, tuple[list[int], list[Any]]] = {}
        for place, record in enumerate(self._records):
            for name, value in record.items():
                places, values = found.setdefault(name, ([], []))
                places.append(place)
                values.append(value)
        fields, columns = [], []
        for name, (places, values) in found.items():
            column = spread(self._column(name, values), places, len(self._records))
            metadata = {"stillhouse": "json"} if name in self._texts else None
            fields.append(pa.field(name, column.type, metadata=metadata))
            columns.append(column)
        self._records.clear()
        self._bytes = 0
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, pa.schema(fields)) as stream:
            stream.write_batch(pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields)))
        content = sink.getvalue()
        self._chunks.append(_Chunk(self._file.tell(), content.size))
        self._file.write(content)

    def _column(self, name: str, values: list[Any]) -> pa.Array:
        import pyarrow as pa

        if name not in self._texts:
            column = infer(values, self._declared.get(name))
            known = self._types.get(name)
            if column is not None and column.type == known and not column.type.num_fields:
                return column
            known = known or (column and column.type)
            common = None if column is None else unify(known, column.type)
            if common is not None and count_fields(common) <= MAX_FIELDS and depth_of(common) <= MAX_DEPTH:
                self._types[name] = common
                return column
            self._to_text(name)
        return pa.array(_json_texts(values), pa.string())

    def _to_text(self, name: str) -> None:
        import pyarrow as pa

        _logger.warning(
            "the column %s has no type that fits all its values: it is written as JSON text", name
        )
        self._texts.add(name)
        self._types[name] = pa.string()

    def _read(self, chunk: _Chunk) -> pa.Table:
        import pyarrow as pa

        self._file.seek(chunk.offset)
        return pa.ipc.open_stream(self._file.read(chunk.size)).read_all()


def _json_texts(values: Iterable[Any]) -> list[str | None]:
    return [None if value is None else to_json(value) for value in values]


def _size(value: Any) -> int:
    """Estimate the bytes of a value."""
    if isinstance(value, (str, bytes)):
        return len(value) + 8
    if isinstance(value, dict):
        return sum(map(_size, value.values())) + 8 * len(value)
    if isinstance(value, list):
        return sum(map(_size, value))
    return 8
