"""Noticing that other programs keep the engine from computing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["Crowding", "waited_seconds"]

INTERVAL = 5.0
"""Seconds between two looks, at least."""

SHARE = 0.3
"""Of the time, for how much the threads of the process may have waited for a core, all together."""


class Crowding:
    """Warns, once, if other programs have the cores that the engine would compute with.

    Args:
        warn: takes the message.
    """

    def __init__(self, warn: Callable[[str], object]) -> None:
        self._warn: Callable[[str], object] | None = warn
        self._lock = threading.Lock()
        self._then = time.monotonic()
        self._waited = waited_seconds()

    def look(self) -> None:
        """Compare how long the threads waited with how long it is since the last look, from any thread."""
        now = time.monotonic()
        if self._warn is None or self._waited is None or now - self._then < INTERVAL:
            return
        if not self._lock.acquire(blocking=False):  # somebody looks
            return
        try:
            took, before = now - self._then, self._waited
            self._then, self._waited = now, waited_seconds()
            waited = 0.0 if self._waited is None else self._waited - before
            if self._warn is not None and waited > SHARE * took:
                self._warn(
                    f"llamacpp is slow because other programs use the processor: in {took:.0f} s its threads "
                    f"waited {waited:.0f} s for a core"
                )
                self._warn = None
        finally:
            self._lock.release()


def waited_seconds() -> float | None:
    """Return how long the threads of this process were ready to run and had no core, all together.

    Returns:
        `None` where the system does not say: only Linux does.
    """
    total, found = 0, False
    try:
        for thread in Path("/proc/self/task").iterdir():
            try:
                total += int((thread / "schedstat").read_text().split()[1])
            except FileNotFoundError:  # it has ended
                continue
            found = True
    except (OSError, ValueError, IndexError):
        return None
    return total / 1e9 if found else None
