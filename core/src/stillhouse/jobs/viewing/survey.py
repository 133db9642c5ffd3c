"""`Survey`: how many rows of a run have a result, counted again only where the count can still change."""

from __future__ import annotations

import sqlite3
import time
from array import array

__all__ = ["BLOCK_ROWS", "Survey"]

BLOCK_ROWS = 4096
"""Rows of the input that are counted together."""


class Survey:
    """Counts the rows of a state by blocks of the input.

    Counting all rows reads the whole state. A block in which every row has a result is not counted again, so
    that a run that goes on costs one block or two; the others are counted in turn, for a bounded time.

    Attributes:
        is_whole: whether every block was counted since the state last changed.
    """

    def __init__(self) -> None:
        self._counts = array("L")
        self._next = 0
        self._version: object = None
        self.is_whole = False

    @property
    def rows(self) -> int:
        """The rows that were counted so far."""
        return sum(self._counts)

    def update(self, connection: sqlite3.Connection, version: object, seconds: float) -> None:
        """Count the blocks that may have changed, for a bounded time.

        Args:
            connection: the state.
            version: changes when the state does.
            seconds: how long at most; one block is counted in any case.
        """
        if version != self._version:
            self._version, self.is_whole, self._next = version, False, 0
            (last,) = connection.execute("SELECT max(row) FROM rows").fetchone()
            blocks = 0 if last is None else last // BLOCK_ROWS + 1
            if blocks < len(self._counts):  # the run was begun anew
                self._counts = array("L")
            self._counts.extend([0] * (blocks - len(self._counts)))
        ends = time.monotonic() + seconds
        while self._next < len(self._counts):
            block = self._next
            if self._counts[block] < BLOCK_ROWS:
                self._counts[block] = self._count(connection, block * BLOCK_ROWS, (block + 1) * BLOCK_ROWS)
            self._next += 1
            if time.monotonic() > ends:
                break
        self.is_whole = self._next >= len(self._counts)

    def place_of(self, connection: sqlite3.Connection, row: int) -> int | None:
        """Return how many rows of the state are before a row; `None` while the survey is not whole."""
        if not self.is_whole:
            return None
        block = row // BLOCK_ROWS
        return sum(self._counts[:block]) + self._count(connection, block * BLOCK_ROWS, row)

    def _count(self, connection: sqlite3.Connection, start: int, end: int) -> int:
        query = "SELECT count(*) FROM rows WHERE row >= ? AND row < ?"
        count: int = connection.execute(query, (start, end)).fetchone()[0]
        return count
