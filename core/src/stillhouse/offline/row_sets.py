"""`Rows`: sets of row ids with a short text form."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

__all__ = ["Rows"]


class Rows:
    """A set of row ids as ranges: rows are submitted in order, so a few numbers are enough."""

    def __init__(self, ids: Iterable[int] = ()) -> None:
        self._ranges: list[list[int]] = []
        for id in sorted(ids):
            self.add(id)

    def add(self, id: int) -> None:
        """Add an id that is greater than all others, or equal to the greatest."""
        last = self._ranges[-1] if self._ranges else None
        if last is None or id > last[1] + 1:
            self._ranges.append([id, id])
        else:
            last[1] = max(last[1], id)

    @classmethod
    def union(cls, many: Iterable[Rows]) -> Rows:
        """Return all ids of several sets."""
        rows = cls()
        for first, last in sorted(item for one in many for item in one._ranges):
            if rows._ranges and first <= rows._ranges[-1][1] + 1:
                rows._ranges[-1][1] = max(rows._ranges[-1][1], last)
            else:
                rows._ranges.append([first, last])
        return rows

    @classmethod
    def parse(cls, text: str) -> Rows:
        """Read a set from what `str` of it gave."""
        rows = cls()
        rows._ranges = [
            [int(first), int(last or first)]
            for first, _, last in (part.partition("-") for part in text.split(",") if part)
        ]
        return rows

    def __contains__(self, id: int) -> bool:
        position = bisect_right(self._ranges, id, key=lambda item: item[0]) - 1
        return position >= 0 and id <= self._ranges[position][1]

    def __iter__(self) -> Iterator[int]:
        for first, last in self._ranges:
            yield from range(first, last + 1)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self._ranges)

    def __str__(self) -> str:
        return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in self._ranges)
