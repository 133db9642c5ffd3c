"""The output of a run: the rows of the input with what was generated for each, in their order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

from stillhouse.jobs.store.store import Stored
from stillhouse.protocols import RowReader, RowWriter

__all__ = ["assemble"]


def assemble(
    reader: RowReader, stored: Iterator[Stored], writer: RowWriter, limit: int | None = None
) -> list[int]:
    """Write the output, unless rows of the input are not those that were generated for.

    Args:
        reader: the input.
        stored: what was generated, in the order of the input.
        writer: takes the rows.
        limit: how many rows of the input belong to the run; `None` means all.

    Returns:
        The indexes of the rows that have no result or that of another row, and of the results that
        have no row; where there are any, nothing was written.
    """
    wrong: list[int] = []
    result = next(stored, None)
    last = -1
    try:
        for row in islice(reader, limit):
            while result is not None and result.index < row.index:
                result = next(stored, None)
            last = row.index
            if result is None or result.index != row.index or result.digest != row.digest:
                wrong.append(row.index)
            elif not wrong:
                # A column of the input that has the name of one of ours gives way to it.
                writer.write({**row.columns, **result.columns})
        if limit is None or last + 1 < limit:  # the input has ended; has what was generated for?
            wrong += [rest.index for rest in chain([result] if result else [], stored) if rest.index > last]
        if wrong:
            writer.abandon()
        else:
            writer.finish()
    except BaseException:
        writer.abandon()
        raise
    return wrong
