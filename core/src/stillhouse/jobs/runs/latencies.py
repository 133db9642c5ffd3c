"""`Latencies`: how long rows took, in classes, so that millions of them take no more memory."""

from __future__ import annotations

import math
from collections import Counter

__all__ = ["Latencies"]


class Latencies:
    """The seconds from the submission of each row to its answer.

    Args:
        resolution: how many classes there are for each factor of e: 50 tell values 2 percent apart.
    """

    def __init__(self, resolution: int = 50) -> None:
        self._resolution = resolution
        self._counts: Counter[int] = Counter()

    def add(self, seconds: float | None) -> None:
        """Count a row; one that took no time, or nobody knows how long, was not generated here."""
        if seconds and 0 < seconds < math.inf:
            self._counts[math.floor(math.log(seconds) * self._resolution)] += 1

    def add_all(self, other: Latencies) -> None:
        """Count the rows of another one, of the same resolution, as well."""
        self._counts += other._counts

    def percentile(self, share: float) -> float | None:
        """Return the seconds that this share of the rows does not exceed; `None` without any row."""
        wanted, seen = share * self._counts.total(), 0
        for key, count in sorted(self._counts.items()):
            seen += count
            if seen >= wanted:
                return math.exp((key + 0.5) / self._resolution)
        return None
