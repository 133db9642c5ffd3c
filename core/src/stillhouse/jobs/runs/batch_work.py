"""`finish_batches`: one process's work on the offline batches of a run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from stillhouse.jobs.runs.hopeless import FailureWatch
from stillhouse.jobs.runs.offline import TRANSIENT_KINDS, OfflineRun
from stillhouse.jobs.runs.online import RunStatistics
from stillhouse.jobs.runs.open_run import OpenRun

__all__ = ["finish_batches"]

# Seconds between checks for a stop request while waiting for batches.
STOP_CHECK_SECONDS = 0.5


def finish_batches(opened: OpenRun, statistics: RunStatistics, stopping: Callable[[], bool]) -> bool:
    """Submit, poll and collect the batches of a run, according to its command.

    Args:
        opened: the run.
        statistics: updated.
        stopping: once it returns true, nothing more is submitted or waited for.

    Returns:
        Whether no job of the run is left at the provider.

    Raises:
        StoreError: the store will accept no more rows.
    """
    command, ledger, store = opened.command, opened.ledger, opened.store
    if ledger is None or not command.uses_batches:
        return True
    while not stopping():
        if store.problem is not None:
            raise store.problem
        offline = OfflineRun(
            opened.llm, ledger, store, opened.open_rows, command.formatter,
            num_generations=command.num_generations, arguments=command.arguments, stopping=stopping,
        )  # fmt: skip
        try:
            is_done = (
                offline.cancel_and_collect(statistics)
                if command.finish_online
                else offline.advance(statistics)
            )
        except asyncio.CancelledError:  # before the next job was submitted
            if not stopping():
                raise
            return False
        if not command.finish_online:
            statistics.check_failures()
        elif is_done:
            store.requeue(TRANSIENT_KINDS)
            statistics.watch = FailureWatch(command.max_failures)  # online it may go better
        if is_done:
            return True
        if command.wait is None:
            return False
        ends = time.monotonic() + command.wait
        while not stopping() and store.problem is None and time.monotonic() < ends:
            time.sleep(min(STOP_CHECK_SECONDS, command.wait))
    return False
