"""A collector that does not answer, a run that is killed, logs: nothing of it slows or ends a run."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from otlp_receiver import Receiver, attributes_of

import stillhouse
from stillhouse import Registry
from stillhouse_otel import OtelHooks
from stillhouse_otel.warnings_once import cleaned


def test_a_collector_that_is_not_there_costs_one_warning(
    opened: Callable[..., Registry], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://user:SECRET-123@127.0.0.1:{taken.getsockname()[1]}"
        registry = opened(endpoint=url, ratio=1.0, flush_seconds=0.05)
        for number in range(2):
            rows = [{"prompt": str(row)} for row in range(3000)]  # more than the queue holds
            run = stillhouse.run(rows, llm=registry.create("echo"), output=tmp_path / f"{number}.jsonl")
            assert run.counts.done == 3000
    assert {record.name for record in caplog.records} == {"stillhouse.registry", "stillhouse.otel"}
    assert caplog.text.count("telemetry is incomplete") == 1
    assert "SECRET-123" not in caplog.text


def test_a_collector_that_does_not_answer_is_not_waited_for(
    opened: Callable[..., Registry],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    joined = []
    join = Thread.join
    monkeypatch.setattr(
        Thread, "join", lambda self, timeout=None: joined.append((self.name, timeout)) or join(self, timeout)
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections and says nothing
        registry = opened(
            endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}", ratio=1.0, flush_seconds=0.05
        )
        for number in range(2):
            run = stillhouse.run(
                [{"prompt": "x"}], llm=registry.create("echo"), output=tmp_path / f"{number}.jsonl"
            )
            assert run.counts.done == 1
    assert [timeout for name, timeout in joined if name == "stillhouse-otel-flush"] == [0.05, 0.0]
    assert "the exporter did not answer within 0.05 s" in caplog.text
    assert caplog.text.count("telemetry is incomplete") == 1


def test_a_variable_that_is_no_number_is_one_warning(
    run_echo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "often")
    run = run_echo([{"prompt": "x"}] * 3)
    assert run.counts.done == 3
    assert caplog.text.count("no telemetry: OpenTelemetry cannot be set up") == 1


def test_the_logger_of_opentelemetry_is_as_it_was(
    run_echo: Callable[..., Any], close_all: Callable[[], None]
) -> None:
    logger = logging.getLogger("opentelemetry")
    run_echo([{"prompt": "x"}])
    assert (len(logger.handlers), logger.propagate) == (1, False)
    close_all()
    assert (logger.handlers, logger.propagate) == ([], True)


def test_what_a_server_says_is_one_bounded_line() -> None:
    assert cleaned("a\n\x1b[31mb http://me:word@host/x") == "a  [31mb http://***@host/x"
    assert len(cleaned("x" * 10_000)) == 300


KILLED = """
import stillhouse, sys, time
from stillhouse import Registry
from stillhouse.registry.policy import Policy
from stillhouse_otel import OtelHooks
registry = Registry(entry_points=[], policy=Policy(hooks={"otel": {"ratio": 1.0, "endpoint": sys.argv[1]}}))
registry.register_hooks("otel", OtelHooks())
stops = len(sys.argv) > 2
class Slow(stillhouse.AsyncLLM):
    @property
    def model_name(self):
        return "slow"
    async def agenerate(self, input, num_generations=1):
        if stops and input[0]["content"] == "row 20":
            print("begun", flush=True)
            time.sleep(3600)
        return stillhouse.prepare_output(["x"])
registry.register("slow", Slow)
rows = [{"prompt": f"row {number}"} for number in range(50)]
stillhouse.run(rows, llm=registry.create("slow", max_concurrency=4), output="out.jsonl")
"""


def test_a_killed_run_leaves_its_rows_and_a_resumed_one_its_own_span(
    tmp_path: Path, receiver: Receiver
) -> None:
    variables = {**os.environ, "OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_METRIC_EXPORT_INTERVAL": "50"}
    command = [sys.executable, "-c", KILLED, receiver.url]
    with subprocess.Popen(
        [*command, "stops"], cwd=tmp_path, env=variables, stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout is not None
        try:
            assert killed.stdout.readline() == "begun\n"
            deadline = time.monotonic() + 120
            while not receiver.rows:
                receiver.came.clear()
                assert receiver.came.wait(deadline - time.monotonic()), "no row was exported"
        finally:
            killed.kill()
    assert receiver.runs == []
    (trace,) = {span.trace_id for span in receiver.rows}
    subprocess.run(command, cwd=tmp_path, env=variables, check=True, timeout=120)
    (run,) = receiver.runs
    assert run.trace_id != trace
    assert attributes_of(run)["stillhouse.run.outcome"] == "complete"


def test_a_second_configuration_replaces_the_first(
    receiver: Receiver, opened: Callable[..., Registry], tmp_path: Path
) -> None:
    from stillhouse_otel.settings import OtelSettings

    hooks = OtelHooks()
    hooks.configure(OtelSettings(endpoint=receiver.url, ratio=1.0, flush_seconds=30.0))
    with opened(enabled=False).create("echo") as llm:
        hooks.after_generate(llm, "x", 1, {}, stillhouse.prepare_output(["a"]), None, False, None, 0.5)
    hooks.configure(OtelSettings(enabled=False))
    assert len(receiver.rows) == 1  # what waited was exported
    assert hooks.after_generate is None
    hooks.configure(OtelSettings(endpoint=receiver.url))
    assert hooks.after_generate is not None
    hooks.close()
