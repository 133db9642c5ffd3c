"""`Restored`: what a state that was restored from a copy has, and what may be paid for again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from stillhouse._wording import duration, moment, number_of
from stillhouse.jobs.copies.marks import Mark

__all__ = ["Restored"]


@dataclass(frozen=True)
class Restored:
    """What a state that was restored from a copy has.

    Attributes:
        mark: that of the copy.
        url: where the copy is, without secrets.
        rows: the finished rows in it.
        aside: where the older state is that was in its place; `None` if there was none.
        owns_output: whether that one knew the output as its own.
    """

    mark: Mark
    url: str
    rows: int
    aside: Path | None
    owns_output: bool = False

    def lines(self) -> list[str]:
        """Say what was restored, how old it is, and what may be paid for again."""
        mark = self.mark
        age = duration(max(0.0, time.time() - mark.taken))
        lines = [
            f"state restored from {self.url}: the copy of {moment(mark.taken)}, {age} old, with "
            f"{number_of(self.rows, 'finished row')}"
        ]
        if not mark.is_final:
            lines += [self._repeats(), "if that process is still running, it stops at its next copy"]
        if self.aside is not None:
            lines.append(f"the run had continued elsewhere; the older state is kept as {self.aside}")
        return lines

    def _repeats(self) -> str:
        mark = self.mark
        worker = f"process {mark.process} on {mark.host}"
        if mark.repeats is None:
            return (
                f"rows that {worker} finished after that copy, and up to {mark.window:,} in flight, may be "
                "generated and paid for again"
            )
        return (
            f"about {number_of(mark.repeats, 'row')} may be generated and paid for again: those that "
            f"{worker} finished after that copy, estimated from its pace, and those in flight"
        )
