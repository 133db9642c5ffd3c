"""`Choice`: which rows of an input belong to a run; `ChosenRows`: a reader of these alone.

The order is always the same: `--where`, then `--sample` of what is left, then `--shard`, then `--limit`. A
row keeps the index and the line that it has in the input.
"""

from __future__ import annotations

import heapq
import re
from array import array
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.rows import Row, invalid_row
from stillhouse.jobs.selection.conditions import Condition
from stillhouse.jobs.selection.repeats import Repeats
from stillhouse.protocols import RowReader

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Choice", "ChosenRows", "Shard", "parse_shard"]

_SHARD = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")

# Another value draws other samples.
_SAMPLE_KEY = b"stillhouse --sample"


class Shard(NamedTuple):
    """One of several parts of a run's rows: every `total`-th one, from the `number`-th on.

    So the parts differ by one row at most, whatever the order of the input is, and a row that is added at the
    end moves no other row to another part.

    Attributes:
        number: which part, from 1.
        total: how many parts there are.
    """

    number: int
    total: int

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"


def parse_shard(text: str) -> Shard:
    """Read a shard from a text such as `2/8`.

    Raises:
        ConfigurationError: it is none.
    """
    found = _SHARD.fullmatch(text)
    shard = None if found is None else Shard(int(found[1]), int(found[2]))
    if shard is None or not 1 <= shard.number <= shard.total:
        raise ConfigurationError(
            f"--shard {text} is no shard", hint="give I/N, from 1/N to N/N, such as --shard 1/4"
        )
    return shard


@dataclass(frozen=True)
class Choice:
    """Which rows of an input belong to a run.

    Attributes:
        where: a condition on the columns of a row.
        sample: how many rows at random.
        shard: a part of them.
        limit: how many rows at most, the first ones. It may differ when the run is resumed.
        dedupe: whether those that ask for the same are generated for once.
    """

    where: Condition | None = None
    sample: int | None = None
    shard: Shard | None = None
    limit: int | None = None
    dedupe: bool = False

    @property
    def shaping(self) -> dict[str, Any]:
        """What of it the output depends on, by the names of the options; what is not given is not there."""
        given: dict[str, Any] = {
            "where": self.where and str(self.where),
            "sample": self.sample,
            "shard": self.shard and str(self.shard),
            "dedupe": self.dedupe or None,
        }
        return {name: value for name, value in given.items() if value is not None}

    def at_most(self, rows: int | None = None) -> int | None:
        """Return how many rows belong to the run at most; `None` where nothing bounds that.

        Args:
            rows: how many rows the condition takes at most, where that is known.
        """
        counts = [count for count in (rows, self.sample) if count is not None]
        count = min(counts) if counts else None
        if count is not None and self.shard is not None:
            count = len(range(self.shard.number - 1, count, self.shard.total))
        counts = [count for count in (count, self.limit) if count is not None]
        return min(counts) if counts else None

    def check(self, reader: RowReader) -> None:
        """Refuse a condition on columns that the first rows do not have, before anything is sent.

        Raises:
            PromptError: it names one.
        """
        if self.where is not None:
            self.where.check(reader)

    def rows(self, reader: RowReader) -> RowReader:
        """Return a reader of the rows that belong to the run: `reader` itself if all do."""
        return reader if self == Choice() else ChosenRows(reader, self)

    def end(self, rows: RowReader) -> int | None:
        """Return the index after that of the last row; `None` if the rows have no limit, or end before it.

        Args:
            rows: what `rows` returned.
        """
        if self.limit is None or replace(self, dedupe=False) == Choice(limit=self.limit):
            return self.limit
        count = last = 0
        for count, row in enumerate(rows, 1):  # noqa: B007
            last = row.index
        return last + 1 if count == self.limit else None


class _Picked:
    """The indexes of a sample, for all readers of one input.

    Attributes:
        indexes: in their order; `None` before they are known.
    """

    def __init__(self) -> None:
        self.indexes: array[int] | None = None


class ChosenRows:
    """A reader of the rows of another one that belong to a run.

    For a sample, it reads the input once more, the first time. A row for which the condition cannot be
    decided belongs to the run, as a row that cannot be used.

    Args:
        reader: reads all rows.
        choice: which rows belong to the run.
    """

    def __init__(self, reader: RowReader, choice: Choice) -> None:
        self._reader = reader
        self._choice = choice
        self._picked = _Picked()
        self._stopping: Callable[[], bool] | None = None
        self._left_out: Repeats | None = None

    def over(self, reader: RowReader) -> ChosenRows:
        """Return a reader of the same rows, by another reader of the same input."""
        other = copy(self)
        other._reader = reader
        return other

    def until(self, stopping: Callable[[], bool]) -> ChosenRows:
        """Return a reader whose rows end once `stopping` returns true: few rows may be chosen of many."""
        other = copy(self)
        other._stopping = stopping
        return other

    def of_all_shards(self) -> ChosenRows:
        """Return a reader of the rows of all parts of the run."""
        other = copy(self)
        other._choice = replace(self._choice, shard=None)
        return other

    def without(self, repeats: Repeats | None) -> ChosenRows:
        """Return a reader of the rows that do not ask for what an earlier one asks for."""
        other = copy(self)
        other._left_out = repeats
        return other

    def __getattr__(self, name: str) -> Any:
        """What else the other reader has, such as the names of the columns."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._reader, name)

    @property
    def schema(self) -> pa.Schema | None:
        """The types of the columns."""
        return self._reader.schema

    @property
    def share_read(self) -> float | None:
        """How much of the whole input was read."""
        return self._reader.share_read

    @property
    def num_rows(self) -> int | None:
        """How many rows belong to the run; `None` where they would have to be read for that."""
        count = getattr(self._reader, "num_rows", None)
        if self._choice.where is not None or not isinstance(count, int) or isinstance(count, bool):
            return None
        return self._choice.at_most(count)

    def __iter__(self) -> Iterator[Row]:
        choice = self._choice
        passes_over = choice.where is not None or choice.sample is not None or choice.shard is not None
        rows = self._matching() if passes_over else iter(self._reader)
        if choice.sample is not None:
            rows = self._of_sample(rows, choice.sample)
        if choice.shard is not None:
            rows = islice(rows, choice.shard.number - 1, None, choice.shard.total)
        rows = islice(rows, choice.limit)
        return rows if self._left_out is None else self._left_out.left_out(rows)

    def digest(self) -> str:
        """Return the digest of the whole input."""
        return self._reader.digest()

    def close(self) -> None:
        """Release the source."""
        self._reader.close()

    def _matching(self) -> Iterator[Row]:
        where, stopping = self._choice.where, self._stopping
        for row in self._reader:
            if stopping is not None and stopping():
                return
            if where is not None and row.error is None:
                try:
                    if not where(row.columns):
                        continue
                except ValueError as error:
                    row = replace(row, error=invalid_row(row.place, str(error)))
            yield row

    def _of_sample(self, rows: Iterator[Row], size: int) -> Iterator[Row]:
        if self._picked.indexes is None:
            indexes = _sample((row.index for row in self._matching()), size)
            if self._stopping is not None and self._stopping():
                return
            self._picked.indexes = indexes
        wanted = iter(self._picked.indexes)
        index = next(wanted, None)
        for row in rows:
            if index is None:
                return
            if row.index == index:
                yield row
                index = next(wanted, None)


def _sample(indexes: Iterator[int], size: int) -> array[int]:
    """Return so many of the indexes, in their order: those with the smallest digests.

    It takes no more memory than the sample. The same rows always give the same one, and a larger sample has
    all rows of a smaller one.
    """
    # A heap gives its smallest item: of the negative ones, that with the largest digest.
    heap: list[int] = []
    for index in indexes:
        digest = blake2b(index.to_bytes(8), digest_size=8, key=_SAMPLE_KEY).digest()
        item = -(int.from_bytes(digest) << 64 | index)
        if len(heap) < size:
            heapq.heappush(heap, item)
        elif item > heap[0]:
            heapq.heapreplace(heap, item)
    return array("q", sorted(-item & (1 << 64) - 1 for item in heap))
