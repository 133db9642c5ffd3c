"""`AddedColumns`: the columns that a stage adds to its batches, with the same types each time."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse import OutputColumns
from stillhouse.jobs.formats import RowSpool

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["AddedColumns"]


class AddedColumns:
    """Makes tables of the added columns of rows.

    A column whose type is not known before the first row is JSON text: the values of one batch would give it
    another type than those of the next. Columns that only an answer brings have the types of their values.

    Args:
        columns: the added columns.

    Attributes:
        given: the columns that every row has, as far as they are known.
    """

    def __init__(self, columns: OutputColumns) -> None:
        self._columns = columns
        self.given: Sequence[str] = columns.given
        self._known = tuple(columns.names)

    @property
    def names(self) -> Collection[str]:
        """The names of the columns, in order."""
        return self._columns.names

    def types(self) -> dict[str, pa.DataType]:
        """Return the types that are known before any row."""
        import pyarrow as pa

        return {**self._columns.types(), **dict.fromkeys(self._texts, pa.string())}

    def table(self, records: list[dict[str, Any]]) -> pa.Table:
        """Return the added columns of rows as a table.

        Args:
            records: the columns of each row, in their order.
        """
        import pyarrow as pa

        with contextlib.closing(RowSpool(Path(tempfile.gettempdir()), columns=self)) as spool:
            for record in records:
                spool.add({name: self._value(name, value) for name, value in record.items()})
            schema = spool.finish()
            tables = [*spool.batches(schema)]
        return pa.concat_tables(tables) if tables else schema.empty_table()

    @cached_property
    def _texts(self) -> frozenset[str]:
        """The columns that are JSON text."""
        types = self._columns.types()
        return frozenset(name for name in self._known if not _is_whole(types.get(name)))

    def _value(self, name: str, value: Any) -> Any:
        if value is None or name not in self._texts:
            return value
        return json.dumps(value, ensure_ascii=False)


def _is_whole(type: pa.DataType | None) -> bool:
    """Whether a type leaves nothing open."""
    import pyarrow as pa

    if type is None or pa.types.is_null(type):
        return False
    if pa.types.is_struct(type):
        return all(_is_whole(field.type) for field in type)
    return not pa.types.is_list(type) or _is_whole(type.value_type)
