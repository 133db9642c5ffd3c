"""`Deadlines`: the time limit of every attempt, with one timer for all of them."""

from __future__ import annotations

import asyncio

__all__ = ["Deadlines"]

MAX_INTERVAL_SECONDS = 1.0
SHARE = 0.1
"""How late an attempt may be ended, as a share of its time limit."""


class Deadlines:
    """Cancels the tasks whose attempts take too long.

    A timer for each attempt costs more than the rest of its accounting, and nearly none of them ever
    fires. So one timer looks at all attempts, often enough that none takes a tenth longer than it may.

    Attributes:
        ends: when the attempt of each task must have ended, in the loop's time. Whoever begins an
            attempt enters it here and calls `watch`; whoever ends one removes it.
    """

    def __init__(self, seconds: float) -> None:
        self.ends: dict[asyncio.Task[object], float] = {}
        self.is_watching = False
        self._loop = asyncio.get_running_loop()
        self._interval = min(MAX_INTERVAL_SECONDS, max(seconds * SHARE, 0.001))
        self._timer: asyncio.TimerHandle | None = None
        self._ended: set[asyncio.Task[object]] = set()

    def watch(self) -> None:
        """Start the timer, unless it is running."""
        if not self.is_watching:
            self.is_watching = True
            self._timer = self._loop.call_later(self._interval, self._look)

    def has_ended(self, task: asyncio.Task[object]) -> bool:
        """Check whether a `CancelledError` in this task came from here and from nobody else."""
        if task not in self._ended:
            return False
        self._ended.discard(task)
        return not task.uncancel()

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        for task, end in self.ends.items():
            if end <= now and task not in self._ended:
                self._ended.add(task)
                task.cancel()
        self.is_watching = bool(self.ends)
        if self.is_watching:
            self._timer = self._loop.call_later(self._interval, self._look)
