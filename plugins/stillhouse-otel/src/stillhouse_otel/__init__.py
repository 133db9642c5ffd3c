"""Stillhouse hooks that report runs to OpenTelemetry: a span for a run, spans for its rows, and metrics."""

from __future__ import annotations

from stillhouse_otel.hooks import OtelHooks

__all__ = ["OtelHooks", "plugin"]

plugin = OtelHooks()
"""What the entry point names."""
