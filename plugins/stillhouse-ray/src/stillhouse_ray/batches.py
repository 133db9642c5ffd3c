"""`batch_of`: a batch in any format of Ray Data, as rows, and with more columns in the same format."""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stillhouse import ConfigurationError, Row
from stillhouse.jobs.formats import rows_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Batch", "batch_of"]


@dataclass(frozen=True)
class _BatchRow(Row):
    """A row of a batch; its position in the dataset is unknown."""

    @property
    def place(self) -> str:
        return f"row {self.line} of the batch"


class Batch(ABC):
    """A batch in one of the formats of Ray Data.

    Attributes:
        names: the names of its columns.
        count: the number of its rows.
    """

    names: list[str]
    count: int

    @abstractmethod
    def rows(self, columns: Sequence[str]) -> list[Row]:
        """Return the rows with these columns, and Python's own values in them."""

    @abstractmethod
    def joined(self, added: pa.Table) -> Any:
        """Return the batch with more columns; the batch itself stays as it is."""


class _Arrays(Batch):
    """A dict of columns."""

    def __init__(self, batch: Mapping[Any, Any]) -> None:
        self._batch = batch
        self.names = _names(batch)
        for name, column in batch.items():
            if isinstance(column, (str, bytes)) or not hasattr(column, "__len__"):
                raise ConfigurationError(
                    f"the column {name} of the batch is of the type {type(column).__name__}",
                    hint="give an array or a list, with a value for each row",
                )
        sizes = {name: len(column) for name, column in batch.items()}
        self.count = next(iter(sizes.values()), 0)
        for name, size in sizes.items():
            if size != self.count:
                raise ConfigurationError(
                    f"the column {name} of the batch has {size:,} values, the first one {self.count:,}",
                    hint="give each column the same number of values",
                )

    def rows(self, columns: Sequence[str]) -> list[Row]:
        return _rows({name: _values(self._batch[name]) for name in columns}, self.count)

    def joined(self, added: pa.Table) -> Any:
        # Ray Data would give an array of numpy without any value the type null, in this block alone.
        columns = zip(added.column_names, added.columns, strict=True)
        return {**self._batch, **{name: column.combine_chunks() for name, column in columns}}


class _Frame(Batch):
    """A frame of pandas."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self.names = _names(batch.columns)
        self.count = len(batch)

    def rows(self, columns: Sequence[str]) -> list[Row]:
        return _rows(
            {name: _values(self._batch[name].to_numpy(dtype=object)) for name in columns}, self.count
        )

    def joined(self, added: pa.Table) -> Any:
        import pandas as pd

        # With Arrow's types, a column without any value has the same type in every batch.
        frame = added.to_pandas(types_mapper=pd.ArrowDtype)
        joined = self._batch.copy(deep=False)
        for name in frame.columns:
            joined[name] = frame[name].array
        return joined


class _Table(Batch):
    """A table of Arrow."""

    def __init__(self, batch: pa.Table) -> None:
        self._batch = batch
        self.names = _names(batch.column_names)
        self.count = batch.num_rows

    def rows(self, columns: Sequence[str]) -> list[Row]:
        if not columns:
            return _rows({}, self.count)
        found: list[Row] = []
        for part in self._batch.select(columns).to_batches():
            for row in rows_of(part, len(found)):
                found.append(_BatchRow(row.index, row.line, row.columns, row.error, row.digest, typed=True))
        return found

    def joined(self, added: pa.Table) -> Any:
        joined = self._batch
        for name, column in zip(added.column_names, added.columns, strict=True):
            joined = joined.append_column(name, column)
        return joined


def batch_of(batch: Any) -> Batch:
    """Return a batch by its format.

    Raises:
        ConfigurationError: it has none of Ray Data's formats.
    """
    forms: list[tuple[str, str, Callable[[Any], Batch]]] = [
        ("pandas", "DataFrame", _Frame),
        ("pyarrow", "Table", _Table),
    ]
    if isinstance(batch, Mapping):
        return _Arrays(batch)
    for module, name, form in forms:  # the library of a batch is imported already
        library = sys.modules.get(module)
        if library is not None and isinstance(batch, getattr(library, name)):
            return form(batch)
    raise ConfigurationError(
        f"a batch of the type {type(batch).__name__} cannot be read",
        hint="give map_batches batch_format='numpy', 'pandas' or 'pyarrow'",
    )


def _names(columns: Iterable[Any]) -> list[str]:
    """Return the names of columns.

    Raises:
        ConfigurationError: one is not a text, or two columns have it.
    """
    names = [*columns]
    for name, count in Counter(names).items():
        if not isinstance(name, str):
            raise ConfigurationError(
                f"the batch has a column whose name is {name!r}, of the type {type(name).__name__}",
                hint="rename it: names of columns are texts",
            )
        if count > 1:
            raise ConfigurationError(
                f"the batch has {count} columns with the name {name}", hint="rename one of them"
            )
    return names


def _rows(columns: Mapping[str, list[Any]], count: int) -> list[Row]:
    return [
        _BatchRow(index, index + 1, {name: column[index] for name, column in columns.items()}, typed=True)
        for index in range(count)
    ]


def _values(column: Any) -> list[Any]:
    """Return the values of a column as Python's own."""
    return [_plain(value) for value in _listed(column)]


def _plain(value: Any) -> Any:
    """Return a value as Python's own; what numpy and pandas have for a missing one is `None`."""
    kind = type(value)
    if kind in (str, int, bool, bytes) or value is None:
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if kind.__name__ in ("NAType", "NaTType"):
        return None
    if hasattr(value, "tolist"):  # an array or a number of numpy
        return _plain(_listed(value))
    return value


def _listed(column: Any) -> Any:
    """Return an array as a list, and a number of numpy as one of Python."""
    if getattr(getattr(column, "dtype", None), "kind", "") in ("M", "m"):
        # `tolist` returns nanoseconds as integers.
        column = column.astype(f"{column.dtype.name.partition('[')[0]}[us]")
    return column.tolist() if hasattr(column, "tolist") else column
