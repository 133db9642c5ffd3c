"""Metrics: what is counted, and that their series are bounded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExportResult
from opentelemetry.sdk.resources import Resource
from otlp_receiver import Receiver

import stillhouse
from stillhouse import GenerationError, Registry, hookimpl
from stillhouse_otel.histograms import DURATION, MAX_SERIES, TOKENS, GivenHistograms, OwnHistograms


def by_name(receiver: Receiver, name: str) -> dict[str, Any]:
    """The data points of a metric, by the attribute that only it has."""
    return {
        attributes.get("gen_ai.token.type", attributes.get("error.type", "")): point
        for metric, attributes, point in receiver.points
        if metric == name
    }


def test_durations_and_tokens_are_histograms_by_the_conventions(
    run_echo: Callable[..., Any], receiver: Receiver
) -> None:
    run = run_echo([{"prompt": "one two"}, {"prompt": "three"}], fields={"latency": 0.02})
    assert {name for name, _, _ in receiver.points} == {
        "gen_ai.client.operation.duration",
        "gen_ai.client.token.usage",
    }
    (duration,) = by_name(receiver, "gen_ai.client.operation.duration").values()
    assert (duration.count, duration.min >= 0.02) == (2, True)
    assert [*duration.explicit_bounds] == pytest.approx(
        [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
    )
    tokens = by_name(receiver, "gen_ai.client.token.usage")
    assert {kind: point.sum for kind, point in tokens.items()} == {
        "input": run.tokens.input,
        "output": run.tokens.output,
    }
    assert [*tokens["output"].explicit_bounds] == [4**power for power in range(14)]
    for _, attributes, _ in receiver.points:
        assert {*attributes} - {"gen_ai.token.type", "error.type"} == {
            "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model",
        }  # fmt: skip


def test_failures_are_a_series_for_each_kind(run_echo: Callable[..., Any], receiver: Receiver) -> None:
    run = run_echo([{"prompt": "x"}, {"prompt": "y"}], fields={"failure_rate": 1.0})
    durations = by_name(receiver, "gen_ai.client.operation.duration")
    assert {kind: point.count for kind, point in durations.items()} == run.counts.failed


class Unique(stillhouse.LLM):
    """Fails every other row, with a text that no other row has."""

    @property
    def model_name(self) -> str:
        return "unique"

    def generate(self, inputs: Any, num_generations: int = 1) -> Any:
        outputs = []
        for input in inputs:
            text = input[0]["content"]
            if int(text) % 2:
                raise GenerationError(f"row {text} was refused", kind="content_filter")
            outputs.append(stillhouse.prepare_output([text], [1], [1], finish_reasons=[f"reason {text}"]))
        return outputs


@pytest.mark.parametrize("count", [4_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_unique_ids_and_texts_of_errors_make_no_series(
    opened: Callable[..., Registry], receiver: Receiver, tmp_path: Path, count: int
) -> None:
    registry = opened(endpoint=receiver.url, ratio=0.001, flush_seconds=30.0)
    registry.register("unique", Unique)
    (hooks,) = (plugin for name, plugin in registry.hooks()._manager.list_name_plugin() if name == "otel")
    sizes = []

    class Watcher:
        @hookimpl
        def after_generate(self, row: Any) -> None:
            if row.index in (count // 100, count - 1):
                histograms = hooks._telemetry.histograms
                sizes.append((len(histograms._series), len(hooks._runs), len(hooks._origins._known)))

    registry.register_hooks("watcher", Watcher())
    rows = ({"id": f"customer-{number}", "prompt": str(number)} for number in range(count))
    stillhouse.run(rows, llm=registry.create("unique"), output=tmp_path / "out.jsonl")
    series = {(name, *sorted(attributes.items())) for name, attributes, _ in receiver.points}
    assert len(series) == 4  # durations of done and failed rows; tokens, in and out
    durations = by_name(receiver, "gen_ai.client.operation.duration")
    assert {kind: point.count for kind, point in durations.items()} == {
        "": count // 2, "content_filter": count // 2,
    }  # fmt: skip
    assert sizes[0] == sizes[1] == (4, 1, 1)
    assert b"customer-" not in receiver.raw
    assert b"was refused" not in receiver.raw
    assert b"reason" not in receiver.raw.replace(b"finish_reasons", b"")


class Kept:
    """An exporter that keeps what it is given."""

    def __init__(self) -> None:
        self.data: list[Any] = []

    def export(self, data: Any, timeout_millis: float = 0, **arguments: Any) -> MetricExportResult:
        self.data.append(data)
        return MetricExportResult.SUCCESS

    def shutdown(self, timeout_millis: float = 0, **arguments: Any) -> None:
        pass

    def counts(self) -> list[int]:
        return [
            point.count
            for data in self.data
            for part in data.resource_metrics
            for scope in part.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        ]


def test_series_are_bounded_whatever_models_there_are() -> None:
    histograms = OwnHistograms(Kept(), Resource.get_empty(), {})
    for number in range(3 * MAX_SERIES):
        histograms.add(DURATION, "chat", "x", f"model-{number}", "", 0.5)
    assert len(histograms._series) == MAX_SERIES + 1
    (other,) = (series for key, series in histograms._series.items() if key[3] == "_OTHER")
    assert other.count == 2 * MAX_SERIES
    histograms.close()


@pytest.mark.parametrize(("preference", "counts"), [("", [1, 2]), ("delta", [1, 1])])
def test_the_environment_chooses_what_is_added_up(preference: str, counts: list[int]) -> None:
    exporter = Kept()
    variable = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
    histograms = OwnHistograms(exporter, Resource.get_empty(), {variable: preference})
    for _ in range(2):
        histograms.add(DURATION, "chat", "x", "m", "", 0.5)
        histograms.flush()
    assert exporter.counts() == counts
    histograms.close()


def test_values_are_counted_as_the_sdk_counts_them() -> None:
    reader = InMemoryMetricReader()
    provider, exporter = MeterProvider([reader]), Kept()
    theirs, ours = GivenHistograms(provider), OwnHistograms(exporter, Resource.get_empty(), {})
    for histograms in (theirs, ours):
        for value in (0, 0.005, 0.01, 0.02, 0.020001, 5.0, 81.92, 1000.0):
            histograms.add(DURATION, "chat", "x", "m", "timeout", value)
        for value in (0, 1, 2, 4, 5, 67108864, 67108865):
            histograms.add(TOKENS, "chat", "x", "m", "input", value)
    ours.flush()
    read, kept = reader.get_metrics_data(), exporter.data[0]
    assert read is not None
    for one, other in zip(
        read.resource_metrics[0].scope_metrics[0].metrics,
        kept.resource_metrics[0].scope_metrics[0].metrics,
        strict=True,
    ):
        assert (one.name, one.unit, one.description) == (other.name, other.unit, other.description)
        (point,), (twin,) = one.data.data_points, other.data.data_points
        assert dict(point.attributes) == twin.attributes
        for name in ("count", "sum", "bucket_counts", "explicit_bounds", "min", "max"):
            assert getattr(point, name) == getattr(twin, name), name
    ours.close()
    provider.shutdown()
