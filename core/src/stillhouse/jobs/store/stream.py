"""`StreamStore`: rows written as they come, and nothing kept."""

from __future__ import annotations

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
    """

    ordered = True
    problem: StoreError | None = None
    members: MemberCache | None = None

    def __init__(self, writer: RowWriter, model_name: str) -> None:
        self._writer = writer
        self._model_name = model_name

    def parts(self) -> list[Part]:
        return [Part(0, lambda _: True)]

    def put(self, row: Row, result: GenerateOutput | GenerationError, seconds: float | None) -> None:
        if isinstance(result, GenerationError):
            columns = columns_of(result.outputs[0] if result.outputs else None, result, self._model_name)
        else:
            columns = columns_of(result, None, self._model_name)
        self._writer.write({**row.columns, **columns})

    def commit(self) -> None:
        pass
