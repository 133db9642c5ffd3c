"""`CopyFact`: what a state knows of its copies, also for those who look at the run from another process."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from stillhouse.jobs.store.seals import facts_of

if TYPE_CHECKING:
    from stillhouse.jobs.copies.marks import Mark

__all__ = ["KEY", "CopyFact", "copy_of", "new_id"]

KEY = "state copy"
"""The name of the fact."""


def new_id() -> str:
    """Return a new name of a run or of a process."""
    import uuid

    return uuid.uuid4().hex


@dataclass(frozen=True)
class CopyFact:
    """What a state knows of its copies.

    Attributes:
        run: identifies the run.
        url: where the copy is, without secrets.
        taken: when the state of the last whole copy was read, in seconds since 1970; `None` before the first.
        problem: why the copy could not be replaced since then; `None` if it was not tried in vain.
        known: the processes whose copies were of this state, with the number of their last copy.
    """

    run: str
    url: str = ""
    taken: float | None = None
    problem: str | None = None
    known: Mapping[str, int] = field(default_factory=dict)

    def knows(self, mark: Mark) -> bool:
        """Whether a copy has nothing that this state does not have."""
        return self.run == mark.run and mark.number <= self.known.get(mark.writer, 0)

    def with_number(self, writer: str, number: int) -> CopyFact:
        """Return the fact of a state of which a process writes this copy."""
        return replace(self, known={**self.known, writer: number})

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def copy_of(connection: sqlite3.Connection) -> CopyFact | None:
    """Return what a state knows of its copies; `None` for a run without any."""
    match facts_of(connection).get(KEY):
        case {"run": str(run), "url": str(url), "known": dict(known), **more}:
            taken, problem = more.get("taken"), more.get("problem")
            return CopyFact(
                run,
                url,
                taken if isinstance(taken, (int, float)) else None,
                problem if isinstance(problem, str) else None,
                {name: number for name, number in known.items() if isinstance(number, int)},
            )
    return None
