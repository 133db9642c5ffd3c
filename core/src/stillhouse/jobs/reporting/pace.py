"""`Pace`: the speed of a run of late, which is steadier and truer than its mean."""

from __future__ import annotations

from collections import deque

from stillhouse.jobs.runs.pace import WINDOW_SECONDS

__all__ = ["Pace"]

# Samples closer together than this count as one, so that the window holds few of them.
SAMPLE_SECONDS = 0.1


class Pace:
    """The rows and tokens per second of the last half minute, or since the beginning of a shorter run.

    Args:
        rows: how many were finished at the beginning.
    """

    def __init__(self, rows: int = 0) -> None:
        self._samples = deque([(0.0, rows, 0)])

    def add(self, seconds: float, rows: int, tokens: int) -> None:
        """Add how far the run is.

        Args:
            seconds: since the beginning.
            rows: finished so far.
            tokens: generated since then.
        """
        samples = self._samples
        if len(samples) > 1 and seconds - samples[-2][0] < SAMPLE_SECONDS:
            samples.pop()
        samples.append((seconds, rows, tokens))
        # The oldest sample is at least as old as the window, so that the window is covered whole.
        while len(samples) > 2 and samples[1][0] <= seconds - WINDOW_SECONDS:
            samples.popleft()

    @property
    def rows_per_second(self) -> float:
        """Rows that end per second."""
        return self._per_second(1)

    @property
    def tokens_per_second(self) -> float:
        """Tokens generated per second."""
        return self._per_second(2)

    def _per_second(self, place: int) -> float:
        first, last = self._samples[0], self._samples[-1]
        return (last[place] - first[place]) / max(last[0] - first[0], 1e-9)
