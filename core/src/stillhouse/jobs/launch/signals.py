"""`stoppable`: a signal that asks a process to end lets its run end with what is in flight."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["ENDING_SIGNALS", "stoppable"]

# SIGBREAK exists on Windows only, SIGHUP everywhere else.
ENDING_SIGNALS = ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP")


@contextlib.contextmanager
def stoppable(
    names: tuple[str, ...] = ENDING_SIGNALS, on_stop: Callable[[], None] = lambda: None
) -> Iterator[Callable[[], bool]]:
    """Let the first signal end the run with what is in flight, and the second one at once.

    Requests in flight are paid for: waiting for them takes seconds, dropping them means paying again.
    On a thread other than the main one, which cannot handle signals, nothing is changed.

    Args:
        names: the signals.
        on_stop: called by the first one.

    Yields:
        Whether there was one.
    """
    stopped = False

    def stop(number: int, frame: object) -> None:  # noqa: ARG001
        nonlocal stopped
        if stopped:
            raise KeyboardInterrupt
        stopped = True
        on_stop()

    previous = _install(names, stop) if threading.current_thread() is threading.main_thread() else {}
    try:
        yield lambda: stopped
    finally:
        for number, handler in previous.items():
            # It is `None` if it was not installed from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _install(names: tuple[str, ...], stop: Callable[[int, object], None]) -> dict[signal.Signals, Any]:
    """Handle the signals, and return their earlier handlers."""
    previous = {}
    for name in names:
        number = getattr(signal, name, None)
        # `nohup` ignores SIGHUP, so that the command outlives its terminal.
        if number is None or (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
            continue
        previous[number] = signal.signal(number, stop)
    return previous
