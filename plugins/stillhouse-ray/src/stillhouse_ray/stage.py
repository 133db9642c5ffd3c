"""`GenerateStage`: a stage of Ray Data that generates for the rows of a batch."""

from __future__ import annotations

import contextlib
import math
import sys
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse import LLM, ConfigurationError, OutputColumns, Row, RowGenerator, StillhouseError
from stillhouse.jobs.formats import RowSpool, rows_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["GenerateStage"]


class GenerateStage:
    """Generates for each row of a batch: a callable class for `Dataset.map_batches` of Ray Data.

    Each actor creates one and loads the LLM once; the LLM is unloaded with the actor. A batch has the format
    that `map_batches` is given (`numpy`, `pandas` or `pyarrow`), and is returned in it, with the same rows in
    the same order and the columns that `stillhouse generate` adds: `generations`, `statistics`,
    `finish_reasons`, `model_name` and `error`. A failed row has its error there and does not end the job.

    Args:
        llm: `NAME`, `NAME:MODEL`, an alias, or an LLM that is not loaded. Keys come from the environment of
            the actors or from a field of the LLM; Ray shows other arguments in its logs.
        options: those of `stillhouse.RowGenerator`: where the prompt is (`prompt_column`, `messages_column`,
            `template`, `system`), `num_generations`, and generation parameters, such as `temperature`. With
            `executor='processes'` and `workers=1`, the LLM has a process of its own, and a row that ends it
            fails alone.

    Raises:
        ConfigurationError: an option has a wrong value, or the LLM cannot be loaded with its fields.
        UnknownLLMError, PluginError: the LLM is not installed where the actor runs, or unusable.
        GenerationError: the LLM cannot be loaded.
    """

    def __init__(self, llm: str | LLM, **options: Any) -> None:
        if str(options.get("executor")).partition(":")[0] == "ray":
            raise ConfigurationError(
                "a stage of Ray Data runs in actors already, and cannot start others",
                hint="leave out executor, and give map_batches the number of actors: "
                "compute=ray.data.ActorPoolStrategy(size=4)",
            )
        self._rows = RowGenerator(llm, **options)
        with contextlib.ExitStack() as resources:
            resources.enter_context(self._rows)
            self._release = weakref.finalize(self, resources.pop_all().close)

    def __repr__(self) -> str:
        llm = self._rows.llm
        return f"<{type(self).__name__} {type(llm).__name__} {llm.model_name}>"

    def __call__(self, batch: Any) -> Any:
        """Return the batch with the added columns.

        Args:
            batch: a dict of columns (arrays of numpy or lists), a `pandas.DataFrame` or a `pyarrow.Table`.

        Raises:
            ConfigurationError: the batch is none of these; it has no column with the prompt; or it has a
                column with the name of one that is added.
            GenerationError: an error that every further row would cause, such as a refused key.
        """
        given = _form_of(batch)
        self._rows.check(given.names)
        rows = given.rows(self._rows.columns_read(given.names))
        added = self._rows.generate(rows)
        if len(added) != given.count:
            raise StillhouseError(
                f"the batch has {given.count:,} rows, and its result has {len(added):,}",
                hint="report it to the authors of stillhouse-ray",
            )
        return given.joined(added, self._rows.columns)


@dataclass(frozen=True)
class _BatchRow(Row):
    """A row of a batch; its position in the dataset is unknown."""

    @property
    def place(self) -> str:
        return f"row {self.line} of the batch"


class _Batch(ABC):
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
    def joined(self, added: list[dict[str, Any]], columns: OutputColumns) -> Any:
        """Return the batch with the added columns of each row."""


class _Arrays(_Batch):
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

    def joined(self, added: list[dict[str, Any]], columns: OutputColumns) -> Any:
        import numpy as np

        joined = dict(self._batch)
        for name in columns.names:
            # Lists of one length would become an array of two dimensions.
            column = np.empty(self.count, dtype=object)
            for place, record in enumerate(added):
                column[place] = record.get(name)
            joined[name] = column
        return joined


class _Frame(_Batch):
    """A frame of pandas."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self.names = _names(batch.columns)
        self.count = len(batch)

    def rows(self, columns: Sequence[str]) -> list[Row]:
        return _rows(
            {name: _values(self._batch[name].to_numpy(dtype=object)) for name in columns}, self.count
        )

    def joined(self, added: list[dict[str, Any]], columns: OutputColumns) -> Any:
        import pandas as pd

        # With Arrow's types, a column without any value has the same type in every batch.
        frame = _table(added, columns).to_pandas(types_mapper=pd.ArrowDtype)
        joined = self._batch.copy(deep=False)
        for name in frame.columns:
            joined[name] = frame[name].array
        return joined


class _Table(_Batch):
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

    def joined(self, added: list[dict[str, Any]], columns: OutputColumns) -> Any:
        joined, table = self._batch, _table(added, columns)
        for name, column in zip(table.column_names, table.columns, strict=True):
            joined = joined.append_column(name, column)
        return joined


def _form_of(batch: Any) -> _Batch:
    """Return a batch by its format.

    Raises:
        ConfigurationError: it has none of Ray Data's formats.
    """
    forms: list[tuple[str, str, Callable[[Any], _Batch]]] = [
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


def _table(added: list[dict[str, Any]], columns: OutputColumns) -> pa.Table:
    """Return the added columns of rows as a table, with the types that an output has."""
    import pyarrow as pa

    with contextlib.closing(RowSpool(Path(tempfile.gettempdir()), columns=columns)) as spool:
        for record in added:
            spool.add(record)
        schema = spool.finish()
        tables = [*spool.batches(schema)]
    return pa.concat_tables(tables) if tables else schema.empty_table()
