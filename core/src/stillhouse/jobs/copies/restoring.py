"""`StateCopy`: the copy of a run's state as it is when a process opens the run: used, or left alone."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from stillhouse._wording import duration, install_command
from stillhouse.errors import ConfigurationError
from stillhouse.jobs.copies.copying import StateCopier
from stillhouse.jobs.copies.facts import CopyFact, copy_of, new_id
from stillhouse.jobs.copies.marks import Mark
from stillhouse.jobs.copies.restored import Restored
from stillhouse.jobs.copies.target import CopyTarget
from stillhouse.jobs.formats.partial import PartialFolder
from stillhouse.jobs.store.database import QUEUED, DamagedError, StoreError, reading, store_path
from stillhouse.jobs.store.places import is_same_name, remove_state, written_places
from stillhouse.jobs.store.salvage import put_aside
from stillhouse.jobs.store.schema import SCHEMA_VERSION
from stillhouse.jobs.store.seals import facts_of
from stillhouse.jobs.store.store import SqliteStore
from stillhouse.jobs.store.written import is_marked

__all__ = ["CheckCommand", "StateCopy"]

# For so long after its last copy, a process is taken for one that works.
PATIENCE_SECONDS = 600.0

CheckCommand = Callable[[dict[str, Any], Iterable[tuple[int, int]]], None]
"""Refuses another command than that of a state, whose rows have these indexes and digests."""


class StateCopy:
    """The copy of the state of a run that a process opens; the process has the lock of the run.

    Args:
        url: the address of the copy, with its secrets.
        output: the output of the run.
        state: the state of the run.
        others: further paths that the copy must not have.
        restart: whether the run on this machine is discarded.

    Attributes:
        restored: what was restored; `None` if the state of this machine is used, or the run is new.

    Raises:
        ConfigurationError: the address cannot be read or written, has something that Stillhouse did not make,
            or has the copy of another run.
    """

    def __init__(
        self, url: str, output: Path, state: Path, others: Iterable[Path] = (), *, restart: bool = False
    ) -> None:
        self._output, self._state = output, state
        self._target = CopyTarget(url, f"{state.name}.gz")
        if self._target.is_one_of([*written_places(output, state), *others]):
            raise ConfigurationError(
                f"--state-copy: {self._target.shown} is a file that the run reads or writes",
                hint="give another address, on a disk that outlives this machine",
            )
        self.restored: Restored | None = None
        self._writer = new_id()
        self._there = self._target.read_mark()
        local, kind = _local(state)
        self._uses_copy = self._there is not None and not self._is_behind(self._there, local, kind, restart)
        self._has_local = kind in ("rows", "damaged")
        self._fact = CopyFact(new_id()) if restart or local is None else local
        self._target.probe(self._writer)

    def _is_behind(self, there: Mark, local: CopyFact | None, kind: _Kind, restart: bool) -> bool:
        """Whether the copy has nothing that the state of this machine does not have.

        Raises:
            ConfigurationError: the copy is that of another run, or another process may work on it.
        """
        is_same = local is not None and local.run == there.run
        if local is not None and local.knows(there):
            return True
        if is_same:
            self._check_ended(there)
        if restart:
            raise ConfigurationError(
                f"--state-copy: {self._target.shown} is the copy of a run of {there.output} that "
                f"{'continued elsewhere' if is_same else 'is not on this machine'}; --restart does not "
                "discard it",
                hint="remove that copy yourself, give another address, or leave out --restart",
            )
        if is_same or kind != "rows":
            return False
        raise ConfigurationError(
            f"--state-copy: {self._target.shown} is the copy of another run, of {there.output}",
            hint="give another address; each run, and each shard, needs a copy of its own",
        )

    def _check_ended(self, there: Mark) -> None:
        """Refuse to continue a run at which a process on another machine seems to be.

        Raises:
            ConfigurationError: there is one.
        """
        age = time.time() - there.taken
        if there.is_final or age > max(PATIENCE_SECONDS, 3 * there.due):
            return
        raise ConfigurationError(
            f"this run continues elsewhere: process {there.process} on {there.host} wrote the copy "
            f"{self._target.shown} {duration(max(0.0, age))} ago, which is newer than {self._state}",
            hint=f"wait until it ends; if it is dead, move {self._state} away to continue from the copy",
        )

    def restore(self, check: CheckCommand) -> Restored | None:
        """Put the state in the copy in the place of that of this machine, if the copy is newer.

        Args:
            check: refuses another command.

        Raises:
            ConfigurationError: the copy is not whole, cannot be used, or is of a run with another command.
        """
        if not self._uses_copy:
            return None
        folder = PartialFolder(self._state)
        try:
            part = folder.path / self._state.name
            mark = self._there = self._target.save(part)
            rows = self._checked(part, mark, check)
            aside, owns_output = None, False
            if self._has_local:
                owns_output = _owns(self._state, self._output)
                aside = put_aside(self._state, "older")
            elif self._state.exists():
                remove_state(self._state)
            # A log that is left without its database would be read into this one.
            for suffix in ("-wal", "-shm", "-journal"):
                Path(f"{self._state}{suffix}").unlink(missing_ok=True)
            os.replace(part, self._state)  # noqa: PTH105
        finally:
            folder.remove()
        self.restored = Restored(mark, self._target.shown, rows, aside, owns_output)
        return self.restored

    def _checked(self, part: Path, mark: Mark, check: CheckCommand) -> int:
        """Check the state of a copy, and return how many finished rows it has."""
        shown = self._target.shown
        if mark.schema != SCHEMA_VERSION:
            is_newer = mark.schema > SCHEMA_VERSION
            other = "a newer" if is_newer else "an earlier"
            raise ConfigurationError(
                f"--state-copy: the state in {shown} was written by {other} version of stillhouse (schema "
                f"{mark.schema}; this one knows {SCHEMA_VERSION} alone)",
                hint=install_command("stillhouse", options="--upgrade")
                if is_newer
                else "finish the run with that version, or give another address",
            )
        try:
            with reading(part) as connection:
                _check_schema(connection)
                facts, fact = facts_of(connection), copy_of(connection)
                if fact is None or fact.run != mark.run:
                    raise DamagedError("its record of its copies is missing")
                ((rows,),) = connection.execute("SELECT count(*) FROM rows WHERE state != ?", (QUEUED,))
                self._check_output(facts.get("output"))
                command = facts.get("command")
                if command is not None and _has_work(connection):
                    digests = connection.execute("SELECT row, digest FROM rows ORDER BY row")
                    self._check_command(command, digests, check)
        except StoreError as error:
            problem = error.message.replace(f"the run's state {part}", "the state in it")
            problem = problem.replace(str(part), "the state in it")
            raise ConfigurationError(
                f"--state-copy: {shown} cannot be used: {problem}",
                hint="put an earlier version of it back if the store keeps versions, or give another address",
            ) from None
        self._fact = fact
        return int(rows)

    def _check_output(self, owner: Any) -> None:
        # Beside its output, a state belongs to that output alone.
        is_beside = self._state == store_path(self._output)
        if isinstance(owner, str) and is_beside and not is_same_name(owner, self._output.name):
            raise ConfigurationError(
                f"--state-copy: {self._target.shown} is the copy of another run, of {owner}",
                hint=f"give -o {owner} to continue it, or another --state-copy",
            )

    def _check_command(
        self, command: dict[str, Any], digests: Iterable[tuple[int, int]], check: CheckCommand
    ) -> None:
        try:
            check(command, digests)
        except StoreError:
            raise
        except ConfigurationError as error:
            _, _, changes = error.message.partition("\n")
            more = ", with --extend if rows were added" if "--extend" in (error.hint or "") else ""
            raise ConfigurationError(
                f"--state-copy: {self._target.shown} is the copy of a run with other settings:\n{changes}",
                hint=f"repeat the command of that run to continue it{more}, or give another --state-copy; "
                "each run, and each shard, needs a copy of its own",
            ) from None

    def open_copier(
        self, *, stored: Callable[[], int], window: int, on_lost: Callable[[StoreError], None]
    ) -> StateCopier:
        """Return what copies the state; see `StateCopier` for the arguments."""
        return StateCopier(
            self._target, self._state, self._output.name, self._fact, self._there,
            writer=self._writer, stored=stored, window=window, on_lost=on_lost,
        )  # fmt: skip


_Kind = Literal["none", "blank", "rows", "damaged"]


def _local(state: Path) -> tuple[CopyFact | None, _Kind]:
    """Return what the state of this machine knows of its copies, and what kind of state it is."""
    if not SqliteStore.exists(state):
        return None, "none"
    try:
        with reading(state) as connection:
            fact = copy_of(connection)
            return fact, "rows" if _has_work(connection) else "blank"
    except DamagedError:
        return None, "damaged"


def _owns(state: Path, output: Path) -> bool:
    """Whether a run wrote an output that is as it was then, according to its state."""
    with contextlib.suppress(StoreError), reading(state) as connection:
        written = (fact for key, fact in facts_of(connection).items() if key.partition(" ")[0] == "written")
        return any(is_marked(output, fact["mark"]) for fact in written)
    return False


def _has_work(connection: sqlite3.Connection) -> bool:
    """Whether a row was finished or submitted."""
    if connection.execute("SELECT 1 FROM rows").fetchone() is not None:
        return True
    with contextlib.suppress(sqlite3.OperationalError):  # a run without batches has no such table
        return connection.execute("SELECT 1 FROM batch_chunks").fetchone() is not None
    return False


def _check_schema(connection: sqlite3.Connection) -> None:
    """Refuse a database that would do something by itself."""
    found = connection.execute("SELECT name FROM sqlite_master WHERE type NOT IN ('table', 'index')")
    if found.fetchone() is not None:
        raise DamagedError("it has tables that Stillhouse does not create")
