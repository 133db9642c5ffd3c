"""`wait`: waits for events that other threads set."""

from __future__ import annotations

import threading
from time import monotonic

__all__ = ["wait"]

TURN_SECONDS = 0.5
"""How long one turn of a wait is: an interrupt, or another of the events, is noticed after it."""


def wait(seconds: float, event: threading.Event, *others: threading.Event) -> None:
    """Wait until one of the events is set, in short turns, so that an interrupt is noticed.

    Args:
        seconds: how long at most.
        event: the event that is expected, which is noticed at once.
        others: events that also end the wait.
    """
    ends = monotonic() + seconds
    while not (event.wait(TURN_SECONDS) or any(other.is_set() for other in others)) and monotonic() < ends:
        pass
