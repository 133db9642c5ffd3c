"""`RequestFile` and `ResultFile`: the requests that are uploaded, and the results, in any order."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from stillhouse._lenient import loads
from stillhouse.offline.chunks import new_name
from stillhouse.offline.provider import BatchLimits, Framing
from stillhouse.offline.row_sets import Rows

__all__ = ["RequestFile", "ResultFile", "custom_id"]

_MAX_BYTES_IN_MEMORY = 8 * 2**20

MAX_LINE_BYTES = 64 * 2**20
"""A longer line of results is not read: no answer is as long."""

# Of a line that cannot be read, only its beginning and its end are searched for its id.
_SEARCHED_BYTES = 4096
_ID = re.compile(rb'"custom_id"\s{0,9}:\s{0,9}"([A-Za-z0-9-]{1,64})"')


def custom_id(chunk: str, row: int, part: int) -> str:
    """Return the id of a request: at most 64 letters, digits and hyphens, as the strictest API demands."""
    return f"{chunk}-{row}-{part}"


def _parsed_id(text: str) -> tuple[str, int, int] | None:
    """Return the chunk, the row and the part in a request's id; `None` if Stillhouse did not make it."""
    chunk, _, rest = text.rpartition("-")
    chunk, _, row = chunk.rpartition("-")
    if not (chunk and text.isascii() and row.isdecimal() and rest.isdecimal() and len(text) <= 64):
        return None
    return chunk, int(row), int(rest)


class RequestFile:
    """The requests of one chunk, written one after the other; only a small file stays in memory."""

    def __init__(self, path: str, round: int, limits: BatchLimits, framing: Framing) -> None:
        self.name = new_name()
        self.path = path
        self.round = round
        self.rows: list[int] = []
        self.requests = 0
        self.own_forms = False
        self._limits = limits
        self._framing = framing
        self._digest = hashlib.sha256()
        self.file: IO[bytes] = tempfile.SpooledTemporaryFile(_MAX_BYTES_IN_MEMORY)  # noqa: SIM115
        self.size = self.file.write(framing.head)

    @property
    def digest(self) -> str:
        """SHA-256 of the requests."""
        return self._digest.hexdigest()

    def could_hold(self, requests: list[bytes]) -> bool:
        """Return whether these requests would fit into an empty file."""
        return self._hold(requests, 0, len(self._framing.head))

    def fits(self, requests: list[bytes]) -> bool:
        """Return whether these requests still fit into the file."""
        return self._hold(requests, self.requests, self.size)

    def _hold(self, requests: list[bytes], count: int, size: int) -> bool:
        size += sum(map(len, requests)) + len(requests) * len(self._framing.separator)
        size += len(self._framing.tail)
        return count + len(requests) <= self._limits.requests and size <= self._limits.bytes

    def add(self, row: int, requests: list[bytes], own_form: bool) -> None:
        """Add the requests of a row."""
        for request in requests:
            if self.requests:
                self.size += self.file.write(self._framing.separator)
            self.size += self.file.write(request)
            self._digest.update(request)
            self.requests += 1
        self.rows.append(row)
        self.own_forms |= own_form

    def finish(self) -> None:
        """Write the end of the file: no requests can be added any more."""
        self.size += self.file.write(self._framing.tail)

    def close(self) -> None:
        """Remove the file."""
        self.file.close()


class ResultFile:
    """The results of a chunk, read by row; only their places in the files are kept in memory.

    A line that cannot be read costs its own request alone, if its id can be told, and else nothing.

    Attributes, after `index`:
        lines: how many lines there are, those of no request of the chunk included.
        is_cut: whether a file ends in the middle of a line: it was cut off in transit, or is still being
            written. That line is not among the others.
        size: the bytes of all files.
    """

    def __init__(self, chunk: str, rows: Rows) -> None:
        self._chunk = chunk
        self._rows = rows
        self._files: list[IO[bytes]] = []
        self._places: dict[tuple[int, int], tuple[int, int]] = {}
        self._unreadable: set[tuple[int, int]] = set()
        self.lines = self.size = 0
        self.is_cut = False

    def new_file(self) -> IO[bytes]:
        """Open a temporary file for some of the results."""
        self._files.append(tempfile.TemporaryFile())  # noqa: SIM115
        return self._files[-1]

    def index(self) -> int:
        """Find the results in the files, and return how many there are, readable or not.

        Of several results for one request the first that can be read counts; results of other requests
        are ignored.
        """
        self._places, self._unreadable = {}, set()
        self.lines, self.is_cut, self.size = 0, False, 0
        for number, file in enumerate(self._files):
            file.seek(0)
            place = 0
            while line := file.readline(MAX_LINE_BYTES):
                start, place = place, place + len(line)
                is_whole, has_end = True, line.endswith(b"\n")
                while not has_end and len(line) == MAX_LINE_BYTES and (rest := file.readline(2**20)):
                    place += len(rest)
                    is_whole, has_end = False, rest.endswith(b"\n")
                text = line.strip()
                if not text:
                    continue
                value = _read(text) if is_whole else None
                if value is None and not has_end:
                    self.is_cut = True
                    continue
                self.lines += 1
                name = _id_in(text) if value is None else value.get("custom_id")
                self._add(name, (number, start), value is not None)
            self.size += place
        return len(self._places)

    def _add(self, name: Any, place: tuple[int, int], is_readable: bool) -> None:
        found = _parsed_id(name) if isinstance(name, str) else None
        if found is None or found[0] != self._chunk or found[1] not in self._rows:
            return
        request = found[1:]
        if is_readable and request in self._unreadable:
            self._unreadable.discard(request)
            self._places[request] = place
        elif request not in self._places:
            self._places[request] = place
            if not is_readable:
                self._unreadable.add(request)

    def results_of(self, row: int, parts: int) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Yield the parts of a row that have results, each with its result; `None` if it is unreadable."""
        for part in range(parts):
            place = self._places.get((row, part))
            if place is None:
                continue
            if (row, part) in self._unreadable:
                yield part, None
                continue
            file = self._files[place[0]]
            file.seek(place[1])
            yield part, _read(file.readline().strip())

    def clear(self) -> None:
        """Remove the files."""
        while self._files:
            self._files.pop().close()
        self._places, self._unreadable = {}, set()


def _read(text: bytes) -> dict[str, Any] | None:
    """Return the object in a line, or `None` if there is none."""
    try:
        value = loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _id_in(text: bytes) -> str | None:
    """Return the id of the request whose result a line is that cannot be read, if it shows."""
    found = _ID.search(text[:_SEARCHED_BYTES]) or _ID.search(text[-_SEARCHED_BYTES:])
    return found[1].decode() if found else None
