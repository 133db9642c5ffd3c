"""What a run has so far. This is the runner's one seam: it knows no file and no database."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import sys
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from stillhouse.errors import GenerationError
from stillhouse.jobs.formats.rows import Row
from stillhouse.jobs.formats.writers import to_json
from stillhouse.jobs.store import lock
from stillhouse.jobs.store.columns import columns_of, output_of, tokens_of
from stillhouse.jobs.store.database import DONE, FAILED, QUEUED, StoreError, connect, store_path, translated
from stillhouse.jobs.store.members import Members
from stillhouse.jobs.store.places import check_side_files, check_state, reserve_path
from stillhouse.outputs import merge_responses
from stillhouse.protocols import RowWriter
from stillhouse.typing import GenerateOutput

__all__ = ["Part", "RunStore", "SqliteStore", "Stored", "StreamStore"]

# How long what was committed may stay in the system's cache, where only the end of the machine
# loses it.
SYNC_SECONDS = 1.0

# Kept free for the results that come in when the disk is full.
RESERVE_BYTES = 4 << 20


class Part(NamedTuple):
    """Rows that need equally many generations.

    Attributes:
        made: how many there are already.
        wants: whether a row, by its index, is one of them.
    """

    made: int
    wants: Callable[[int], bool]


class RunStore(Protocol):
    """Takes every row, with what became of it.

    Attributes:
        ordered: whether rows must come in the order of the input. A store that can put them in
            order itself takes them as they are finished.
        problem: why it will soon take no more rows: none is to be started, and those in flight
            are still taken in. `None` while there is no reason.
        members: keeps what the members of a composite LLM give; `None` if it is none, or nothing
            is kept.
    """

    ordered: bool
    problem: StoreError | None
    members: Members | None

    def parts(self) -> list[Part]:
        """The rows that are not finished."""

    def put(self, row: Row, result: GenerateOutput | GenerationError, seconds: float | None) -> None:
        """Take a row in.

        Args:
            row: the row.
            result: its output, or its error.
            seconds: how long the call took: 0 where there was none, `None` for a batch.
        """

    def commit(self) -> None:
        """Make sure that nothing that was taken in is lost."""


class StreamStore:
    """Writes rows as they come, in their order, and keeps nothing: for standard output.

    Args:
        writer: where to.
        model_name: the model's name, for every row.
    """

    ordered = True
    problem: StoreError | None = None
    members: Members | None = None

    def __init__(self, writer: RowWriter, model_name: str) -> None:
        self._writer = writer
        self._model_name = model_name

    def parts(self) -> list[Part]:
        return [Part(0, lambda _: True)]

    def put(self, row: Row, result: GenerateOutput | GenerationError, seconds: float | None) -> None:
        if isinstance(result, GenerationError):
            columns = columns_of(result.outputs[0] if result.outputs else None, result, self._model_name)
        else:
            columns = columns_of(result, None, self._model_name)
        self._writer.write({**row.columns, **columns})

    def commit(self) -> None:
        pass


@dataclass(frozen=True)
class Stored:
    """A finished row as the store has it.

    Attributes:
        index: its place in the input.
        digest: that of the row when it was sent.
        columns: the columns that the output gets.
    """

    index: int
    digest: int
    columns: dict[str, Any]


class SqliteStore:
    """A run in one SQLite file, which one process at a time works on.

    Args:
        output: the path of the output of the run.
        model_name: the model's name, for every row.
        restart: whether to forget an earlier run.
        prepare: called when no other process can work on the run any more, and nothing is forgotten
            yet.

    Attributes:
        path: the file.
        connection: the database, for reading.

    Raises:
        StoreError: another process works on it, or it cannot be used.
    """

    ordered = False

    def __init__(
        self,
        output: Path,
        model_name: str,
        restart: bool = False,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = store_path(output)
        self._model_name = model_name
        self.problem: StoreError | None = None
        self.members: Members | None = None
        self._buffer: list[tuple[Any, ...]] = []
        self._session = 0
        self._queued: set[int] = set()
        self._synced = time.monotonic()
        check_side_files(output)
        self._lock = lock.acquire(self.path)
        try:
            prepare()
            if restart:
                self._remove()
            self.connection = connect(self.path)
        except BaseException:
            self._lock.release()
            raise
        self._reserve = reserve_path(self.path)
        self._has_reserve = False

    def _remove(self) -> None:
        check_state(self.path)
        try:
            # The log goes first: one that is left without its database would be read into the next.
            for suffix in ("-wal", "-shm", ""):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"{self.path} cannot be replaced: {error.strerror}", hint="check the folder's permissions"
            ) from None

    @staticmethod
    def exists(output: Path) -> bool:
        """Whether there is a run of this output."""
        path = store_path(output)
        return path.exists() and path.stat().st_size > 0

    def start(self) -> None:
        """Note that this process works on the run from now on."""
        import importlib_metadata

        with self._transaction():
            cursor = self.connection.execute(
                "INSERT INTO sessions (started, process, host, version) VALUES (?, ?, ?, ?)",
                (time.time(), os.getpid(), socket.gethostname(), importlib_metadata.version("stillhouse")),
            )
            self._session = cursor.lastrowid or 0
        with contextlib.suppress(OSError):
            # One that a killed process left; without room for a new one the disk is full already, as
            # the first commit will say.
            self._reserve.unlink(missing_ok=True)
            with self._reserve.open("xb") as stream:
                self._has_reserve = True
                stream.write(bytes(RESERVE_BYTES))

    def close(self, outcome: str) -> None:
        """End the work of this process: `complete`, `interrupted`, `stopped` or `waiting`."""
        try:
            with contextlib.suppress(StoreError):  # the disk may be full
                self.commit()  # what an interrupt came between
            with contextlib.suppress(StoreError), self._transaction():
                self.connection.execute(
                    "UPDATE sessions SET ended = ?, outcome = ? WHERE session = ?",
                    (time.time(), outcome, self._session),
                )
            is_empty = self._session == 0 and self.get("command") is None
            self.connection.close()
            if is_empty:  # it never began
                self.path.unlink(missing_ok=True)
        finally:
            self._give_up_reserve()
            self._lock.release()

    def _give_up_reserve(self) -> bool:
        """Free the room that was kept; whether there was any."""
        had, self._has_reserve = self._has_reserve, False
        if had:
            self._reserve.unlink(missing_ok=True)
        return had

    # What was asked for

    def get(self, key: str) -> Any:
        """A fact about the run, or `None`."""
        with translated(self.path):
            found = self.connection.execute("SELECT value FROM info WHERE key = ?", (key,)).fetchone()
        return None if found is None else json.loads(found[0])

    def set(self, key: str, value: Any) -> None:
        """Note a fact about the run; JSON types."""
        with self._transaction():
            self.connection.execute(
                "INSERT INTO info VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (key, to_json(value)),
            )

    # Rows

    def parts(self) -> list[Part]:
        finished, made = bytearray(), array("H")
        with translated(self.path):
            last = self.connection.execute("SELECT max(row) FROM rows").fetchone()[0]
            if last is not None:
                finished = bytearray(last + 1)
                made = array("H", bytes(2 * (last + 1)))
                for row, state, count in self.connection.execute("SELECT row, state, made FROM rows"):
                    finished[row] = state != QUEUED
                    made[row] = count
        size = len(finished)
        self._queued = {row for row in range(size) if made[row] and not finished[row]}
        counts = {0, *(made[row] for row in self._queued)}

        def part(count: int) -> Part:
            def wants(row: int) -> bool:
                return count == 0 if row >= size else not finished[row] and made[row] == count

            return Part(count, wants)

        return [part(count) for count in sorted(counts)]

    def put(self, row: Row, result: GenerateOutput | GenerationError, seconds: float | None) -> None:
        earlier = self._partial(row.index)
        error = result if isinstance(result, GenerationError) else None
        if isinstance(result, GenerationError):
            state = FAILED
            made = [item for item in (earlier, *result.outputs) if item is not None]
            output = merge_responses(made, len(made))[0] if made else None
        else:
            state = DONE
            output = result if earlier is None else merge_responses([earlier, result], 2)[0]
        columns = columns_of(output, error, self._model_name)
        self._buffer.append((
            row.index, row.digest, state, error and error.kind, len(output["generations"]) if output else 0,
            to_json(columns), time.time(), seconds, *tokens_of(output),
        ))  # fmt: skip

    def _partial(self, row: int) -> GenerateOutput | None:
        """What an earlier attempt generated for a row that is queued again."""
        if row not in self._queued:
            return None
        with translated(self.path):
            (text,) = self.connection.execute("SELECT result FROM rows WHERE row = ?", (row,)).fetchone()
        return output_of(json.loads(text))

    def commit(self) -> None:
        if not self._buffer:
            return
        try:
            self._insert()
        except StoreError as error:
            # What was asked for is paid for: it gets the room that was kept for it.
            if not self._give_up_reserve():
                raise
            self.problem = error
            self._insert()

    def _insert(self) -> None:
        now = time.monotonic()
        through = now - self._synced > SYNC_SECONDS
        if through:
            self.connection.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            self.connection.executemany(
                "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", self._buffer
            )
        if self.members is not None:
            self.members.forget([row for row, _, state, *_ in self._buffer if state == DONE])
        self._buffer.clear()
        if through:
            self._synced = now
            self.connection.execute("PRAGMA synchronous = NORMAL")

    def stored(self) -> Iterator[Stored]:
        """Every row that was taken in, in the order of the input."""
        query = "SELECT row, digest, result FROM rows WHERE state != 0 ORDER BY row"
        with translated(self.path):
            for index, digest, text in self.connection.execute(query):
                yield Stored(index, digest, json.loads(text))

    def digests(self) -> Iterator[tuple[int, int]]:
        """Every row that was taken in, with its digest, in the order of the input."""
        with translated(self.path):
            yield from self.connection.execute("SELECT row, digest FROM rows ORDER BY row")

    def requeue(self, kinds: Iterable[str]) -> int:
        """Let the rows that failed with one of these kinds be generated again; how many there are.

        What was generated of them is kept: only what is missing is asked for.
        """
        wanted = list(kinds)
        with self._transaction():
            cursor = self.connection.executemany(
                "UPDATE rows SET state = ? WHERE state = ? AND kind = ?",
                [(QUEUED, FAILED, kind) for kind in wanted],
            )
        return cursor.rowcount

    def has_queued(self, limit: int | None) -> bool:
        """Whether rows are to be generated again, among the first so many."""
        query = "SELECT 1 FROM rows WHERE kind IS NOT NULL AND state = ? AND row < ?"
        with translated(self.path):
            found = self.connection.execute(query, (QUEUED, sys.maxsize if limit is None else limit))
            return found.fetchone() is not None

    def forget(self, rows: Iterable[int]) -> None:
        """Forget what is known of these rows."""
        with self._transaction():
            self.connection.executemany("DELETE FROM rows WHERE row = ?", ((row,) for row in rows))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with translated(self.path):
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self.connection.execute("ROLLBACK")
                raise
