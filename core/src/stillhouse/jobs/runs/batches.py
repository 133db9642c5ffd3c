"""The offline batches of a run that no process works on: opened again, or known to be running."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.runs.offline import generations_done, has_batches, jobs_of
from stillhouse.jobs.store.database import StoreError, reading
from stillhouse.jobs.store.store import SqliteStore
from stillhouse.llm import LLM
from stillhouse.offline.chunks import Chunk
from stillhouse.offline.ledger import BatchLedger
from stillhouse.offline.protocol import OfflineBatchCalls

__all__ = ["check_no_batch_runs", "open_batches"]


def check_no_batch_runs(output: Path, path: Path) -> None:
    """Refuse to delete a run whose jobs the provider works on: they could not be collected or cancelled.

    Args:
        output: the output of the run.
        path: its state.

    Raises:
        ConfigurationError: there are such jobs.
    """
    running: list[Chunk] = []
    with contextlib.suppress(StoreError):  # nothing is known of a state that cannot be used
        with reading(path) as connection:
            has_ledger = has_batches(connection)
        if has_ledger:
            with BatchLedger(path) as ledger:
                running = [job for job in jobs_of(ledger) if job.state in ("uploaded", "created")]
    if running:
        raise ConfigurationError(
            f"{len(running)} offline batches of this run are still running; you would pay for them without "
            "using them",
            hint=f"cancel them with stillhouse batches {output} --cancel",
        )


@contextlib.contextmanager
def open_batches(output: Path, state: Path | None = None) -> Iterator[list[OfflineBatchCalls]]:
    """Open the offline batches of a run that no process works on, with the LLM that it was started with.

    Secrets come from the environment, for the run does not keep them.

    Args:
        output: the output of the run.
        state: its state, if it is not beside the output.

    Raises:
        StoreError: another process works on the run, or its state cannot be used.
        ConfigurationError, UnknownLLMError, PluginError: the LLM cannot be created.
    """
    store = SqliteStore(output, "", state=state)
    try:
        command = store.get("command")
        if command is None:
            yield []
            return
        llm = LLM.from_dict(command["llm"])
        with llm, BatchLedger(store.path) as ledger:
            yield [
                llm.open_offline_batch(
                    ledger, key, command["num_generations"] - generations_done(key), command["parameters"]
                )
                for key in ledger.run_keys()
            ]
    finally:
        store.close("stopped")
