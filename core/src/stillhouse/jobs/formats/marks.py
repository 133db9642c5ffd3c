"""`Mark`: a place in a source at which reading can begin, so that a row is found without those before it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import islice
from typing import NamedTuple, Protocol, runtime_checkable

from stillhouse.protocols import Row, RowReader

__all__ = ["Mark", "MarkedReader", "marks_of", "rows_from"]


class Mark(NamedTuple):
    """A place at which a row begins.

    Attributes:
        row: the index of that row.
        line: its line, from 1.
        offset: where it is: bytes from the beginning of a text, or the number of a row group.
        part: of several sources, the number of the source.
        base: of several sources, the index of the first row of the source.
    """

    row: int = 0
    line: int = 1
    offset: int = 0
    part: int = 0
    base: int = 0


@runtime_checkable
class MarkedReader(Protocol):
    """A reader that can begin at a mark."""

    def marks(self) -> Generator[Mark, None, int]:
        """Yield marks in order, the first one at the first row, without decoding the rows.

        Returns:
            The number of rows.
        """

    def rows_from(self, mark: Mark, first: int) -> Iterator[Row]:
        """Yield the rows from the index `first` on.

        Args:
            mark: one of `marks`, at that row or before it.
            first: the index of the first row wanted; those before it are not decoded.
        """


def marks_of(reader: RowReader) -> Generator[Mark, None, int]:
    """Yield the marks of a reader; of one that has none, its first row, and every row is decoded.

    Returns:
        The number of rows.
    """
    if isinstance(reader, MarkedReader):
        return (yield from reader.marks())
    yield Mark()
    count = getattr(reader, "num_rows", None)
    if isinstance(count, int) and not isinstance(count, bool):
        return count
    rows = 0
    for _ in reader:
        rows += 1
        if rows % 256 == 0:  # the caller may stop here
            yield Mark()
    return rows


def rows_from(reader: RowReader, mark: Mark, first: int) -> Iterator[Row]:
    """Yield the rows of a reader from the index `first` on; without marks, those before it are decoded too.

    Args:
        reader: the reader.
        mark: one of `marks_of`, at that row or before it.
        first: the index of the first row wanted.
    """
    if isinstance(reader, MarkedReader):
        return reader.rows_from(mark, first)
    return islice(iter(reader), first, None)
