"""The share of a run's concurrency that this process may use, where several processes work for one run."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WHOLE", "Share", "set_share", "share"]


@dataclass(frozen=True)
class Share:
    """One of several equal parts.

    Attributes:
        number: which part, from 0.
        parts: how many there are.
    """

    number: int = 0
    parts: int = 1

    def of(self, whole: int) -> int:
        """Return this part of a whole number, at least 1; the parts together are the whole."""
        return max(1, whole // self.parts + (self.number < whole % self.parts))


WHOLE = Share()

_share = WHOLE


def share() -> Share:
    """Return the share of this process: the whole, unless it is a worker."""
    return _share


def set_share(part: Share) -> None:
    """Set the share of this process, before it loads an LLM."""
    global _share
    _share = part
