"""`Bucket`: a quota per minute that refills evenly."""

from __future__ import annotations

__all__ = ["BURST_SECONDS", "Bucket"]

BURST_SECONDS = 5.0
"""How much of a quota per minute may be used at once, as the seconds in which it refills."""


class Bucket:
    """A quota per minute that refills evenly. One request may overdraw it, and the next waits for that.

    Args:
        per_second: how fast it refills.
        now: the time of the event loop.
    """

    def __init__(self, per_second: float, now: float) -> None:
        self.set_rate(per_second)
        self._level = self.capacity
        self._updated = now

    def set_rate(self, per_second: float) -> None:
        """Set how fast it refills."""
        self.rate = per_second
        self.capacity = max(1.0, self.rate * BURST_SECONDS)

    def set_level(self, level: float, now: float, *, is_exact: bool) -> None:
        """Set what is left of the quota; if that is not exact, lower it at most."""
        self.wait(0, now)
        self._level = min(self.capacity, level) if is_exact else min(self._level, level)

    def wait(self, amount: float, now: float) -> float:
        """Return the seconds until `amount` may be taken; more than the capacity needs a full bucket."""
        self._level = min(self.capacity, self._level + (now - self._updated) * self.rate)
        self._updated = now
        missing = min(amount, self.capacity) - self._level
        return missing / self.rate if missing > 1e-9 else 0.0

    def take(self, amount: float) -> None:
        """Take an amount out of the quota, even if less is left."""
        self._level -= amount

    def correct(self, estimated: float, actual: float) -> None:
        """Replace an estimated amount that was taken by the actual one."""
        self._level = min(self.capacity, self._level + estimated - actual)
