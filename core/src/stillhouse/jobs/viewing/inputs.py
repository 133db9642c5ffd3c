"""`SourceRows`: rows of a source by their indexes, read by a thread of its own, with a bounded cache."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as WaitedError
from typing import Generic, NamedTuple, TypeVar

from stillhouse.jobs.formats.marks import Mark, rows_from
from stillhouse.jobs.viewing.index import MarkIndex
from stillhouse.protocols import Row, RowReader

__all__ = ["Pending", "SourceRows"]

MAX_ROWS = 400
"""How many rows are cached, shortened."""

T = TypeVar("T")


class Pending(Exception):  # noqa: N818 -- it is no error: the caller asks again
    """The rows are not read yet; the thread goes on, and has them the next time."""


class SourceRows(Generic[T]):
    """Rows of a source, found by their indexes.

    One thread reads the source: opening it, or the way to a row of a compressed file, may take longer than a
    page waits. What it read is there when the page asks again.

    Args:
        open: opens the source, as often as it is called.
        shorten: makes what is kept of a row.

    Attributes:
        index: the marks of the source.
        read: how many rows were decoded.
    """

    def __init__(self, open: Callable[[], RowReader], shorten: Callable[[Row], T]) -> None:
        self.index = MarkIndex(open)
        self._shorten = shorten
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="stillhouse-view-input")
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, T | None] = OrderedDict()
        self._jobs: dict[tuple[int, ...], Future[None]] = {}
        self._whole: dict[int, Future[Row | None]] = {}
        self._pages, self._scan = _Cursor(open, self.index), _Cursor(open, self.index)
        self._is_closed = False
        self.index.start()

    @property
    def read(self) -> int:
        """How many rows were decoded."""
        return self._pages.read + self._scan.read

    def close(self) -> None:
        """Stop reading."""
        self._is_closed = True
        self._worker.shutdown(wait=True, cancel_futures=True)
        self.index.close()
        self._pages.close()
        self._scan.close()

    def get(self, wanted: Sequence[int], seconds: float) -> tuple[dict[int, T], bool]:
        """Return rows by their indexes, shortened, and whether all of them were read in time.

        Args:
            wanted: their indexes, increasing, at most `MAX_ROWS`.
            seconds: how long to wait at most.

        Raises:
            StillhouseError, OSError: the source cannot be read.
        """
        found, missing = self._cached(wanted)
        if missing:
            job = self._jobs.get(missing)
            if job is None:
                job = self._jobs[missing] = self._worker.submit(self._fetch, missing)
            try:
                job.result(seconds)
            except WaitedError:
                return self._cached(wanted)[0], False
            finally:
                if job.done():
                    self._jobs.pop(missing, None)
            found, _ = self._cached(wanted)
        return found, True

    def whole(self, index: int, seconds: float) -> Row | None:
        """Return a row as it is; `None` if the source does not have it.

        Raises:
            Pending: it is not read yet.
            StillhouseError, OSError: the source cannot be read.
        """
        job = self._whole.get(index)
        if job is None:
            job = self._whole[index] = self._worker.submit(self._fetch_whole, index)
        try:
            return job.result(seconds)
        except WaitedError:
            raise Pending from None
        finally:
            if job.done():
                self._whole.pop(index, None)

    def scan(
        self, wanted: Sequence[int], is_match: Callable[[int, Row | None], bool], seconds: float
    ) -> tuple[int, list[int]]:
        """Look at rows in turn, and return how many were looked at in time, and which of them match.

        Args:
            wanted: their indexes, increasing.
            is_match: decides about an index and its row.
            seconds: how long at most.

        Raises:
            StillhouseError, OSError: the source cannot be read.
        """
        job = _Scan(wanted, is_match, time.monotonic() + seconds, lambda: self._is_closed)
        future = self._worker.submit(job.work, self._scan)
        try:
            future.result(seconds + 0.1)
        except WaitedError:  # another job has the thread, or it is on its way to the first row
            future.cancel()
        return job.taken()

    def _fetch(self, wanted: Sequence[int]) -> None:
        for index, row in self._pages.rows(wanted, lambda: self._is_closed):
            kept = None if row is None else self._shorten(row)
            with self._lock:
                self._cache[index] = kept
                while len(self._cache) > MAX_ROWS:
                    self._cache.popitem(last=False)

    def _fetch_whole(self, index: int) -> Row | None:
        return next((row for _, row in self._pages.rows([index], lambda: self._is_closed)), None)

    def _cached(self, wanted: Sequence[int]) -> tuple[dict[int, T], tuple[int, ...]]:
        with self._lock:
            for index in wanted:
                if index in self._cache:
                    self._cache.move_to_end(index)
            kept = {index: self._cache[index] for index in wanted if index in self._cache}
        found = {index: row for index, row in kept.items() if row is not None}
        return found, tuple(index for index in wanted if index not in kept)


class _Progress(NamedTuple):
    visited: int
    matches: list[int]


class _Scan:
    """One search through rows; what it finds after its caller left does not count."""

    def __init__(
        self,
        wanted: Sequence[int],
        is_match: Callable[[int, Row | None], bool],
        ends: float,
        is_closed: Callable[[], bool],
    ) -> None:
        self._wanted, self._is_match, self._ends, self._is_closed = wanted, is_match, ends, is_closed
        self._lock = threading.Lock()
        self._progress = _Progress(0, [])
        self._is_taken = False

    def work(self, cursor: _Cursor) -> None:
        for index, row in cursor.rows(self._wanted, self._is_over):
            matches = self._is_match(index, row)
            with self._lock:
                if self._is_taken:
                    return
                found = [*self._progress.matches, index] if matches else self._progress.matches
                self._progress = _Progress(self._progress.visited + 1, found)
            if self._is_over():
                return

    def taken(self) -> _Progress:
        with self._lock:
            self._is_taken = True
            return self._progress

    def _is_over(self) -> bool:
        return time.monotonic() > self._ends or self._is_closed()


class _Cursor:
    """A place in a source, from which reading goes on if the next row wanted is near.

    Attributes:
        read: how many rows were decoded.
    """

    def __init__(self, open: Callable[[], RowReader], index: MarkIndex) -> None:
        self._open, self._index = open, index
        self._reader: RowReader | None = None
        self._rows: Iterator[Row] = iter(())
        self._held: Row | None = None  # the last row that was read
        self._begun = -1  # the index that the rows began at; -1 before there are any
        self.read = 0

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def rows(self, wanted: Sequence[int], is_over: Callable[[], bool]) -> Iterator[tuple[int, Row | None]]:
        """Yield rows with their indexes until the time is over; `None` for one that is not in the source.

        A row that took too long to find is held, so that the next call begins with it.
        """
        for index in wanted:
            row = self._find(index)
            if is_over():
                return
            yield index, row

    def _find(self, wanted: int) -> Row | None:
        mark = self._index.before(wanted)
        here = self._begun if self._held is None else self._held.index
        if self._begun < 0 or here > wanted or here < mark.row:
            self._jump(mark, wanted)
        held = self._held
        while held is None or held.index < wanted:
            row = next(self._rows, None)
            if row is None:
                return None
            self.read += 1
            held = self._held = row
        return held if held.index == wanted else None

    def _jump(self, mark: Mark, wanted: int) -> None:
        if self._reader is None:
            self._reader = self._open()
        self._rows = rows_from(self._reader, mark, wanted)
        self._held, self._begun = None, wanted
