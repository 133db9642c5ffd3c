"""`announced`: notifies hooks that a run starts, and how the work on it ended."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from stillhouse.errors import StillhouseError
from stillhouse.jobs.runs.online import RunStatistics
from stillhouse.jobs.runs.reach import number_of_rows
from stillhouse.jobs.store.database import Outcome
from stillhouse.llm import LLM
from stillhouse.protocols import RowReader, RunInfo, RunSummary

__all__ = ["announced", "name_of", "number_of_rows", "run_info"]


def run_info(llm: LLM, source: str, output: str, reader: RowReader, *, resumed: bool = False) -> RunInfo:
    """Describe a run for hooks.

    Args:
        llm: the LLM.
        source: the input, as the user gave it.
        output: the output, as the user gave it.
        reader: reads the rows of the run.
        resumed: whether an earlier process worked on it.
    """
    return RunInfo(source, output, name_of(llm), llm.model_name, number_of_rows(reader), resumed)


def name_of(llm: LLM) -> str:
    """Return the registered name of an LLM, or its class where it has none."""
    try:
        return llm.registry.name_of(type(llm))
    except StillhouseError:  # it is registered nowhere
        return type(llm).__qualname__


@contextlib.contextmanager
def announced(
    llm: LLM, run: RunInfo, statistics: RunStatistics, outcome: Callable[[], Outcome]
) -> Iterator[None]:
    """Notify the hooks of an LLM that a run starts and, at the end of the block, how it ended.

    Args:
        llm: the LLM.
        run: the run.
        statistics: the counts of this process, from zero.
        outcome: how the work ended, if no exception ended it.
    """
    hooks = llm.registry.hooks()
    ended: Outcome = "stopped"
    hooks.run_started(run)
    try:
        yield
        ended = outcome()
    except KeyboardInterrupt:
        ended = "interrupted"
        raise
    finally:
        hooks.run_finished(_summary(run, statistics, ended))


def _summary(run: RunInfo, statistics: RunStatistics, outcome: Outcome) -> RunSummary:
    return RunSummary(
        run=run,
        outcome=outcome,
        done=statistics.done,
        failed=dict(statistics.failed),
        skipped=statistics.skipped,
        input_tokens=statistics.input_tokens,
        output_tokens=statistics.output_tokens,
        cost=statistics.cost,
        seconds=statistics.seconds,
    )
