"""Nothing is reported, imported or called unless it is asked for; what is asked for wrongly is an error."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from otlp_receiver import Receiver

import stillhouse
from stillhouse import ConfigurationError, Registry

RUN = """
import sys, stillhouse
from stillhouse import Registry
from stillhouse.registry.policy import Policy
from stillhouse_otel import OtelHooks
import logging
logging.getLogger("stillhouse.registry").setLevel("ERROR")  # no package has these hooks here
hooks = OtelHooks()
registry = Registry(entry_points=[], policy=Policy(hooks={"otel": TABLE}))
registry.register_hooks("otel", hooks)
BEFORE
run = stillhouse.run([{"prompt": "x"}] * 3, llm=registry.create("echo"), output="out.jsonl")
assert run.counts.done == 3
print([name for name in sys.modules if name.startswith("opentelemetry")], registry.hooks().after)
AFTER
"""


def run_here(folder: Path, table: dict[str, Any], before: str = "", after: str = "", **variables: str) -> str:
    """Run three rows in a process of its own, and return what it printed."""
    code = RUN.replace("TABLE", repr(table)).replace("BEFORE", before).replace("AFTER", after)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert result.stderr == "", result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize(
    ("table", "variables"),
    [
        ({}, {}),
        ({"enabled": False}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}),
        ({"enabled": True}, {"OTEL_SDK_DISABLED": "true"}),
        ({}, {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}),
        ({}, {"OTEL_SERVICE_NAME": "mine"}),
    ],
)
def test_off_imports_nothing_and_looks_at_no_row(
    tmp_path: Path, table: dict[str, Any], variables: dict[str, str]
) -> None:
    assert run_here(tmp_path, table, **variables) == "[] False"


def test_importing_the_hooks_imports_nothing_of_opentelemetry(tmp_path: Path) -> None:
    code = "import sys, stillhouse_otel; print([m for m in sys.modules if m.startswith(('opentelemetry', 'pydantic'))])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_environment_turns_it_on(tmp_path: Path, receiver: Receiver) -> None:
    run_here(tmp_path, {}, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_SERVICE_NAME="mine")
    assert len(receiver.runs) == 1
    assert receiver.points
    assert receiver.resources[0]["service.name"] == "mine"


def test_one_signal_alone_can_be_asked_for(tmp_path: Path, receiver: Receiver) -> None:
    run_here(tmp_path, {}, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{receiver.url}/v1/traces")
    assert {path for path, _ in receiver.bodies} == {"/v1/traces"}
    receiver.bodies.clear()
    run_here(
        tmp_path, {"endpoint": receiver.url}, "import os; os.remove('out.jsonl')", OTEL_TRACES_EXPORTER="none"
    )
    assert {path for path, _ in receiver.bodies} <= {"/v1/metrics"}


def test_an_exporter_of_another_package_is_used_by_its_name(tmp_path: Path) -> None:
    printed = run_here(tmp_path, {"ratio": 1.0}, OTEL_TRACES_EXPORTER="console")
    assert printed.count('"name": "chat echo"') == 3


GIVEN = """
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
tracers, meters = TracerProvider(), MeterProvider([reader])
tracers.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(tracers)
metrics.set_meter_provider(meters)
"""


def test_providers_of_the_program_are_used_and_left_as_they_are(tmp_path: Path) -> None:
    after = """
hooks.close()
assert trace.get_tracer_provider() is tracers and metrics.get_meter_provider() is meters
with tracers.get_tracer("mine").start_as_current_span("mine"):
    registry.create("echo")
    with registry.create("echo") as llm:
        llm.generate_outputs(["y"])
found = {span.name: span for span in spans.get_finished_spans()}
assert found["text_completion echo"].parent.span_id == found["mine"].context.span_id
print(sorted(span.name for span in spans.get_finished_spans()))
print([m.name for m in reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics])
"""
    before = GIVEN + "registry.unregister_hooks('otel'); registry.register_hooks('otel', hooks)"
    printed = run_here(tmp_path, {"ratio": 1.0}, before, after).splitlines()
    assert printed[1] == str(
        ["chat echo"] * 3 + ["invoke_workflow stillhouse", "mine", "text_completion echo"]
    )
    assert printed[2] == "['gen_ai.client.operation.duration', 'gen_ai.client.token.usage']"


@pytest.mark.parametrize(
    ("table", "variables", "message"),
    [
        ({"ratoi": 1}, {}, "there is no 'ratoi'"),
        ({"ratio": 2}, {}, "ratio: "),
        ({"endpoint": "localhost:4318"}, {}, "the address must begin with http:// or https://"),
        ({"capture_content": "perhaps"}, {}, "capture_content: "),
        ({"flush_seconds": -1}, {}, "flush_seconds: "),
        ({"enabled": True}, {"OTEL_EXPORTER_OTLP_PROTOCOL": "carrier-pigeon"}, "not a protocol of OTLP"),
        ({}, {"OTEL_TRACES_EXPORTER": "zipkin"}, "exporter 'zipkin' of traces is not installed"),
        ({"enabled": True}, {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "'otlp_proto_grpc' of traces is not"),
    ],
)
def test_a_wrong_setting_is_one_error(
    opened: Callable[..., Registry],
    monkeypatch: pytest.MonkeyPatch,
    table: dict[str, Any],
    variables: dict[str, str],
    message: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        stillhouse.run([{"prompt": "x"}], llm=opened(**table).create("echo"))
    assert message in caught.value.message
    assert caught.value.hint


def test_a_missing_exporter_is_named_with_its_package(
    opened: Callable[..., Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillhouse_otel.plan.entry_points", lambda **wanted: ())
    with pytest.raises(ConfigurationError) as caught:
        opened(enabled=True)
    assert caught.value.hint == 'stillhouse install "stillhouse-otel[otlp]"'
