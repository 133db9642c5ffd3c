"""`Histograms`: the two metrics of the conventions, recorded for each row.

`OwnHistograms` adds up by itself and gives an exporter what it has: a histogram of the SDK takes as long to
record one value as a hook takes for a row. `GivenHistograms` records with the program's own meter provider.
"""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["DURATION", "MAX_SERIES", "TOKENS", "GivenHistograms", "Histograms", "OwnHistograms"]

MAX_SERIES = 1000
"""How many series there are at most; values of further ones are counted under the model `_OTHER`."""

SCOPE = "stillhouse_otel"


class Instrument(NamedTuple):
    """What a metric is.

    Attributes:
        name: its name.
        unit: its unit.
        description: what it measures.
        bounds: the upper bounds of its buckets.
        extra: the attribute that only it has.
    """

    name: str
    unit: str
    description: str
    bounds: tuple[float, ...]
    extra: str


DURATION = Instrument(
    "gen_ai.client.operation.duration",
    "s",
    "Duration of an operation, with its retries and waits.",
    tuple(0.01 * 2**power for power in range(14)),
    "error.type",
)
TOKENS = Instrument(
    "gen_ai.client.token.usage",
    "{token}",
    "Number of input and output tokens used.",
    tuple(4**power for power in range(14)),
    "gen_ai.token.type",
)

Key = tuple[Instrument, str, str, str, str]
"""An instrument, and the attributes: operation, provider, model, and its extra one or nothing."""


def _attributes(key: Key) -> dict[str, str]:
    instrument, operation, provider, model, extra = key
    attributes = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
    }
    if extra:
        attributes[instrument.extra] = extra
    return attributes


class Histograms(ABC):
    """Records values; all values of the same attributes are one series."""

    def __init__(self) -> None:
        self._series: dict[Key, Any] = {}
        self._lock = threading.Lock()

    def add(
        self, instrument: Instrument, operation: str, provider: str, model: str, extra: str, value: float
    ) -> None:
        """Record a value."""
        key = (instrument, operation, provider, model, extra)
        with self._lock:
            series = self._series.get(key)
            if series is None:
                if len(self._series) >= MAX_SERIES:
                    key = (instrument, operation, provider, "_OTHER", extra)
                series = self._series.setdefault(key, self._new(key))
            self._record(series, value)

    @abstractmethod
    def _new(self, key: Key) -> Any:
        """Return a new series."""

    @abstractmethod
    def _record(self, series: Any, value: float) -> None:
        """Add a value to a series."""


class GivenHistograms(Histograms):
    """Records with a meter provider of the program.

    Args:
        provider: the provider.
    """

    def __init__(self, provider: Any) -> None:
        super().__init__()
        meter = provider.get_meter(SCOPE)
        self._instruments = {
            instrument: meter.create_histogram(
                instrument.name,
                unit=instrument.unit,
                description=instrument.description,
                explicit_bucket_boundaries_advisory=list(instrument.bounds),
            )
            for instrument in (DURATION, TOKENS)
        }

    def _new(self, key: Key) -> tuple[Any, dict[str, str]]:
        return self._instruments[key[0]], _attributes(key)

    def _record(self, series: Any, value: float) -> None:
        histogram, attributes = series
        histogram.record(value, attributes)


class _Series:
    """The values of the same attributes, added up."""

    __slots__ = ("bounds", "buckets", "count", "largest", "smallest", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.clear()

    def clear(self) -> None:
        self.buckets = [0] * (len(self.bounds) + 1)
        self.count, self.total = 0, 0.0
        self.smallest, self.largest = float("inf"), float("-inf")


class OwnHistograms(Histograms):
    """Adds up, and exports every so many seconds in a thread of its own.

    Args:
        exporter: an SDK's `MetricExporter`.
        resource: what describes this process.
        environment: `OTEL_METRIC_EXPORT_INTERVAL` (milliseconds) and
            `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE` are read from it.

    Raises:
        ValueError: a variable is not a number.
    """

    def __init__(self, exporter: Any, resource: Any, environment: Mapping[str, str] = os.environ) -> None:
        super().__init__()
        self._exporter, self._resource = exporter, resource
        self._interval = max(0.01, float(environment.get("OTEL_METRIC_EXPORT_INTERVAL") or 60_000) / 1000)
        preference = environment.get("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "").strip().lower()
        self._is_delta = preference in ("delta", "lowmemory")
        self._since = time.time_ns()
        self._exporting = threading.Lock()
        self._ends = threading.Event()
        threading.Thread(target=self._work, name="stillhouse-otel-metrics", daemon=True).start()

    def _new(self, key: Key) -> _Series:
        return _Series(key[0].bounds)

    def _record(self, series: _Series, value: float) -> None:
        series.buckets[bisect_left(series.bounds, value)] += 1
        series.count += 1
        series.total += value
        if value < series.smallest:
            series.smallest = value
        if value > series.largest:
            series.largest = value

    def _work(self) -> None:
        while not self._ends.wait(self._interval):
            self.flush()

    def flush(self) -> None:
        """Export what was recorded."""
        with self._exporting:
            data = self._collected()
            if data is not None:
                self._exporter.export(data)

    def close(self) -> None:
        """Export what was recorded, and end."""
        if not self._ends.is_set():
            self._ends.set()
            self.flush()
            self._exporter.shutdown()

    def _collected(self) -> Any:
        """Return all series as the SDK's exporters take them, or `None` if there are none."""
        from opentelemetry.sdk.metrics import export
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        now = time.time_ns()
        points: dict[Instrument, list[export.HistogramDataPoint]] = {}
        with self._lock:
            for key, series in self._series.items():
                if series.count:
                    points.setdefault(key[0], []).append(
                        export.HistogramDataPoint(
                            _attributes(key), self._since, now, series.count,
                            int(series.total) if key[0] is TOKENS else series.total,
                            tuple(series.buckets), series.bounds, series.smallest, series.largest,
                        )
                    )  # fmt: skip
                if self._is_delta:
                    series.clear()
            if self._is_delta:
                self._since = now
        if not points:
            return None
        kind = export.AggregationTemporality
        temporality = kind.DELTA if self._is_delta else kind.CUMULATIVE
        metrics = [
            export.Metric(item.name, item.description, item.unit, export.Histogram(found, temporality))
            for item, found in points.items()
        ]
        scope = export.ScopeMetrics(InstrumentationScope(SCOPE), metrics, "")
        return export.MetricsData([export.ResourceMetrics(self._resource, [scope], "")])
