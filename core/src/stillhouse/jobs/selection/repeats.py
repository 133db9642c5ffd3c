"""`Repeats`: which rows of a run ask for what an earlier row asks for, so that it is paid once."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from stillhouse._settings.digest import digest
from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.jobs.formats.rows import Row
from stillhouse.jobs.selection.seen import FirstSeen
from stillhouse.protocols import InputWithArguments
from stillhouse.typing import FormattedInput

__all__ = ["Repeat", "Repeats", "find_repeats"]


class Repeat(NamedTuple):
    """A row that asks for what an earlier one asks for.

    Attributes:
        row: its place in the input.
        digest: that of the row.
        first: the index of the first row that asks for the same.
    """

    row: int
    digest: int
    first: int


class Repeats:
    """The rows that ask for what an earlier one asks for, in the order of the input; 24 bytes each."""

    def __init__(self) -> None:
        self._indexes, self._digests, self._firsts = array("q"), array("q"), array("q")

    def add(self, repeat: Repeat) -> None:
        """Add the next one."""
        self._indexes.append(repeat.row)
        self._digests.append(repeat.digest)
        self._firsts.append(repeat.first)

    def __len__(self) -> int:
        return len(self._indexes)

    def __iter__(self) -> Iterator[Repeat]:
        return map(Repeat, self._indexes, self._digests, self._firsts)

    def marked(self, rows: Iterable[Row]) -> Iterator[tuple[Row, bool]]:
        """Yield the rows of the run, which come in their order, and whether each is one of these."""
        repeated = iter(self._indexes)
        index = next(repeated, None)
        for row in rows:
            yield row, row.index == index
            if row.index == index:
                index = next(repeated, None)

    def left_out(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield the others of the rows of the run."""
        return (row for row, is_repeated in self.marked(rows) if not is_repeated)


def find_repeats(
    rows: Iterable[Row],
    formatter: Callable[[Row], FormattedInput | InputWithArguments | GenerationError],
    stopping: Callable[[], bool] = lambda: False,
) -> Repeats:
    """Read the rows of a run, and return those that ask for what an earlier one asks for.

    Inputs are the same if all of their values are, and those of their own arguments, whatever the order of
    the keys is. A row of which no input can be made is like no other. The digests wait on the disk, so that
    memory does not grow with the number of rows.

    Args:
        rows: the rows.
        formatter: turns a row into its input.
        stopping: once it returns true, no further row is read.

    Raises:
        ConfigurationError: the disk for temporary files cannot be used.
    """
    repeats = Repeats()
    try:
        with FirstSeen() as seen:
            for row in rows:
                if stopping():
                    break
                key = _key_of(formatter(row))
                if key is None:
                    continue
                first = seen.first(key, row.index)
                if first is not None:
                    repeats.add(Repeat(row.index, row.digest, first))
    except sqlite3.Error as error:
        raise ConfigurationError(
            f"the disk for temporary files, where equal rows are looked for, cannot be used: {error}",
            hint="make room there, or name another folder in SQLITE_TMPDIR, and make the same command again",
        ) from error
    return repeats


def _key_of(input: FormattedInput | InputWithArguments | GenerationError) -> bytes | None:
    """Return what is equal for equal inputs alone; `None` for what is like no other."""
    if isinstance(input, GenerationError):
        return None
    parts = (input.input, input.arguments) if isinstance(input, InputWithArguments) else (input, {})
    try:
        return bytes.fromhex(digest(*parts))
    except (ConfigurationError, RecursionError):  # a value that JSON cannot hold
        return None
