"""`stoppable`: a signal that asks a process to end lets its run end with what is in flight."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from stillhouse._execution.stopping import Stop

__all__ = ["ENDING_SIGNALS", "stoppable"]

# SIGBREAK exists on Windows only, SIGHUP everywhere else.
ENDING_SIGNALS = ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP")


@contextlib.contextmanager
def stoppable(
    names: tuple[str, ...] = ENDING_SIGNALS,
    on_stop: Callable[[], None] = lambda: None,
    stop: Stop | None = None,
) -> Iterator[Stop]:
    """Let the first signal end the run with what is in flight, and the second one at once.

    After the first one nothing more is sent. Any further one does what it did before this block, or raises
    `KeyboardInterrupt`.

    Requests in flight are paid for: waiting for them takes seconds, dropping them means paying again.
    On a thread other than the main one, which cannot handle signals, nothing is changed.

    Args:
        names: the signals.
        on_stop: called by the first one.
        stop: what the first one requests, where somebody else may request it too.

    Yields:
        The request.
    """
    request = Stop() if stop is None else stop
    is_first = True

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal is_first
        if not is_first:
            earlier = previous.get(signal.Signals(number))
            if callable(earlier):
                earlier(number, frame)
            raise KeyboardInterrupt
        is_first = False
        request.request()
        on_stop()

    previous: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        previous = _install(names, handle)
    try:
        yield request
    finally:
        for number, handler in previous.items():
            # It is `None` if it was not installed from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _install(
    names: tuple[str, ...], handle: Callable[[int, FrameType | None], None]
) -> dict[signal.Signals, Any]:
    """Handle the signals, and return their earlier handlers."""
    previous = {}
    for name in names:
        number = getattr(signal, name, None)
        # `nohup` ignores SIGHUP, so that the command outlives its terminal.
        if number is None or (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
            continue
        previous[number] = signal.signal(number, handle)
    return previous
