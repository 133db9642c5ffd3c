"""`RequestFile` and `ResultFile`: the requests that are uploaded, and the results, in any order."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import orjson

from stillhouse.offline.chunks import new_name
from stillhouse.offline.provider import BatchLimits, Framing
from stillhouse.offline.row_sets import Rows

__all__ = ["BrokenFileError", "RequestFile", "ResultFile", "custom_id"]

_MAX_BYTES_IN_MEMORY = 8 * 2**20


def custom_id(chunk: str, row: int, part: int) -> str:
    """Return the id of a request: at most 64 letters, digits and hyphens, as the strictest API demands."""
    return f"{chunk}-{row}-{part}"


def _parsed_id(text: str) -> tuple[str, int, int] | None:
    """Return the chunk, the row and the part in a request's id; `None` if Stillhouse did not make it."""
    chunk, _, rest = text.rpartition("-")
    chunk, _, row = chunk.rpartition("-")
    if not (chunk and row.isdecimal() and rest.isdecimal()):
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


class BrokenFileError(Exception):
    """A file of results has a line that is not JSON: it was cut off in transit, or is still being written."""


class ResultFile:
    """The results of a chunk, read by row; only their places in the files are kept in memory."""

    def __init__(self, chunk: str, rows: Rows) -> None:
        self._chunk = chunk
        self._rows = rows
        self._files: list[IO[bytes]] = []
        self._places: dict[tuple[int, int], tuple[int, int]] = {}

    def new_file(self) -> IO[bytes]:
        """Open a temporary file for some of the results."""
        self._files.append(tempfile.TemporaryFile())  # noqa: SIM115
        return self._files[-1]

    def index(self) -> int:
        """Find the results in the files, and return how many there are.

        Of several results for one request the first counts; results of other requests are ignored.

        Raises:
            BrokenFileError: a line is not JSON.
        """
        self._places = {}
        for number, file in enumerate(self._files):
            file.seek(0)
            place = 0
            for line in file:
                text = line.strip()
                if text:
                    try:
                        name = orjson.loads(text).get("custom_id")
                    except (orjson.JSONDecodeError, AttributeError):
                        raise BrokenFileError from None
                    found = _parsed_id(name) if isinstance(name, str) else None
                    if found is not None and found[0] == self._chunk and found[1] in self._rows:
                        self._places.setdefault(found[1:], (number, place))
                place += len(line)
        return len(self._places)

    def results_of(self, row: int, parts: int) -> Iterator[tuple[int, Any]]:
        """Yield the parts of a row that have results, each with its result."""
        for part in range(parts):
            place = self._places.get((row, part))
            if place is not None:
                file = self._files[place[0]]
                file.seek(place[1])
                yield part, orjson.loads(file.readline())

    def clear(self) -> None:
        """Remove the files."""
        while self._files:
            self._files.pop().close()
        self._places = {}
