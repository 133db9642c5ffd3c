"""After an interrupt no further job of a batch is submitted, and the next command submits the rest."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, ClassVar

import pytest

from stillhouse.http.batches import BatchLimits, Job
from stillhouse.offline import Chunk

from ..offline.support import BatchServer, TinyLLM
from ..support import PATIENCE
from .conftest import Result, read_rows


class SmallLLM(TinyLLM):
    """Makes jobs of two rows, and is interrupted when it has made one."""

    model: str = "m"
    batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=2, bytes=1_000_000)
    interrupts: ClassVar[bool] = True
    stopping: ClassVar[threading.Event] = threading.Event()

    async def create_batch(self, chunk: Chunk, file: IO[bytes], size: int) -> Job:
        job = await super().create_batch(chunk, file, size)
        if self.interrupts:
            os.kill(os.getpid(), signal.SIGINT)
            assert self.stopping.wait(PATIENCE)  # the handler runs in the main thread
        return job


@pytest.fixture
def server() -> Iterator[BatchServer]:
    served = BatchServer()
    yield served
    served.close()


def test_no_further_job_is_submitted_after_an_interrupt(
    run: Callable[..., Result],
    own_registry: Any,
    rows_file: Any,
    server: BatchServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from stillhouse.cli.generate import run as cli_run

    noted = cli_run._note_stopping

    def note() -> None:
        noted()
        SmallLLM.stopping.set()

    monkeypatch.setattr(cli_run, "_note_stopping", note)
    own_registry.register("small", SmallLLM)
    arguments = [
        "generate", rows_file([{"prompt": f"row {n}"} for n in range(6)]), "--llm", "small", "--batch",
        "--set", f"base_url={server.url}", "-o", tmp_path / "out.jsonl",
    ]  # fmt: skip
    stopped = run(*arguments)
    assert (stopped.status, len(server.jobs)) == (130, 1), stopped.err
    monkeypatch.setattr(SmallLLM, "interrupts", False)
    waiting = run(*arguments)
    assert (waiting.status, len(server.jobs)) == (4, 3), waiting.err
    server.finish()
    assert run(*arguments).status == 0
    sent = [text for job in server.jobs.values() for text in server.texts(job)]
    assert sorted(sent) == [f"row {n}" for n in range(6)]
    assert len(read_rows(tmp_path / "out.jsonl")) == 6
