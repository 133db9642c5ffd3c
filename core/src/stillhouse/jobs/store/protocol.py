"""`RunStore`: what a run needs of a store. It is the run's one seam: it knows no file and no database."""

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
        made: how many generations they have already.
        wants: whether a row, by its index, is one of them.
    """

    made: int
    wants: Callable[[int], bool]


class Repeated(NamedTuple):
    """The result of a row that asks for what an earlier one asks for.

    Attributes:
        columns: the columns that the output gets.
        kind: of the error; `None` if there is none.
        is_new: whether the row did not have this result before.
    """

    columns: dict[str, Any]
    kind: str | None
    is_new: bool


class RunStore(Protocol):
    """Stores the result of every row.

    Attributes:
        ordered: whether rows must come in the order of the input. A store that can put them in
            order itself takes them as they are finished.
        problem: why it will soon store no more rows: no further row may be started, and the results of
            those in flight are still stored. `None` while there is no reason.
        members: the cache of what the members of a composite LLM give; `None` for another LLM, and
            where nothing is kept.
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
            seconds: how long the call took: 0 where there was none, `None` for a batch.
        """

    def commit(self) -> None:
        """Make everything that was stored durable."""
