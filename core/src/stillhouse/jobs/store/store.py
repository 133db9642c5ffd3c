"""`SqliteStore`: a run in one SQLite file, written by the one process that has its lock.

Over 300 lines: it is one class, and every statement on the rows of a run is in it.
"""

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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse._execution.stopping import has_stopped
from stillhouse.errors import GenerationError
from stillhouse.jobs.formats.rows import Row
from stillhouse.jobs.formats.writers import to_json
from stillhouse.jobs.store.columns import (
    FinishedRow,
    Tokens,
    columns_of,
    output_of,
    tokens_of,
    unstorable,
    usable,
)
from stillhouse.jobs.store.database import (
    DONE,
    FAILED,
    QUEUED,
    DamagedError,
    Outcome,
    StoreError,
    store_path,
    translated,
)
from stillhouse.jobs.store.lock import RunLock
from stillhouse.jobs.store.places import is_same_name, reserve_path, take
from stillhouse.jobs.store.protocol import Part, Repeated
from stillhouse.jobs.store.salvage import open_sound
from stillhouse.jobs.store.seals import is_sealed, row_seal, sealed
from stillhouse.jobs.store.upkeep import Upkeep
from stillhouse.outputs import count_of, merge_responses
from stillhouse.typing import GenerateOutput

if TYPE_CHECKING:
    from stillhouse.jobs.selection.repeats import Repeat
    from stillhouse.jobs.store.members import MemberCache

__all__ = ["SqliteStore"]

# Kept free for the results that come in when the disk is full.
RESERVE_BYTES = 4 << 20

# Seconds between two records of a fact that changes.
RECORD_SECONDS = 1.0

_INSERT = "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class SqliteStore:
    """A run in one SQLite file, which one process at a time works on.

    Args:
        output: the path of the output of the run.
        model_name: the model's name, for every row.
        held: the lock of the run, if the caller has it already; otherwise it is acquired here.
        state: the file, if it is not next to the output; then several outputs may share it.

    Attributes:
        path: the file.
        connection: the database; see `reading`.
        stored: how many results this process stored.
        told: messages about damage to the state, in the order of detection.

    Raises:
        StoreError: another process works on the run, or its state cannot be used, or is that of another
            output.
    """

    ordered = False

    def __init__(
        self, output: Path, model_name: str, held: RunLock | None = None, state: Path | None = None
    ) -> None:
        self.path = store_path(output) if state is None else state
        self._model_name = model_name
        self.problem: StoreError | None = None
        self.members: MemberCache | None = None
        self.stored = 0
        self._buffer: list[tuple[Any, ...]] = []
        self._session: tuple[Any, ...] = ()
        self._queued: set[int] = set()
        self._recorded: dict[str, Callable[[], Any]] = {}
        self._last_recorded = 0.0
        self._upkeep: Upkeep | None = None
        self._reserve = reserve_path(self.path)
        self._has_reserve = False
        # The lock counts its holders: a caller's hold on it outlasts that of the store.
        self._lock = take(self.path, held)
        try:
            self.connection, told = open_sound(self.path)
            self.told = [told] if told else []
        except BaseException:
            self._lock.release()
            raise
        try:
            self._check_owner(output)
        except BaseException:
            self.close("stopped")
            raise

    def _check_owner(self, output: Path) -> None:
        """Refuse the state of another output, and one that another process opened at the same time."""
        if not self._lock.is_in_place:
            raise StoreError(
                f"the lock of this run was removed while it was opened: {self._lock.path}",
                hint="make the same command again",
            )
        owner = self.get("output")
        if owner is None:
            self.set("output", output.name)
        elif self.path == store_path(output) and not is_same_name(owner, output.name):
            raise StoreError(
                f"{self.path} is the state of another output, {owner}: it was copied or renamed",
                hint=f"to resume that run, rename it to {owner}.run.db and give -o {owner}; to start "
                f"{output.name} over, give --restart",
            )

    @staticmethod
    def exists(state: Path) -> bool:
        """Whether a state is that of a run."""
        return state.exists() and state.stat().st_size > 0

    def start(self) -> None:
        """Record that this process works on the run from now on."""
        import importlib_metadata

        with self._transaction():
            ((number,),) = self.connection.execute("SELECT ifnull(max(session), 0) + 1 FROM sessions")
            version = importlib_metadata.version("stillhouse")
            command = to_json(self.get("command"))
            self._session = (
                number, time.time(), None, None, os.getpid(), socket.gethostname(), version, command
            )  # fmt: skip
            self._store_session()
        self._upkeep = Upkeep(self.path, self._lock, self._stop)
        try:
            # A killed process may have left one. Without room for a new one the disk is nearly full, and
            # the room that is left is for the rows.
            self._reserve.unlink(missing_ok=True)
            with self._reserve.open("xb") as stream:
                self._has_reserve = True
                stream.write(bytes(RESERVE_BYTES))
        except OSError:
            self.give_up_reserve()

    def _store_session(self) -> None:
        self.connection.execute(
            "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            sealed("sessions", *self._session),
        )

    def _stop(self, problem: StoreError) -> None:
        self.problem = problem

    def close(self, outcome: Outcome) -> None:
        """Commit what is left, record how the work of this process ended, and release the run."""
        is_empty = False
        try:
            with contextlib.suppress(StoreError):  # the disk may be full
                self.commit()  # results that an interrupt kept from being committed
            if self._session:
                number, started, _, _, *rest = self._session
                self._session = (number, started, time.time(), outcome, *rest)
                with contextlib.suppress(StoreError), self._transaction():
                    self._store_session()
            else:
                with contextlib.suppress(StoreError):
                    is_empty = self.is_blank and self.get("command") is None
        finally:
            if self._upkeep is not None:
                self._upkeep.close()
            self.connection.close()
            if is_empty:  # it never began
                with contextlib.suppress(OSError):  # Windows removes no file that another process has open
                    self.path.unlink(missing_ok=True)
            self.give_up_reserve()
            self._lock.release()

    def give_up_reserve(self) -> bool:
        """Free the disk space that was reserved for results, and return whether there was any."""
        had, self._has_reserve = self._has_reserve, False
        if had:
            with contextlib.suppress(OSError):  # as above
                self._reserve.unlink(missing_ok=True)
        return had

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Provide the database for reading; SQLite's errors become `StoreError` in the block."""
        with translated(self.path):
            yield self.connection

    # The facts of the run

    def get(self, key: str) -> Any:
        """Return a fact about the run, or `None`."""
        with translated(self.path):
            found = self.connection.execute("SELECT * FROM info WHERE key = ?", (key,)).fetchone()
        if found is None:
            return None
        if not is_sealed("info", found):
            raise _damaged(self.path)
        return json.loads(found[1])

    def set(self, key: str, value: Any) -> None:
        """Record a fact about the run; JSON types."""
        with self._transaction():
            self._put_fact(key, value)

    def _put_fact(self, key: str, value: Any) -> None:
        self.connection.execute(
            "INSERT OR REPLACE INTO info VALUES (?, ?, ?)", sealed("info", key, to_json(value))
        )

    def record(self, key: str, value: Callable[[], Any]) -> None:
        """Record a fact that changes now, and each second with the rows; JSON types."""
        self._recorded[key] = value
        self.set(key, value())

    def record_now(self) -> None:
        """Record these facts as they are at this moment."""
        for key, value in self._recorded.items():
            self.set(key, value())

    @property
    def session(self) -> int:
        """The number of the present session, from 1; 0 before `start`."""
        return self._session[0] if self._session else 0

    @property
    def known_rows(self) -> int:
        """Number of rows in the state, including queued ones."""
        with translated(self.path):
            count: int = self.connection.execute("SELECT count(*) FROM rows").fetchone()[0]
        return count

    @property
    def is_blank(self) -> bool:
        """Whether no row was ever stored and no output written."""
        with translated(self.path):
            has_rows = self.connection.execute("SELECT 1 FROM rows").fetchone() is not None
        return not has_rows and self.get("complete") is None

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
        try:
            record = self._record(row, result, seconds)
        except StoreError:
            raise
        except Exception as error:  # one row, whatever is in it, ends no run
            record = self._failed((row.index, row.digest), error, seconds, _tokens_of(result))
        self._buffer.append(record)

    def _record(
        self, row: Row, result: GenerateOutput | GenerationError, seconds: float | None
    ) -> tuple[Any, ...]:
        """Return the row of the database for a result."""
        earlier = self._partial(row.index)
        error = result if isinstance(result, GenerationError) else None
        if isinstance(result, GenerationError):
            state = QUEUED if has_stopped(result) else FAILED
            made = [item for item in (earlier, *usable(result.outputs)) if item is not None]
            output = merge_responses(made, len(made))[0] if made else None
        else:
            state = DONE
            output = result if earlier is None else merge_responses([earlier, result], 2)[0]
        columns = columns_of(output, error, self._model_name)
        kind = None if error is None else str.__str__(error.kind)  # exactly a text, whatever a plugin gives
        return _sealed_row(
            row.index, row.digest, state, kind, len(output["generations"]) if output else 0,
            to_json(columns), time.time(), _number(seconds), *tokens_of(output),
        )  # fmt: skip

    def _failed(
        self, place: tuple[Any, ...], error: Exception, seconds: Any, tokens: Iterable[Any]
    ) -> tuple[Any, ...]:
        """Return the row of the database for a result that the database cannot hold."""
        failure = unstorable(error)
        text = to_json(columns_of(None, failure, self._model_name))
        return _sealed_row(
            *place, FAILED, failure.kind, 0, text, time.time(), _number(seconds), *map(_storable, tokens)
        )

    def _partial(self, row: int) -> GenerateOutput | None:
        """Return what an earlier attempt generated for a row that is queued again."""
        if row not in self._queued:
            return None
        with translated(self.path):
            record = self.connection.execute("SELECT * FROM rows WHERE row = ?", (row,)).fetchone()
        if record is None or not is_sealed("rows", record):
            raise _damaged(self.path)
        return output_of(json.loads(record[5]))

    def repeat(self, repeat: Repeat) -> Repeated | None:
        """Give a row the result of the row that it repeats; return `None` if that row has no result.

        Its statistics name the repeated row, and have no tokens, because it used none.
        """
        query = "SELECT * FROM rows WHERE row = ?"
        with translated(self.path):
            first = self.connection.execute(query, (repeat.first,)).fetchone()
            own = self.connection.execute(query, (repeat.row,)).fetchone()
        if first is None or first[2] == QUEUED or not is_sealed("rows", first):
            return None
        columns = json.loads(first[5])
        if columns["statistics"] is not None:
            columns["statistics"] = {"duplicate_of": [repeat.first + 1]}
        record = _sealed_row(
            repeat.row,
            repeat.digest,
            *first[2:5],
            to_json(columns),
            first[6],
            0.0,
            *[None] * len(Tokens._fields),
        )
        if record != own:
            self._buffer.append(record)
        return Repeated(columns, first[3], record != own)

    def commit(self) -> None:
        if not self._buffer:
            return
        try:
            self._insert()
        except StoreError as error:
            # These results are paid for: they get the room that was kept for them.
            if not self.give_up_reserve():
                raise
            self.problem = error
            self._insert()

    def _insert(self) -> None:
        now = time.monotonic()
        with self._transaction():
            if self._recorded and now >= self._last_recorded + RECORD_SECONDS:
                self._last_recorded = now
                for key, value in self._recorded.items():
                    self._put_fact(key, value())
            try:
                self.connection.executemany(_INSERT, self._buffer)
            except Exception as error:
                if not _is_of_a_row(error):
                    raise
                self._insert_each()
        if self.members is not None:
            self.members.forget([row for row, _, state, *_ in self._buffer if state == DONE])
        self.stored += len(self._buffer)
        self._buffer.clear()

    def _insert_each(self) -> None:
        """Store the rows one by one, so that a row that cannot be stored does not affect the others."""
        for place, record in enumerate(self._buffer):
            try:
                self.connection.execute(_INSERT, record)
            except Exception as error:
                if not _is_of_a_row(error):
                    raise
                self._buffer[place] = self._failed(record[:2], error, record[7], record[8:-1])
                self.connection.execute(_INSERT, self._buffer[place])

    def finished_rows(self) -> Iterator[FinishedRow]:
        """Yield every finished row that is not damaged, in the order of the input."""
        with translated(self.path):
            for record in self.connection.execute("SELECT * FROM rows WHERE state != 0 ORDER BY row"):
                if row_seal(record[:-1]) == record[-1]:
                    yield FinishedRow(record[0], record[1], json.loads(record[5]), record[6])

    def digests(self) -> Iterator[tuple[int, int]]:
        """Yield the index and the digest of every stored row, in the order of the input."""
        with translated(self.path):
            yield from self.connection.execute("SELECT row, digest FROM rows ORDER BY row")

    def requeue(self, kinds: Iterable[str], *, of_session: bool = False) -> int:
        """Queue the rows that failed with one of these kinds for a retry, and return their number.

        Their generations are kept: only the missing ones will be requested.

        Args:
            kinds: the kinds of their errors.
            of_session: only those that failed since `start`.
        """
        count = 0
        since = self._session[1] if of_session and self._session else 0.0
        with self._transaction():
            for kind in kinds:
                found = self.connection.execute(
                    "SELECT * FROM rows WHERE state = ? AND kind = ? AND finished >= ?", (FAILED, kind, since)
                )
                queued = [
                    (QUEUED, row_seal((*record[:2], QUEUED, *record[3:-1])), record[0])
                    for record in found
                    if is_sealed("rows", record)
                ]
                self.connection.executemany("UPDATE rows SET state = ?, seal = ? WHERE row = ?", queued)
                count += len(queued)
        return count

    def has_queued(self, limit: int | None) -> bool:
        """Whether rows below the limit are queued for a retry."""
        query = "SELECT 1 FROM rows WHERE kind IS NOT NULL AND state = ? AND row < ?"
        with translated(self.path):
            found = self.connection.execute(query, (QUEUED, sys.maxsize if limit is None else limit))
            return found.fetchone() is not None

    def forget(self, rows: Iterable[int]) -> None:
        """Delete the stored results of these rows."""
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


def _number(seconds: float | None) -> float | None:
    """Return a number as a column of such returns it: a whole one is one with a fraction as well."""
    return None if seconds is None else float(seconds)


def _sealed_row(*columns: Any) -> tuple[Any, ...]:
    """Return a record of the table `rows` with its seal."""
    return *columns, row_seal(columns)


def _damaged(path: Path) -> DamagedError:
    return DamagedError(
        f"the run's state {path} is damaged",
        hint="make the same command again: it keeps every row that can be read",
    )


def _is_of_a_row(error: Exception) -> bool:
    """Whether an error says that a value cannot be stored, and nothing about the database."""
    return not isinstance(error, sqlite3.Error) or isinstance(
        error, (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
    )


def _tokens_of(result: GenerateOutput | GenerationError) -> Iterable[Any]:
    """Return the tokens of a result that may be anything."""
    try:
        return tokens_of(*(result.outputs if isinstance(result, GenerationError) else (result,)))
    except Exception:
        return (None,) * len(Tokens._fields)


def _storable(value: Any) -> Any:
    return value if type(value) is float else count_of(value)
