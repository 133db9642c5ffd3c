"""The signals that ask a command to end, from its first moment to its last.

Nothing is imported here that takes time, so that they are handled early.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from stillhouse._execution.signals import handle_signals, restore_signals

__all__ = ["INTERRUPTED", "Interrupts", "handle_for_good", "handling", "interrupts"]

INTERRUPTED = 130

MAX_INTERRUPTS = 3


class Interrupts:
    """The requests to end that a command has received.

    One raises `KeyboardInterrupt`; while a run works, the first lets it end with what is in flight instead
    (see `stillhouse.jobs.launch.signals`). The third ends the process where it stands, in whatever it does to
    end properly: what is stored survives that.

    Attributes:
        count: how many there were.
        is_working: whether there is something to end properly; else any of them ends the process at once.
    """

    def __init__(self) -> None:
        self.count = 0
        self.is_working = True

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle one of the signals."""
        self.count += 1
        if not self.is_working or self.count >= MAX_INTERRUPTS:
            os._exit(INTERRUPTED)
        raise KeyboardInterrupt


_current = Interrupts()
_is_own_process = False


def interrupts() -> Interrupts:
    """Return the requests that the command now running has received."""
    return _current


def handle_for_good() -> Interrupts:
    """Handle the signals until the process has ended, so that none of them gives it another status.

    Nothing is at work yet.
    """
    global _is_own_process
    _is_own_process = True
    _current.is_working = False
    handle_signals(_current.handle)
    return _current


@contextmanager
def handling() -> Iterator[Interrupts]:
    """Handle the signals while the block runs.

    In the process of the command they are handled already, and on a thread other than the main one, which
    cannot handle signals, nothing is changed.
    """
    global _current
    import threading

    if _is_own_process or threading.current_thread() is not threading.main_thread():
        yield _current
        return
    earlier, _current = _current, Interrupts()
    previous = handle_signals(_current.handle)
    try:
        yield _current
    finally:
        restore_signals(previous)
        _current = earlier
