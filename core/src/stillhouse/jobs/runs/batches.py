"""The offline batches of a run that no process works on: opened again, or known to be running."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from stillhouse._wording import number_of
from stillhouse.errors import ConfigurationError
from stillhouse.jobs.runs.offline import generations_done, has_batches, jobs_of
from stillhouse.jobs.store.database import StoreError, reading, store_path
from stillhouse.jobs.store.places import is_same_name
from stillhouse.jobs.store.seals import facts_of
from stillhouse.jobs.store.store import SqliteStore
from stillhouse.llm import LLM
from stillhouse.offline.chunks import Chunk
from stillhouse.offline.ledger import BatchLedger
from stillhouse.offline.protocol import OfflineBatchCalls

__all__ = ["check_restart", "open_batches"]


def check_restart(output: Path, path: Path) -> None:
    """Refuse to delete the run of another output, or one with running jobs at the provider.

    These jobs could not be collected or cancelled any more.

    Args:
        output: the output of the run.
        path: its state.

    Raises:
        ConfigurationError: it is such a run.
    """
    running: list[Chunk] = []
    owner = output.name
    with contextlib.suppress(StoreError):  # nothing is known of a state that cannot be used
        with reading(path) as connection:
            has_ledger = has_batches(connection)
            owner = facts_of(connection).get("output") or owner
        if has_ledger:
            with BatchLedger(path) as ledger:
                running = [job for job in jobs_of(ledger) if job.state in ("uploaded", "created")]
    # Beside its output, a state of another name was copied or renamed.
    if path != store_path(output) and not is_same_name(owner, output.name):
        raise ConfigurationError(
            f"{path} is the state of the run of {owner}, which --restart would forget",
            hint=f"leave out --restart to write {output.name} from that run, or give another --state",
        )
    if running:
        raise ConfigurationError(
            f"{number_of(len(running), 'offline batch', 'of this run is/of this run are')} still running; "
            "you would pay for them without using them",
            hint=f"cancel them with stillhouse batches {output} --cancel",
        )


@contextlib.contextmanager
def open_batches(output: Path, state: Path | None = None) -> Iterator[list[OfflineBatchCalls]]:
    """Open the offline batches of a run that no process works on, with the LLM that it was started with.

    Secrets come from the environment, because the run does not store them.

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
