"""The hooks: a span for each run, spans for some of its rows, and metrics of all of them.

The registry imports this module when the first run starts, whatever that run uses: OpenTelemetry is imported
when there is something to report.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Mapping
from contextvars import ContextVar
from random import random
from typing import TYPE_CHECKING, Any

from stillhouse import hookimpl
from stillhouse_otel.content import cut, shown_input, shown_output
from stillhouse_otel.histograms import DURATION, TOKENS
from stillhouse_otel.origins import PROVIDERS, Origins, shown_model
from stillhouse_otel.spans import (
    RUN_NAME,
    error_type,
    finish_reasons,
    request_attributes,
    run_attributes,
    summary_attributes,
    tokens,
)
from stillhouse_otel.warnings_once import cleaned, logger

if TYPE_CHECKING:
    from stillhouse import LLM, FormattedInput, GenerateOutput, GenerationError, Row, RunInfo, RunSummary
    from stillhouse_otel.plan import Plan
    from stillhouse_otel.settings import OtelSettings
    from stillhouse_otel.telemetry import Telemetry

__all__ = ["OtelHooks"]

# The span of the run that this thread, or this task, works on.
_current_run: ContextVar[Any] = ContextVar("stillhouse_otel_run", default=None)

# The hooks that cost something for each row or run. Where nothing is reported, they are not registered.
_OBSERVERS = ("after_generate", "run_started", "run_finished")


class OtelHooks:
    """The plugin object. It reports only what the settings, the environment or the program ask for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._plan: Plan | None = None
        self._telemetry: Telemetry | None = None
        self._origins = Origins()
        self._runs: dict[int, tuple[RunInfo, Any]] = {}

    @hookimpl
    def settings_model(self) -> type[OtelSettings]:
        """What is reported, and to which collector."""
        from stillhouse_otel.settings import OtelSettings

        return OtelSettings

    @hookimpl
    def configure(self, settings: OtelSettings) -> None:
        """Take the settings. Where nothing is asked for, no row and no run is looked at."""
        from stillhouse_otel.plan import plan_of

        self.close()
        self._plan = plan_of(settings)
        for name in _OBSERVERS:
            if self._plan is None:
                self.__dict__[name] = None  # pluggy does not take it for a hook
            else:
                self.__dict__.pop(name, None)

    @hookimpl
    def run_started(self, run: RunInfo) -> None:
        """Begin the span of the run."""
        telemetry = self._opened()
        if telemetry is None or telemetry.tracer is None:
            return
        attributes = run_attributes(run, PROVIDERS.get(run.llm, run.llm), shown_model(run.model))
        if self._settings.capture_content:
            most = self._settings.content_length
            attributes |= {
                "stillhouse.run.source": cut(run.source, most),
                "stillhouse.run.output": cut(run.output, most),
            }
        span = telemetry.tracer.start_span(RUN_NAME, attributes=attributes)
        with self._lock:
            self._runs[id(run)] = (run, span)
        _current_run.set(span)

    @hookimpl
    def run_finished(self, summary: RunSummary) -> None:
        """End the span of the run, and export what waits."""
        with self._lock:
            _, span = self._runs.pop(id(summary.run), (None, None))
        _current_run.set(None)
        if span is not None:
            from opentelemetry.trace import Status, StatusCode

            span.set_attributes(summary_attributes(summary))
            if summary.outcome == "stopped":
                span.set_attribute("error.type", "stopped")
                span.set_status(Status(StatusCode.ERROR))
            span.end()
        if self._telemetry is not None:
            self._telemetry.flush()

    @hookimpl
    def after_generate(
        self,
        llm: LLM,
        input: FormattedInput | None,
        num_generations: int,
        arguments: Mapping[str, Any],
        output: GenerateOutput | None,
        error: GenerationError | None,
        from_hook: bool,
        row: Row | None,
        seconds: float,
    ) -> None:
        """Count a row, and make a span of it if it is one of the sample."""
        telemetry = self._telemetry or self._opened()
        if telemetry is None:
            return
        operation = "text_completion" if isinstance(input, str) else "chat"
        outputs = [output] if error is None else [*error.outputs]
        origin = self._origins.of(llm)
        used = tokens(outputs, "input_tokens"), tokens(outputs, "output_tokens")
        histograms = telemetry.histograms
        if histograms is not None and not from_hook:  # what a hook answered took no time and no tokens
            add, provider, model = histograms.add, origin.provider, origin.model
            if seconds:
                kind = "" if error is None else error_type(error)
                add(DURATION, operation, provider, model, kind, seconds)
            if used[0] is not None:
                add(TOKENS, operation, provider, model, "input", used[0])
            if used[1] is not None:
                add(TOKENS, operation, provider, model, "output", used[1])
        if telemetry.tracer is None or random() >= self._settings.ratio:  # noqa: S311
            return
        attributes = request_attributes(origin, operation, num_generations, arguments)
        if row is not None:
            attributes["stillhouse.row.index"] = row.index
        if from_hook:
            attributes["stillhouse.from_hook"] = True
        for name, count in zip(("input", "output"), used, strict=True):
            if count is not None:
                attributes[f"gen_ai.usage.{name}_tokens"] = count
        if error is not None:
            attributes["error.type"] = error_type(error)
            attributes["stillhouse.attempts"] = error.attempts
        elif output is not None and (reasons := finish_reasons(output)) is not None:
            attributes["gen_ai.response.finish_reasons"] = reasons
        if self._settings.capture_content:
            self._add_content(attributes, input, output)
        self._end_span(telemetry, f"{operation} {origin.model}", attributes, error, seconds)

    def close(self) -> None:
        """Export what waits, within the time that the settings allow, and end."""
        with self._lock:
            telemetry, self._telemetry = self._telemetry, None
        if telemetry is not None:
            telemetry.close()

    # Inside

    @property
    def _settings(self) -> OtelSettings:
        assert self._plan is not None
        return self._plan.settings

    def _opened(self) -> Telemetry | None:
        """Return what is reported to, made when it is first needed; `None` where it cannot be made."""
        with self._lock:
            if self._telemetry is None and self._plan is not None:
                from stillhouse_otel.telemetry import Telemetry

                try:
                    self._telemetry = Telemetry(self._plan)
                    atexit.register(_close, weakref.ref(self))
                except Exception as error:  # such as a variable of the environment that is no number
                    self._plan = None
                    problem = cleaned(f"{type(error).__name__}: {error}")
                    logger.warning("no telemetry: OpenTelemetry cannot be set up: %s", problem)
            return self._telemetry

    def _add_content(
        self, attributes: dict[str, Any], input: FormattedInput | None, output: GenerateOutput | None
    ) -> None:
        most = self._settings.content_length
        if input is not None:
            attributes["gen_ai.input.messages"] = shown_input(input, most)
        if output is not None:
            attributes["gen_ai.output.messages"] = shown_output(output, most)

    def _end_span(
        self,
        telemetry: Telemetry,
        name: str,
        attributes: dict[str, Any],
        error: GenerationError | None,
        seconds: float,
    ) -> None:
        """Make the span of a row that has its result: it ends now, and began so many seconds ago."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        run = _current_run.get()
        now = time.time_ns()
        span = telemetry.tracer.start_span(
            name,
            context=None if run is None else set_span_in_context(run),
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=now - int(seconds * 1e9),
        )
        if error is not None:
            # What an error says may quote the prompt.
            said = error.message if self._settings.capture_content else None
            span.set_status(Status(StatusCode.ERROR, said and cut(said, self._settings.content_length)))
        span.end(now)


def _close(hooks: weakref.ref[OtelHooks]) -> None:
    found = hooks()
    if found is not None:
        found.close()
