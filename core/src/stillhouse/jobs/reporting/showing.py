"""`show_progress`: the progress of a run while it works, on a terminal or in a log."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import TextIO

from stillhouse.jobs.reporting.lines import LiveLine, PlainLines
from stillhouse.jobs.reporting.progress import Progress, Tracker

__all__ = ["display_on", "is_live", "show_progress", "watch"]

PLAIN_SECONDS = 0.5
LIVE_SECONDS = 0.2


@contextlib.contextmanager
def watch(tracker: Tracker, show: Callable[[Progress], object], *, every: float) -> Iterator[None]:
    """Show the progress of a run while the block works.

    A thread reads the statistics periodically, so that a row costs nothing and a stall is visible.

    Args:
        tracker: follows the run.
        show: called from that thread.
        every: seconds between two calls.
    """
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(every):
            show(tracker.now())

    thread = threading.Thread(target=tick, name="stillhouse-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def is_live(stream: TextIO) -> bool:
    """Whether a line on this stream can change: it is a terminal, and not a dumb one."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def display_on(stream: TextIO) -> LiveLine | PlainLines:
    """Return what shows the progress of a run on a stream: a line that changes where one can, else lines."""
    return LiveLine(stream, LIVE_SECONDS) if is_live(stream) else PlainLines(stream)


@contextlib.contextmanager
def show_progress(stream: TextIO, tracker: Tracker) -> Iterator[Callable[[str], None]]:
    """Show the progress as text while the block works: one live line on a terminal, else lines.

    A stream that can no longer be written ends the display, and not the run.

    Args:
        stream: where to.
        tracker: follows the run.

    Yields:
        Prints a text, from any thread, without breaking the line.
    """
    live = is_live(stream)
    display = display_on(stream)

    def show(progress: Progress) -> None:
        with contextlib.suppress(OSError, ValueError):
            display(progress)

    try:
        with watch(tracker, show, every=LIVE_SECONDS if live else PLAIN_SECONDS):
            yield display.note
    finally:
        with contextlib.suppress(OSError, ValueError):
            display.close()
