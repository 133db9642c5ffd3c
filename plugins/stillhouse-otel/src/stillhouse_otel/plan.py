"""`Plan`: what is reported and how, by the settings and OpenTelemetry's environment variables.

Nothing of OpenTelemetry is imported here: a process in which nothing is asked for does without it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from stillhouse.errors import ConfigurationError

if TYPE_CHECKING:
    from stillhouse_otel.settings import OtelSettings

__all__ = ["Plan", "configured_provider", "exporter_class", "plan_of"]

_SIGNALS = ("traces", "metrics")

_PROTOCOLS = {
    "http/protobuf": "otlp_proto_http",
    "grpc": "otlp_proto_grpc",
    "http/json": "otlp_json_http",
}
"""The names that OpenTelemetry's packages give the exporter of each protocol."""


@dataclass(frozen=True)
class Plan:
    """What is reported and how.

    Attributes:
        traces: the name of the exporter of spans, or `None` for no exporter.
        metrics: likewise, of metrics.
        settings: the settings.
    """

    traces: str | None
    metrics: str | None
    settings: OtelSettings


def plan_of(settings: OtelSettings) -> Plan | None:
    """Return what to report, or `None` if nothing is asked for.

    Raises:
        ConfigurationError: an exporter or a protocol is unknown or not installed.
    """
    if settings.enabled is False or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    traces, metrics = (_exporter(signal, settings) for signal in _SIGNALS)
    if not settings.enabled and not (traces or metrics) and not any(map(configured_provider, _SIGNALS)):
        return None
    for signal, name in zip(_SIGNALS, (traces, metrics), strict=True):
        if name is not None and configured_provider(signal) is None:
            _check(signal, name)
    return Plan(traces, metrics, settings)


def configured_provider(signal: str) -> Any:
    """Return the provider that the program has configured for a signal, or `None`."""
    module = sys.modules.get("opentelemetry.trace" if signal == "traces" else "opentelemetry.metrics")
    if module is None:
        return None
    provider = module.get_tracer_provider() if signal == "traces" else module.get_meter_provider()
    name = type(provider).__name__
    return None if "Proxy" in name or "NoOp" in name else provider


def exporter_class(signal: str, name: str) -> Any:
    """Return the class of an exporter, as its package declares it."""
    (found,) = entry_points(group=f"opentelemetry_{signal}_exporter", name=name)
    return found.load()


def _exporter(signal: str, settings: OtelSettings) -> str | None:
    """Return the name of the exporter of a signal, or `None` if nobody asks for one."""
    (other,) = {*_SIGNALS} - {signal}
    named = _variable(f"OTEL_{signal.upper()}_EXPORTER").lower()
    if named == "none":
        return None
    if named and named != "otlp":
        return named
    if (
        named
        or settings.endpoint
        or _variable("OTEL_EXPORTER_OTLP_ENDPOINT")
        or _variable(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    ):
        return _by_protocol(signal)
    others = (f"OTEL_{other.upper()}_EXPORTER", f"OTEL_EXPORTER_OTLP_{other.upper()}_ENDPOINT")
    if any(map(_variable, others)):
        return None  # the other signal alone is asked for
    return _by_protocol(signal) if settings.enabled else None


def _by_protocol(signal: str) -> str:
    for variable in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = _variable(variable)
        if protocol and protocol not in _PROTOCOLS:
            raise ConfigurationError(
                f"{variable} is {protocol[:50]!r}, which is not a protocol of OTLP",
                hint=f"use {', '.join(_PROTOCOLS)}",
            )
        if protocol:
            return _PROTOCOLS[protocol]
    return "otlp_proto_http"


def _check(signal: str, name: str) -> None:
    """Refuse an exporter that cannot be used.

    Raises:
        ConfigurationError: it is not installed, or OpenTelemetry's SDK is not.
    """
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        raise ConfigurationError(
            "opentelemetry-sdk is not installed, so nothing can be exported",
            hint='stillhouse install "stillhouse-otel[otlp]"',
        )
    if not entry_points(group=f"opentelemetry_{signal}_exporter", name=name):
        installed = sorted(point.name for point in entry_points(group=f"opentelemetry_{signal}_exporter"))
        hint = 'stillhouse install "stillhouse-otel[otlp]"'
        if name != "otlp_proto_http":
            hint = f"install the package of the exporter, or use one of these: {', '.join(installed)}"
        raise ConfigurationError(
            f"OpenTelemetry's exporter {name[:50]!r} of {signal} is not installed", hint=hint
        )


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip()
