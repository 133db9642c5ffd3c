"""`RunState`: the state of a run, opened anew for each question, so that nothing of it is held or changed."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from stillhouse.jobs.store.database import (
    DONE,
    FAILED,
    QUEUED,
    DamagedError,
    StoreError,
    is_idle,
    read,
    translated,
)
from stillhouse.jobs.store.seals import is_sealed

__all__ = ["Result", "RunState", "results"]

T = TypeVar("T")

_STATES = {DONE: "done", FAILED: "failed", QUEUED: "queued"}


class Result(NamedTuple):
    """What the state has of a row.

    Attributes:
        row: its index.
        digest: that of the row when it was sent.
        state: `done`, `failed`, `queued` for a retry, or `damaged`.
        kind: of its error, or `None`.
        columns: the columns that the output gets; empty if they are damaged.
        finished: when, in seconds since 1970.
        seconds: how long the call took, or `None`.
        tokens: of the input and of the output, as far as they are known.
    """

    row: int
    digest: int
    state: str
    kind: str | None
    columns: dict[str, Any]
    finished: float
    seconds: float | None
    tokens: tuple[int | None, int | None]


class RunState:
    """The state of a run, for reading.

    A connection lives as long as one question: a process that begins to work on the run refuses a state that
    another one has open.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def version(self) -> str:
        """Another text when the state has changed."""
        stamps = []
        for suffix in ("", "-wal"):
            with contextlib.suppress(OSError):
                status = os.stat(f"{self.path}{suffix}")  # noqa: PTH116
                stamps.append(f"{status.st_ino}.{status.st_size}.{status.st_mtime_ns}")
        return "-".join(stamps)

    @contextlib.contextmanager
    def opened(self) -> Iterator[sqlite3.Connection]:
        """Open the state while the block runs; no file is created or changed, not even the index of a log.

        SQLite's errors become `StoreError` in the block.

        Raises:
            StoreError: it cannot be used, or a log that a killed process left cannot be read so.
        """
        idle = is_idle(self.path)
        try:
            # SQLite would otherwise create the index of a log, or bring it up to date.
            connection = read(self.path, "&readonly_shm=1")
        except StoreError:
            if idle or not self.path.is_file() or Path(f"{os.path.realpath(self.path)}-shm").exists():
                raise
            raise StoreError(
                f"the run's state {self.path} has a log without its index, which only a writer can read",
                hint=f"make the same command again, or copy {self.path.name}-shm as well",
            ) from None
        with contextlib.closing(connection), translated(self.path):
            connection.execute("BEGIN")  # every answer of a block is about one moment
            yield connection

    def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Return what a function says about the connection; it is asked again if the state was idle before.

        A state that no process works on is read without its locks: a process may begin meanwhile.

        Raises:
            StoreError: the state cannot be used.
        """
        was_idle = is_idle(self.path)
        try:
            with self.opened() as connection:
                return question(connection)
        except DamagedError:
            if not was_idle or is_idle(self.path):
                raise
        with self.opened() as connection:
            return question(connection)


def results(connection: sqlite3.Connection, rows: Sequence[int]) -> Iterator[Result]:
    """Yield what the state has of rows, one at a time, in the order given."""
    for row in rows:
        record = connection.execute("SELECT * FROM rows WHERE row = ?", (row,)).fetchone()
        if record is not None:
            yield _result(record)


def _result(record: Sequence[Any]) -> Result:
    row, digest, state, kind, _, text, finished, seconds, *tokens = record[:10]
    is_sound = is_sealed("rows", record)
    columns = None
    if is_sound:
        with contextlib.suppress(ValueError, RecursionError):
            columns = json.loads(text)
    if not isinstance(columns, dict):
        return Result(row, 0, "damaged", None, {}, 0.0, None, (None, None))
    word = _STATES.get(state, "damaged")
    return Result(row, digest, word, kind, columns, finished, seconds, (tokens[0], tokens[1]))
