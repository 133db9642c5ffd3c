from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support import nothing_is_left_running
from .support import BatchServer, TinyLLM

__all__ = ["nothing_is_left_running"]


@pytest.fixture(autouse=True)
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STILLHOUSE_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once, and what the provider does not list is not there."""
    monkeypatch.setattr("stillhouse.http.transport.session.backoff_seconds", lambda attempt: 0.0)
    monkeypatch.setattr("stillhouse.offline.engine.backoff_seconds", lambda attempt: 0.0)
    monkeypatch.setattr("stillhouse.offline.sending.SETTLE_SECONDS", 0.0)


@pytest.fixture
def server() -> Iterator[BatchServer]:
    served = BatchServer()
    yield served
    served.close()


@pytest.fixture
def make(server: BatchServer) -> Iterator[Callable[..., Any]]:
    """Loaded LLMs that ask the server."""
    loaded: list[Any] = []

    def llm(kind: type[TinyLLM] = TinyLLM, **fields: Any) -> Any:
        made = kind(**{"model": "m", "base_url": server.url, "retry_timeout": 5, **fields})
        made.load()
        loaded.append(made)
        return made

    yield llm
    for made in loaded:
        made.unload()
