"""`Telemetry`: the tracer and the histograms in use: the program's own, or some of ours with an exporter."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stillhouse_otel.histograms import GivenHistograms, Histograms, OwnHistograms
from stillhouse_otel.plan import configured_provider, exporter_class
from stillhouse_otel.warnings_once import OneWarning

if TYPE_CHECKING:
    from stillhouse_otel.plan import Plan

__all__ = ["Telemetry"]

SCHEMA = "https://opentelemetry.io/schemas/1.37.0"


class Telemetry:
    """What spans and values are given to.

    A provider that the program has configured is used as it is, and neither flushed nor closed. Otherwise a
    provider is made for Stillhouse alone.

    Args:
        plan: what to report.

    Attributes:
        tracer: of spans; `None` where none are asked for.
        histograms: of the metrics; likewise.

    Raises:
        Exception: an exporter cannot be made, such as for a variable of the environment that is no number.
    """

    def __init__(self, plan: Plan) -> None:
        self.tracer: Any = None
        self.histograms: Histograms | None = None
        self._seconds = plan.settings.flush_seconds
        self._endpoint = plan.settings.endpoint
        self._provider: Any = None
        self._is_late = False
        self._warning = OneWarning()
        self._make_tracer(plan.traces)
        self._make_histograms(plan.metrics)
        if self._is_own:
            self._warning.open()

    def _make_tracer(self, exporter: str | None) -> None:
        provider = configured_provider("traces")
        if provider is None and exporter is not None:
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor

            provider = self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
            # Its queue is bounded: what an exporter does not take in time is dropped.
            provider.add_span_processor(BatchSpanProcessor(self._exporter("traces", exporter)))
        if provider is not None:
            self.tracer = provider.get_tracer("stillhouse_otel", schema_url=SCHEMA)

    def _make_histograms(self, exporter: str | None) -> None:
        provider = configured_provider("metrics")
        if provider is not None:
            self.histograms = GivenHistograms(provider)
        elif exporter is not None:
            self.histograms = OwnHistograms(self._exporter("metrics", exporter), _resource())

    def _exporter(self, signal: str, name: str) -> Any:
        cls = exporter_class(signal, name)
        asked = [f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]
        if not self._endpoint or not name.startswith("otlp_") or any(os.environ.get(item) for item in asked):
            return cls()
        return cls(endpoint=self._endpoint if name.endswith("_grpc") else f"{self._endpoint}/v1/{signal}")

    @property
    def _is_own(self) -> bool:
        return self._provider is not None or isinstance(self.histograms, OwnHistograms)

    def flush(self) -> None:
        """Export what waits, as far as that is possible within the time; never longer."""
        self._in_time(self._flush)

    def close(self) -> None:
        """Export what waits, likewise, and end."""
        self._in_time(self._close)

    def _flush(self) -> None:
        if self._provider is not None:
            self._provider.force_flush()
        if isinstance(self.histograms, OwnHistograms):
            self.histograms.flush()

    def _close(self) -> None:
        try:
            if self._provider is not None:
                self._provider.shutdown()
            if isinstance(self.histograms, OwnHistograms):
                self.histograms.close()
        finally:
            self._warning.close()

    def _in_time(self, work: Callable[[], None]) -> None:
        """Do work in a thread that nobody waits for longer than the time. After it was late, nobody waits."""
        if not self._is_own:
            return
        thread = threading.Thread(target=work, name="stillhouse-otel-flush", daemon=True)
        thread.start()
        thread.join(0.0 if self._is_late else self._seconds)
        if thread.is_alive() and not self._is_late:
            self._is_late = True
            self._warning.say(f"the exporter did not answer within {self._seconds:g} s")


def _resource() -> Any:
    """Return the attributes of this process: the name of the service, and what the environment says."""
    from opentelemetry.sdk.resources import Resource

    is_named = "OTEL_SERVICE_NAME" in os.environ
    is_named = is_named or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource.create({} if is_named else {"service.name": "stillhouse"})
