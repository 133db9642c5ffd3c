"""`RunStore`: the interface of a store for a run, which knows neither files nor databases."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from stillhouse.errors import GenerationError
from stillhouse.jobs.store.database import StoreError
from stillhouse.typing import GenerateOutput

if TYPE_CHECKING:
    from stillhouse.jobs.formats.rows import Row
    from stillhouse.jobs.store.members import MemberCache

__all__ = ["Part", "Repeated", "RunStore"]


class Part(NamedTuple):
    """Rows that need the same number of generations.

    Attributes:
        made: number of generations that they have already.
        wants: whether the row with an index is one of them.
    """

    made: int
    wants: Callable[[int], bool]


class Repeated(NamedTuple):
    """The result of a row with the same request as an earlier row.

    Attributes:
        columns: the columns that are added to the output.
        kind: the kind of the error; `None` if there is no error.
        is_new: whether the row did not have this result before.
    """

    columns: dict[str, Any]
    kind: str | None
    is_new: bool


class RunStore(Protocol):
    """Stores the result of every row.

    Attributes:
        ordered: whether rows must come in the order of the input. A store that can sort rows itself accepts
            them as soon as they are finished.
        problem: why the store will soon accept no more rows: no further row may be started, but the results
            of those in flight are still stored. `None` if there is no problem.
        members: the cache of the outputs of a composite LLM's members; `None` for any other LLM, and for a
            store that keeps nothing.
    """

    ordered: bool
    problem: StoreError | None
    members: MemberCache | None

    def parts(self) -> list[Part]:
        """Return the rows that are not finished."""

    def put(self, row: Row, result: GenerateOutput | GenerationError, seconds: float | None) -> None:
        """Store the result of a row.

        Args:
            row: the row.
            result: its output, or its error.
            seconds: the duration of the call: 0 without a call, `None` for a batch.
        """

    def commit(self) -> None:
        """Make everything that was stored durable."""
