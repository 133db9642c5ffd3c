"""The records of an SQLite file, read page by page without SQLite, for a file that SQLite cannot read.

Nothing in the file is trusted, and a record may be old or wrong: code that uses a record checks its seal.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stillhouse.jobs.store.schema import PAGE_BYTES

__all__ = ["contains", "records"]

# A page of a table's records begins with it.
_TABLE_LEAF = 0x0D

# Of the first page, what is before its content.
_FILE_HEADER = 100

# How many bytes of a record are in its page: all, if they are no more than the first; else, with the
# rest in a chain of pages of its own, at least the second.
_MAX_LOCAL = PAGE_BYTES - 35
_MIN_LOCAL = (PAGE_BYTES - 12) * 32 // 255 - 23
_CHAINED = PAGE_BYTES - 4

_LOG_HEADER, _FRAME_HEADER = 32, 24

_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_FLOAT, _FALSE, _TRUE, _FIRST_BLOB = 7, 8, 9, 12


def records(path: Path) -> Iterator[tuple[int, list[Any]]]:
    """Yield the number and the values of every readable record of a table, including those in the log."""
    with _Pages(path) as pages:
        for number in pages.numbers():
            page = pages[number]
            base = _FILE_HEADER if number == 1 else 0
            if len(page) < base + 8 or page[base] != _TABLE_LEAF:
                continue
            for place in range(int.from_bytes(page[base + 3 : base + 5])):
                pointer = base + 8 + 2 * place
                try:
                    yield _record(pages, page, int.from_bytes(page[pointer : pointer + 2]))
                except (IndexError, ValueError, struct.error):
                    continue


def contains(path: Path, content: bytes) -> bool:
    """Whether a file, or its log, has these bytes."""
    with _Pages(path) as pages:
        return any(file.find(content) >= 0 for file in pages.files)


class _Pages:
    """The pages of a file, by their number from 1, each in its latest version in the log."""

    def __init__(self, path: Path) -> None:
        self.files = [_mapped(path), _mapped(path.with_name(f"{path.name}-wal"))]
        self._file, self._log = self.files
        self._frames = dict(_frames(self._log))
        self.size = len(self._file) + len(self._log)

    def __enter__(self) -> _Pages:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for file in self.files:
            if isinstance(file, mmap.mmap):
                file.close()

    def numbers(self) -> Iterator[int]:
        last = -(-len(self._file) // PAGE_BYTES)
        yield from range(1, last + 1)
        yield from sorted(number for number in self._frames if number > last)

    def __getitem__(self, number: int) -> bytes:
        frame = self._frames.get(number)
        file, start = (self._file, (number - 1) * PAGE_BYTES) if frame is None else (self._log, frame)
        return file[start : start + PAGE_BYTES]


def _mapped(path: Path) -> mmap.mmap | bytes:
    try:
        with path.open("rb") as stream:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # it is not there, or empty
        return b""


def _frames(log: mmap.mmap | bytes) -> Iterator[tuple[int, int]]:
    """Yield the numbers of the pages in a log and their offsets, without those of an earlier log."""
    salt = log[_LOG_HEADER + 8 : _LOG_HEADER + 16]
    for start in range(_LOG_HEADER, len(log) - _FRAME_HEADER, _FRAME_HEADER + PAGE_BYTES):
        number = int.from_bytes(log[start : start + 4])
        if log[start + 8 : start + 16] == salt:
            yield number, start + _FRAME_HEADER


def _record(pages: _Pages, page: bytes, start: int) -> tuple[int, list[Any]]:
    size, start = _varint(page, start)
    number, start = _varint(page, start)
    if size > pages.size:
        raise ValueError("it is larger than the file")
    return number, _values(_payload(pages, page, start, size))


def _payload(pages: _Pages, page: bytes, start: int, size: int) -> bytes:
    if size <= _MAX_LOCAL:
        payload = page[start : start + size]
    else:
        local = _MIN_LOCAL + (size - _MIN_LOCAL) % _CHAINED
        local = local if local <= _MAX_LOCAL else _MIN_LOCAL
        parts, following = [page[start : start + local]], page[start + local : start + local + 4]
        for _ in range(-(-(size - local) // _CHAINED)):
            chained = pages[int.from_bytes(following)]
            following = chained[:4]
            parts.append(chained[4:])
        payload = b"".join(parts)[:size]
    if len(payload) < size:
        raise ValueError("it is cut off")
    return payload


def _values(payload: bytes) -> list[Any]:
    header, place = _varint(payload, 0)
    start = header
    values: list[Any] = []
    while place < header:
        kind, place = _varint(payload, place)
        if kind in _INTEGERS:
            size = _INTEGERS[kind]
            values.append(int.from_bytes(payload[start : start + size], signed=True))
        elif kind == _FLOAT:
            size = 8
            values.append(struct.unpack(">d", payload[start : start + 8])[0])
        elif kind >= _FIRST_BLOB:
            size = (kind - _FIRST_BLOB) // 2
            content = payload[start : start + size]
            values.append(content.decode() if kind % 2 else content)
        else:
            size = 0
            values.append({_FALSE: 0, _TRUE: 1}.get(kind))
        start += size
    return values


def _varint(data: bytes, start: int) -> tuple[int, int]:
    """Return an integer of 1 to 9 bytes, with 7 bits in each except the ninth, and where it ends."""
    value = 0
    for place in range(start, start + 8):
        value = value << 7 | data[place] & 0x7F
        if data[place] < 0x80:
            return value, place + 1
    return value << 8 | data[start + 8], start + 9
