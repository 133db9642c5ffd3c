"""`StreamStore`: rows written as they come, and nothing kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stillhouse.errors import GenerationError
from stillhouse.jobs.formats.rows import Row
from stillhouse.jobs.store.columns import columns_of
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
        on_row: called with the index of each row and the columns that the output gets for it.
    """

    ordered = True
    problem: StoreError | None = None
    members: MemberCache | None = None

    def __init__(
        self,
        writer: RowWriter,
        model_name: str,
        on_row: Callable[[int, dict[str, Any]], Any] = lambda *_: None,
    ) -> None:
        self._writer = writer
        self._on_row = on_row
        self._model_name = model_name

    def parts(self) -> list[Part]:
        return [Part(0, lambda _: True)]

    def put(self, row: Row, result: GenerateOutput | GenerationError, seconds: float | None) -> None:
        if isinstance(result, GenerationError):
            columns = columns_of(result.outputs[0] if result.outputs else None, result, self._model_name)
        else:
            columns = columns_of(result, None, self._model_name)
        self._writer.write({**row.columns, **columns})
        self._on_row(row.index, columns)

    def commit(self) -> None:
        pass
