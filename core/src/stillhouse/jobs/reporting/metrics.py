"""`MetricsFile`: the progress of a run as a text file for Prometheus, which node_exporter's collector reads.

The file is written beside its place and moved there in one step, so that a reader never sees half of it.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from stillhouse.errors import ERROR_KINDS, ConfigurationError
from stillhouse.jobs.formats.targets import cannot_be_written, check_target, followed
from stillhouse.jobs.reporting.progress import Extent, Progress, Tracker
from stillhouse.jobs.reporting.showing import watch

if TYPE_CHECKING:
    from stillhouse.jobs.runs.statistics import RunStatistics

__all__ = ["METRICS_SECONDS", "MetricsFile", "Outcome", "RunLabels", "metrics_text"]

METRICS_SECONDS = 5.0
"""Between two versions of the file."""

MARKER = "# Metrics of a run of Stillhouse, which replaces this file."
"""The first line of each file, by which Stillhouse knows what it may replace."""

MAX_LABEL_CHARACTERS = 200

_OUTCOMES = ("running", "complete", "waiting", "interrupted", "stopped")

_logger = logging.getLogger("stillhouse.jobs")

Outcome = Literal["running", "complete", "waiting", "interrupted", "stopped"]


@dataclass(frozen=True)
class RunLabels:
    """What tells the series of a run from those of others on the same machine.

    Attributes:
        output: the output of the run, without credentials.
        llm: the name of the LLM.
        model: the name of the model.
        version: that of Stillhouse.
    """

    output: str
    llm: str
    model: str
    version: str


class MetricsFile:
    """A file of metrics of one run.

    Args:
        path: where it is. A link is followed.
        others: paths at which it may not be, such as the output.

    Raises:
        ConfigurationError: it cannot be written there, or the file there is not one of Stillhouse.
    """

    def __init__(self, path: Path, others: tuple[Path, ...] = ()) -> None:
        if str(path) in ("", ".", "-"):
            raise ConfigurationError(
                "--metrics: it is not the path of a file", hint="give one, such as run.prom"
            )
        self._given = path
        self._path = followed(path)
        check_target(self._path, hint="give --metrics the path of a file")
        if any(os.path.realpath(other) == os.path.realpath(path) for other in others):
            raise ConfigurationError(
                f"--metrics: {path} is also the output or the state of the run", hint="give another file"
            )
        # Not `.prom` at its end: a collector reads every file that ends so.
        self._partial = self._path.with_name(f".{self._path.name}.partial")
        self._finish: Callable[[Outcome], None] | None = None
        self._has_warned = False
        for place in (self._path, self._partial):
            self._check_own(place)
        try:
            with self._created():
                pass
            self._partial.unlink()
        except OSError as error:
            raise cannot_be_written(path, error) from None

    @contextlib.contextmanager
    def following(
        self,
        statistics: RunStatistics,
        extent: Extent,
        labels: RunLabels,
        copied: Callable[[], float | None] = lambda: None,
    ) -> Iterator[None]:
        """Write the file now, and every few seconds while the block works.

        Args:
            statistics: what the run updates.
            extent: how much there is to do.
            labels: of every series.
            copied: returns when the state was last copied, in seconds since 1970; `None` without a copy.

        Raises:
            ConfigurationError: it cannot be written now; later that is a warning.
        """
        tracker = Tracker(statistics, extent)

        def text(progress: Progress, outcome: Outcome) -> str:
            return metrics_text(progress, statistics.failed, statistics.skipped, labels, outcome, copied())

        try:
            self._write(text(tracker.now(), "running"))
        except OSError as error:
            raise cannot_be_written(self._given, error) from None
        try:
            with watch(tracker, lambda now: self._update(text(now, "running")), every=METRICS_SECONDS):
                yield
        finally:
            last = tracker.now()  # before the input is closed
            self._finish = lambda outcome: self._update(text(last, outcome))

    def finish(self, outcome: Outcome) -> None:
        """Write the file for the last time, if the run began to work."""
        if self._finish is not None:
            self._finish(outcome)
            self._finish = None

    def _update(self, text: str) -> None:
        try:
            self._write(text)
        except (OSError, ConfigurationError) as error:
            if not self._has_warned:
                self._has_warned = True
                why = error.strerror or error if isinstance(error, OSError) else error.message
                _logger.warning("%s cannot be written: %s; the run continues", self._given, why)

    def _write(self, text: str) -> None:
        self._check_own(self._path)
        try:
            with self._created() as stream:
                stream.write(text.encode("utf-8", errors="replace"))
            self._partial.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                self._partial.unlink(missing_ok=True)
            raise

    @contextlib.contextmanager
    def _created(self) -> Iterator[IO[bytes]]:
        """Create the file beside its place; one that a killed process left there is removed."""
        self._check_own(self._partial)
        self._partial.unlink(missing_ok=True)
        with self._partial.open("xb") as stream:
            yield stream

    def _check_own(self, path: Path) -> None:
        """Refuse to replace a file that Stillhouse did not write.

        Raises:
            ConfigurationError: it is another file.
        """
        marker = MARKER.encode()
        try:
            if not os.path.lexists(path):
                return
            head = b"?" if path.is_symlink() or not path.is_file() else _head(path, len(marker))
        except OSError as error:
            raise cannot_be_written(self._given, error) from None
        # A process may have ended while it wrote the first line.
        if head != marker and not (path == self._partial and marker.startswith(head)):
            raise ConfigurationError(
                f"--metrics: {path} exists, and is not a file of metrics that Stillhouse wrote",
                hint="give another file, or move it away",
            )


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(size)


def metrics_text(
    progress: Progress,
    failed: Mapping[str, int],
    skipped: int,
    labels: RunLabels,
    outcome: Outcome,
    copied: float | None = None,
) -> str:
    """Return the metrics of a run in Prometheus' text format.

    The number of series does not depend on the rows: there is one for each kind of error at most.

    Args:
        progress: how the run goes.
        failed: rows that failed, by the kind of their error.
        skipped: rows that were finished earlier.
        labels: of every series.
        outcome: how the run ended, or that it works.
        copied: when the state was last copied, in seconds since 1970; `None` without a copy.
    """
    failures = sum(failed.values())
    page = _Page(labels.output)
    named = {"llm": labels.llm, "model": labels.model, "version": labels.version}
    page.add("run_info", "gauge", "The run.", {_label(**named): 1})
    page.add(
        "run_outcome", "gauge", "1 for what the run does, or how this process ended it.",
        {_label(outcome=name): int(name == outcome) for name in _OUTCOMES},
    )  # fmt: skip
    page.add(
        "rows_total", "counter", "Rows by result, of this process; skipped: finished by an earlier one.",
        {
            _label(state="done"): progress.rows - failures,
            _label(state="failed"): failures,
            _label(state="skipped"): skipped,
        },
    )  # fmt: skip
    page.add(
        "row_failures_total", "counter", "Failed rows of this process, by the kind of the error.",
        {_label(kind=kind): failed[kind] for kind in ERROR_KINDS if failed.get(kind)},
    )  # fmt: skip
    page.add("rows_in_flight", "gauge", "Rows that are generated now.", {"": progress.in_flight})
    page.add("rows_expected", "gauge", "Rows of the run, possibly estimated.", {"": progress.total})
    page.add(
        "tokens_total", "counter", "Tokens of this process, as far as they are reported.",
        {_label(type="input"): progress.input_tokens, _label(type="output"): progress.output_tokens},
    )  # fmt: skip
    page.add("cost_dollars_total", "counter", "Cost of this process in USD.", {"": progress.cost})
    page.add("elapsed_seconds", "gauge", "Time since this process began.", {"": progress.seconds})
    left = progress.seconds_left if outcome == "running" else None
    page.add("remaining_seconds", "gauge", "Estimated time until the end.", {"": left})
    page.add(
        "state_copy_timestamp_seconds", "gauge", "When the state was last copied, in seconds since 1970.",
        {"": copied},
    )  # fmt: skip
    return page.text


class _Page:
    """The text of metrics."""

    def __init__(self, output: str) -> None:
        self._label = _label(output=output)
        self.text = f"{MARKER}\n"

    def add(self, name: str, kind: str, description: str, samples: Mapping[str, float | None]) -> None:
        """Add a metric: its samples, by their further labels. One without a value is left out."""
        known = {labels: value for labels, value in samples.items() if value is not None}
        if not known:
            return
        self.text += f"# HELP stillhouse_{name} {description}\n# TYPE stillhouse_{name} {kind}\n"
        for labels, value in known.items():
            every = f"{self._label},{labels}" if labels else self._label
            self.text += f"stillhouse_{name}{{{every}}} {value!r}\n"


def _label(**labels: str) -> str:
    """Return labels as the text format has them."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    """Return the value of a label: bounded, and without characters that end it or that are not printed."""
    text = "".join(
        character if character.isprintable() else "?" for character in value[:MAX_LABEL_CHARACTERS]
    )
    return text.replace("\\", r"\\").replace('"', r"\"")
