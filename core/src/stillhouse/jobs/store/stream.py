"""`StreamStore`: writes rows as they come, and keeps nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stillhouse.errors import GenerationError, StillhouseError
from stillhouse.jobs.formats.columns import ResultColumns
from stillhouse.jobs.formats.rows import Row
from stillhouse.jobs.store.columns import columns_of, unstorable, usable
from stillhouse.jobs.store.database import StoreError
from stillhouse.jobs.store.members import MemberCache
from stillhouse.jobs.store.protocol import Part
from stillhouse.protocols import RowWriter
from stillhouse.typing import GenerateOutput

__all__ = ["StreamStore"]


class StreamStore:
    """Writes rows as they come, in their order, and keeps nothing: for standard output.

    Args:
        writer: where to.
        model_name: the model's name, for every row.
        output: the columns that the output adds.
        on_row: called with the index of each row and the columns that the output gets for it.
    """

    ordered = True
    problem: StoreError | None = None
    members: MemberCache | None = None

    def __init__(
        self,
        writer: RowWriter,
        model_name: str,
        output: ResultColumns | None = None,
        on_row: Callable[[int, dict[str, Any]], Any] = lambda *_: None,
    ) -> None:
        self._writer = writer
        self._on_row = on_row
        self._model_name = model_name
        self._output = ResultColumns() if output is None else output

    def parts(self) -> list[Part]:
        return [Part(0, lambda _: True)]

    def put(self, row: Row, result: GenerateOutput | GenerationError, seconds: float | None) -> None:
        error = result if isinstance(result, GenerationError) else None
        try:
            output = result if not isinstance(result, GenerationError) else next(usable(result.outputs), None)
            columns = columns_of(output, error, self._model_name)
            self._writer.write(self._output.record(row, columns))
        except (OSError, StillhouseError):
            raise
        except Exception as problem:  # one row, whatever is in it, ends no run
            columns = columns_of(None, unstorable(problem), self._model_name)
            self._writer.write(self._output.record(row, columns))
        self._on_row(row.index, columns)

    def commit(self) -> None:
        pass
