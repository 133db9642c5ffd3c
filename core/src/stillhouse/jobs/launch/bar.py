"""`PythonView`: how a run from Python is looked at: by a bar, or by a function of the caller's."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from stillhouse._execution.stopping import Stop
from stillhouse.jobs.launch.options import in_python
from stillhouse.jobs.launch.signals import stoppable
from stillhouse.jobs.reporting.notebook import NotebookBar, is_notebook
from stillhouse.jobs.reporting.progress import Extent, Progress, Tracker
from stillhouse.jobs.reporting.showing import is_live, show_progress, watch
from stillhouse.jobs.runs.bulk import BulkRun
from stillhouse.jobs.runs.looking import Look
from stillhouse.jobs.runs.online import RunStatistics

__all__ = ["PythonView", "asked_to_stop"]

_logger = logging.getLogger("stillhouse.jobs")

# Seconds between two calls of `on_progress`, and two changes of the bar.
PROGRESS_SECONDS = 0.5

asked_to_stop: ContextVar[Stop | None] = ContextVar("stillhouse_stop", default=None)
"""Set once a run on another thread shall stop: a signal reaches the main thread alone."""


class PythonView:
    """Shows a run in a bar, or by a function of the caller's."""

    def __init__(self, on_progress: Callable[[Progress], object] | None, show_bar: bool) -> None:
        self._on_progress, self._show_bar = on_progress, show_bar
        self._notes: Callable[[], list[str]] = list
        self._logged: set[str] = set()

    def reading(self, notes: Callable[[], list[str]]) -> None:
        """Log what is unusual about the input."""
        self._notes = notes
        self._log()

    def _log(self) -> None:
        for text in self._notes():
            if text not in self._logged:
                self._logged.add(text)
                _logger.info("%s", text)

    def looked(self, look: Look) -> None:
        """Tell the logger what was taken for the prompt."""
        for line in look.lines():
            _logger.info("%s", in_python(line))

    def opened(self, bulk: BulkRun) -> None:
        """Warn of damage to the state, and say nothing else: the caller has the result."""
        for text in bulk.store.told:
            warnings.warn(text, stacklevel=2)
        for text in [] if bulk.restored is None else bulk.restored.lines():
            _logger.info("%s", text)

    @contextlib.contextmanager
    def working(self, statistics: RunStatistics, extent: Extent) -> Iterator[Stop]:
        with self._shown(Tracker(statistics, extent)), _interruptible() as stop:
            yield stop
        self._log()

    @contextlib.contextmanager
    def _shown(self, tracker: Tracker) -> Iterator[None]:
        show: Callable[[Progress], object] | None = self._on_progress
        if show is None and self._show_bar and is_notebook():
            show = NotebookBar()
        if show is not None:
            shown = _Careful(show)
            try:
                with watch(tracker, shown, every=PROGRESS_SECONDS):
                    yield
            finally:  # also of a run that was interrupted, the last counts are shown
                shown(tracker.now())
        elif self._show_bar and sys.stderr is not None and is_live(sys.stderr):
            with show_progress(sys.stderr, tracker):
                yield
        else:
            yield


class _Careful:
    """A function of the caller's that shows the progress: an error of it ends no run, and is told once."""

    def __init__(self, show: Callable[[Progress], object]) -> None:
        self._show: Callable[[Progress], object] | None = show

    def __call__(self, progress: Progress) -> None:
        if self._show is None:
            return
        try:
            self._show(progress)
        except Exception as error:
            self._show = None
            warnings.warn(f"on_progress is not called again: {type(error).__name__}: {error}", stacklevel=2)


@contextlib.contextmanager
def _interruptible() -> Iterator[Stop]:
    """Take an interrupt as a request to stop, where it would raise `KeyboardInterrupt` in this thread."""
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with stoppable(("SIGINT",) if is_default else (), stop=asked_to_stop.get()) as stop:
        yield stop
