"""`stoppable`: a signal that asks a process to end lets its run end with what is in flight."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from stillhouse._execution.signals import ENDING_SIGNALS, handle_signals, restore_signals
from stillhouse._execution.stopping import Stop

__all__ = ["stoppable"]


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
        previous = handle_signals(handle, names)
    try:
        yield request
    finally:
        restore_signals(previous)
