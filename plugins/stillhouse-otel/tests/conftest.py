import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from otlp_receiver import Receiver, receiving

import stillhouse
from stillhouse import Registry
from stillhouse.registry.policy import Policy
from stillhouse_otel import OtelHooks


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a test sets asks for telemetry."""
    for name in [*os.environ]:
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def made(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[OtelHooks]]:
    """The hooks of a test; closed before the receiver."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "5")
    made: list[OtelHooks] = []
    yield made
    for hooks in made:
        hooks.close()
    for thread in threading.enumerate():
        if thread.name == "stillhouse-otel-flush":
            thread.join()


@pytest.fixture
def close_all(made: list[OtelHooks]) -> Callable[[], None]:
    return lambda: [hooks.close() for hooks in made] and None


@pytest.fixture
def opened(made: list[OtelHooks]) -> Callable[..., Registry]:
    """Makes a registry with these hooks and nothing else that is installed."""

    def open_registry(**table: Any) -> Registry:
        made.append(OtelHooks())
        registry = Registry(entry_points=[], policy=Policy(hooks={"otel": table}))
        registry.register_hooks("otel", made[-1])
        return registry

    return open_registry


@pytest.fixture
def run_echo(opened: Callable[..., Registry], receiver: Receiver, tmp_path: Path) -> Callable[..., Any]:
    """Runs rows through `echo`, and reports to the receiver."""

    def run(rows: list[dict[str, Any]], table: dict[str, Any] | None = None, **options: Any) -> Any:
        registry = opened(**{"endpoint": receiver.url, "ratio": 1.0, "flush_seconds": 30.0, **(table or {})})
        fields = options.pop("fields", {})
        output = options.pop("output", tmp_path / "answers.jsonl")
        return stillhouse.run(rows, llm=registry.create("echo", **fields), output=output, **options)

    return run
