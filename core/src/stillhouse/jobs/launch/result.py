"""`Run`: what a run gave, for Python: its counts, its failures, and the rows of its output."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from stillhouse._wording import number_of
from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.opening import open_output, output_path
from stillhouse.jobs.reporting.report import report_run
from stillhouse.jobs.runs.command import Command
from stillhouse.jobs.runs.reasons import Failure
from stillhouse.jobs.runs.summary import Summary, explained
from stillhouse.jobs.store.database import reading
from stillhouse.jobs.store.found import state_of
from stillhouse.protocols import HookCalls

__all__ = ["Counts", "Run", "TemporaryFolder", "TokenCounts"]

# Failures of different messages that are listed.
MAX_FAILURES = 100


class Counts(NamedTuple):
    """How many rows a run has finished, those of earlier calls included.

    Attributes:
        rows: all of them.
        done: rows with generations.
        failed: rows without, by the kind of their error.
    """

    rows: int
    done: int
    failed: Mapping[str, int]


class TokenCounts(NamedTuple):
    """What the rows of a run took, as far as the backend reported it, failed rows included.

    Attributes:
        input: tokens of the inputs.
        output: tokens of the generations.
        cached: of the input, what was read from the provider's cache.
        written: of the input, what was written to it.
    """

    input: int | None
    output: int | None
    cached: int | None
    written: int | None


class TemporaryFolder:
    """The folder of a run without an output; it goes with this object.

    Attributes:
        path: where it is.
        remove: removes it now.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="stillhouse-"))
        self.remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


class Run:
    """A run that was worked on. Iterating yields the rows of its output, each a dict of its columns.

    The rows are read from the output as they are asked for: they are not held in memory.

    Attributes:
        outcome: `complete`, or `waiting` where an offline batch is not done: call again to collect it.
        output: the path of the output. Without one of yours it is temporary, and goes with this object.
    """

    def __init__(
        self,
        outcome: Literal["complete", "waiting"],
        command: Command,
        summary: Summary,
        hooks: HookCalls,
        folder: TemporaryFolder | None = None,
    ) -> None:
        self.outcome = outcome
        target = command.output
        self.output = output_path(target, hooks)
        self._state = state_of(self.output, command.state).absolute()
        self._format = command.writing.format
        self._target, self._summary, self._hooks, self._folder = target, summary, hooks, folder
        # Whoever has the result may go to another folder.
        self._place = self.output.absolute()
        self._source = str(self._place) if hooks.output_path(target) is None else target

    @property
    def counts(self) -> Counts:
        """How many rows are finished, done and failed."""
        return Counts(self._summary.rows, self._summary.done, self._summary.failed)

    @property
    def tokens(self) -> TokenCounts:
        """The tokens that all rows took."""
        summary = self._summary
        return TokenCounts(
            summary.input_tokens, summary.output_tokens, summary.cached_tokens, summary.written_tokens
        )

    @property
    def cost(self) -> float | None:
        """What all rows cost, in USD; `None` where the prices are not known."""
        return self._summary.cost

    @property
    def failures(self) -> list[Failure]:
        """Why rows failed, the commonest reason first.

        Messages that differ in numbers, or in what stands in quotes, are the same.

        Raises:
            StoreError: the state of the run cannot be read any more.
        """
        with reading(self._state) as connection:
            reasons = explained(self._summary, connection).reasons
        return [] if reasons is None else reasons.failures.most_common(MAX_FAILURES)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self.outcome != "complete":
            raise ConfigurationError(
                "the run is not complete: an offline batch is not done",
                hint="make the same call again to collect it",
            )
        with contextlib.closing(open_output(self._source, self._hooks, self._format)) as reader:
            for row in reader:
                if row.error is not None:  # somebody else has written to it
                    raise ConfigurationError(f"{self.output} has changed: {row.error}")
                yield row.columns

    def __len__(self) -> int:
        return self._summary.rows

    def __repr__(self) -> str:
        rows, done, failed = self.counts
        return (
            f"<Run of {str(self.output)!r}: {self.outcome}, {number_of(rows, 'row')}, {done:,} done, "
            f"{sum(failed.values()):,} failed>"
        )

    def report(self, page: str | Path | None = None) -> Path:
        """Write a page about the run, as `stillhouse report` does, and return its path.

        Args:
            page: where to; beside the output, as `OUTPUT.report.html`, if not said.

        Raises:
            ConfigurationError: the page cannot be written, or something else has that name.
        """
        if page is None and self._folder is not None:
            raise ConfigurationError(
                "the output of this run is temporary, and so would be a page beside it",
                hint="give the path of the page: run.report('report.html')",
            )
        return report_run(self._target, self._hooks, None if page is None else Path(page), self._state)
