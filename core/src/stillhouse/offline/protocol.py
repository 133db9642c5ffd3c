"""What a bulk run needs of offline batches: `OfflineBatch` has it, and any other engine may."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from stillhouse.errors import GenerationError
from stillhouse.offline.chunks import Chunk
from stillhouse.offline.provider import InputsOf
from stillhouse.offline.row_sets import Rows
from stillhouse.protocols import InputWithArguments
from stillhouse.typing import FormattedInput, GenerateOutput

__all__ = ["OfflineBatchCalls", "OfflineResults"]


class OfflineResults(Protocol):
    """The results of one job, row by row."""

    @property
    def released(self) -> Sequence[int]:
        """The rows that are free again, once all results were iterated over."""

    def __iter__(self) -> Iterator[tuple[int, GenerateOutput | GenerationError]]: ...

    def acknowledge(self) -> None:
        """Record that every result is stored: the job is not collected again."""


class OfflineBatchCalls(Protocol):
    """What a run needs of the offline batches that `LLM.open_offline_batch` returns.

    One whose `submit` takes inputs with arguments of their own has a true attribute `takes_arguments`.
    """

    @property
    def is_finished(self) -> bool:
        """Whether every job is collected."""

    def held(self) -> Rows:
        """Return the rows that are in a job, or are going to be, and are not collected."""

    def reconcile(self) -> None:
        """Determine the state of jobs that an earlier process was creating when it ended."""

    def submit(
        self,
        items: Iterable[tuple[int, FormattedInput | InputWithArguments]],
        refused: Callable[[int, GenerationError], None],
    ) -> int:
        """Create jobs for rows; call `refused` with each row that cannot be turned into a request.

        `refused` is called before the next item is pulled. Returns the number of jobs.
        """

    def poll(self) -> Sequence[Chunk]:
        """Ask the provider for the state of the jobs, and return it."""

    def collect(self, inputs_of: InputsOf | None = None) -> Iterator[OfflineResults]:
        """Yield the results of every job that has ended, and then submit again what must be retried."""

    def cancel(self) -> None:
        """Cancel the jobs that are not done; their finished results can still be collected."""
