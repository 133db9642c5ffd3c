"""`followed`: the file of metrics of a run, from before the run is opened until its work has ended."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import importlib_metadata

from stillhouse.jobs.formats.opening import output_path
from stillhouse.jobs.reporting.metrics import MetricsFile, Outcome, RunLabels
from stillhouse.jobs.reporting.progress import Extent
from stillhouse.jobs.runs.announcing import name_of
from stillhouse.jobs.runs.command import Command
from stillhouse.jobs.runs.statistics import RunStatistics
from stillhouse.jobs.sources.names import shown
from stillhouse.jobs.store.database import store_path
from stillhouse.llm import LLM

__all__ = ["Follower", "followed"]


class Follower:
    """Writes the metrics of a run, if a file is given for them.

    Attributes:
        outcome: how the work ended, as far as it is known.
        copied: returns when the state was last copied, in seconds since 1970; `None` without a copy.
    """

    def __init__(self, file: MetricsFile | None, labels: RunLabels | None) -> None:
        self._file, self._labels = file, labels
        self.outcome: Outcome = "stopped"
        self.copied: Callable[[], float | None] = lambda: None

    def working(self, statistics: RunStatistics, extent: Extent) -> AbstractContextManager[None]:
        """Write the metrics while the run works; arguments as `View.working`."""
        if self._file is None or self._labels is None:
            return contextlib.nullcontext()
        return self._file.following(statistics, extent, self._labels, self.copied)


@contextlib.contextmanager
def followed(llm: LLM, command: Command) -> Iterator[Follower]:
    """Check the file of metrics, and at the end write how the work ended.

    Raises:
        ConfigurationError: the file cannot be written, or is one of something else.
    """
    if command.metrics is None:
        yield Follower(None, None)
        return
    others: list[Path] = []
    if command.output != "-":
        output = output_path(command.output, llm.registry.hooks())
        others = [output, command.state or store_path(output)]
    file = MetricsFile(command.metrics, tuple(others))
    version = importlib_metadata.version("stillhouse")
    follower = Follower(file, RunLabels(shown(command.output), name_of(llm), llm.model_name, version))
    try:
        yield follower
    except KeyboardInterrupt:
        follower.outcome = "interrupted"
        raise
    finally:
        file.finish(follower.outcome)
