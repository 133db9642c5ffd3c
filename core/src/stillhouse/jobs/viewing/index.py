"""`MarkIndex`: a bounded number of marks in a source, found in the background."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable
from contextlib import closing

from stillhouse.errors import StillhouseError
from stillhouse.jobs.formats.marks import Mark, marks_of
from stillhouse.protocols import RowReader

__all__ = ["MAX_MARKS", "MarkIndex"]

MAX_MARKS = 4096
"""How many marks are kept; when there are more, every second one is dropped."""


class MarkIndex:
    """Marks of a source, found by a thread; they can be used from the first one on.

    Args:
        open: opens the source.

    Attributes:
        rows: how many rows the source has; `None` as long as that is not known.
        seen: how many marks the thread has passed.
    """

    def __init__(self, open: Callable[[], RowReader]) -> None:
        self.rows: int | None = None
        self.seen = 0
        self._open = open
        self._marks = [Mark()]
        self._gap = 1
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._build, name="stillhouse-view-index", daemon=True)

    def start(self) -> None:
        """Begin to look for marks."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def wait(self) -> None:
        """Wait until every mark was found."""
        self._thread.join()

    def before(self, row: int) -> Mark:
        """Return the last mark at a row or before it."""
        with self._lock:
            return self._marks[max(0, bisect_right(self._marks, row, key=lambda mark: mark.row) - 1)]

    def _build(self) -> None:
        # What cannot be read is reported where the rows themselves are read.
        try:
            with closing(self._open()) as reader, closing(marks_of(reader)) as marks:
                while not self._stop.is_set():
                    try:
                        mark = next(marks)
                    except StopIteration as end:
                        self.rows = end.value
                        return
                    self.seen += 1
                    if mark.row >= self._marks[-1].row + self._gap:
                        self._add(mark)
                    elif mark.row == 0:
                        self._marks[0] = mark
        except (StillhouseError, OSError):
            return

    def _add(self, mark: Mark) -> None:
        with self._lock:
            self._marks.append(mark)
            if len(self._marks) > MAX_MARKS:
                self._marks = self._marks[::2]
                self._gap *= 2
