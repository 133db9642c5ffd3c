"""`Ordered`: the rows of a run in the order that the engine prefers, by way of a temporary database."""

from __future__ import annotations

import contextlib
import pickle
import sqlite3
from collections.abc import Callable, Iterator
from typing import NamedTuple

from stillhouse._execution.order import sort_key
from stillhouse.async_llm import AsyncLLM
from stillhouse.errors import GenerationError
from stillhouse.jobs.formats.rows import Row
from stillhouse.jobs.store.database import StoreError
from stillhouse.llm import LLM
from stillhouse.protocols import InputWithArguments
from stillhouse.typing import FormattedInput

__all__ = ["Ordered", "Wanted"]

# How many rows go into the database with one call.
_TOGETHER = 500

_SCHEMA = """
PRAGMA journal_mode = OFF;         -- nothing in it is ever needed again
PRAGMA synchronous = OFF;
PRAGMA temp_store = FILE;          -- for sorting, too
CREATE TABLE inputs (place INTEGER PRIMARY KEY, own BLOB, key, input BLOB NOT NULL);
"""


_Record = tuple[bytes | None, int | bytes | None, bytes]
"""The parameters of its own, the key, and the row with its input."""


class Wanted(NamedTuple):
    """A row that has no result yet.

    Attributes:
        row: the row; once it was put in order, with its columns only where a hook may look at them.
        input: what is made of it, or the error that says why nothing is.
    """

    row: Row
    input: FormattedInput | InputWithArguments | GenerationError


class Ordered:
    """Rows in the order of `LLM.batch_key`; those with the same key stay in that of the input.

    If one call takes several rows, rows with equal parameters of their own are next to each other.

    The inputs wait in an unnamed temporary database, which the system removes with the process, so that
    memory does not grow with their number. Rows without an input come first, as they are read.

    Args:
        llm: the LLM.
        rows: the rows, in the order of the input.
        is_ending: once it returns true, no further row is given.

    Attributes:
        problem: why the database could not be used; the rows have ended early then.
    """

    def __init__(self, llm: LLM, rows: Iterator[Wanted], is_ending: Callable[[], bool]) -> None:
        self._llm = llm
        self._rows = rows
        self._is_ending = is_ending
        self._keeps_columns = not llm.registry.hooks().empty
        self._takes_several = not isinstance(llm, AsyncLLM)
        self.problem: StoreError | None = None

    def __iter__(self) -> Iterator[Wanted]:
        # The error must not end the iteration of those who wait for what is in flight.
        try:
            with contextlib.closing(sqlite3.connect("", isolation_level=None)) as database:
                database.executescript(_SCHEMA)
                yield from self._spool(database)
                if not self._is_ending():
                    yield from self._sorted(database)
        except sqlite3.Error as error:
            self.problem = _unusable(error)
            self.problem.__cause__ = error

    def _spool(self, database: sqlite3.Connection) -> Iterator[Wanted]:
        """Put every row into the database that has an input which can wait there, and yield the others."""
        records: list[_Record] = []
        for row, input in self._rows:
            if isinstance(input, GenerationError):
                yield Wanted(row, input)
                continue
            key = sort_key(self._llm.batch_key, input)
            columns = row.columns if self._keeps_columns else {}
            try:
                content = pickle.dumps((row.index, row.line, columns, row.digest, input), protocol=5)
                own = None
                if self._takes_several and isinstance(input, InputWithArguments):
                    own = repr(input.key).encode("utf-8", "surrogatepass")
            except Exception:  # one that is nested too deep, say: it need not wait
                yield Wanted(row, input)
                continue
            records.append((own, key, content))
            if len(records) == _TOGETHER:
                _insert(database, records)
        _insert(database, records)

    def _sorted(self, database: sqlite3.Connection) -> Iterator[Wanted]:
        # The keys are sorted without the inputs, which are much larger.
        for (place,) in database.execute("SELECT place FROM inputs ORDER BY own, key, place"):
            if self._is_ending():
                return
            query = "SELECT input FROM inputs WHERE place = ?"
            (content,) = database.execute(query, (place,)).fetchone()
            # Nobody else can reach the database.
            index, line, columns, digest, input = pickle.loads(content)  # noqa: S301
            yield Wanted(Row(index, line, columns, digest=digest), input)


def _insert(database: sqlite3.Connection, records: list[_Record]) -> None:
    database.execute("BEGIN")
    database.executemany("INSERT INTO inputs (own, key, input) VALUES (?, ?, ?)", records)
    database.execute("COMMIT")
    records.clear()


def _unusable(error: sqlite3.Error) -> StoreError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    what = "is full" if code == sqlite3.SQLITE_FULL else f"cannot be used: {error}"
    return StoreError(
        f"the disk for temporary files, where the inputs are put in the engine's order, {what}",
        hint="make room there, name another folder in SQLITE_TMPDIR, or leave out --batch; no finished "
        "row is lost; repeat the command to resume",
    )
