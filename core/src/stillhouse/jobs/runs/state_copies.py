"""The copy of a run's state: looked at when the run is opened, and written while it works."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse.jobs.runs.command import Command
from stillhouse.jobs.store.database import StoreError
from stillhouse.jobs.store.fingerprint import InputChanges, check_unchanged
from stillhouse.jobs.store.store import SqliteStore
from stillhouse.llm import LLM
from stillhouse.protocols import RowReader

if TYPE_CHECKING:
    from stillhouse.jobs.copies.copying import StateCopier
    from stillhouse.jobs.copies.restoring import CheckCommand, StateCopy

__all__ = ["begin_copying", "check_of", "state_copy_of"]


def state_copy_of(command: Command, output: Path, state: Path, reads: Iterable[Path]) -> StateCopy | None:
    """Look at the copy that a command names; `None` if it names none. `StateCopy` lists the errors."""
    if command.state_copy is None:
        return None
    from stillhouse.jobs.copies.restoring import StateCopy

    others = [*reads, *([] if command.metrics is None else [command.metrics])]
    return StateCopy(command.state_copy, output, state, others, restart=command.restart)


def check_of(now: dict[str, Any], source: RowReader, command: Command) -> CheckCommand:
    """Return what refuses a copy whose run has another command than this one."""

    def check(before: dict[str, Any], digests: Iterable[tuple[int, int]]) -> None:
        check_unchanged(before, now, InputChanges(source, digests), extend=command.extend)

    return check


def begin_copying(
    copy: StateCopy, llm: LLM, store: SqliteStore, at_end: Callable[[Callable[[], object]], object]
) -> StateCopier:
    """Make the first copy of a state, and continue while the run works.

    Args:
        copy: as it was when the run was opened.
        llm: generates.
        store: the state.
        at_end: registers what ends the copying.

    Raises:
        ConfigurationError: the copy cannot be written.
    """

    def on_lost(problem: StoreError) -> None:
        store.problem = problem

    window = getattr(llm, "max_concurrency", None) or llm.preferred_batch_size
    copier = copy.open_copier(stored=lambda: store.stored, window=window, on_lost=on_lost)
    at_end(copier.stop)
    copier.start()
    return copier
