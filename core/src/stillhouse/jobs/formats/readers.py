"""`JsonlReader` and `CsvReader`: the rows of a file, one after the other; a broken row is one row."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.jobs.formats.rows import Row, digest_of, invalid_row

__all__ = ["CsvReader", "JsonlReader", "open_source"]


def open_source(path: str) -> BinaryIO:
    """Open the bytes of a file, or of standard input for `-`.

    Raises:
        ConfigurationError: it cannot be opened.
    """
    try:
        return sys.stdin.buffer if path == "-" else Path(path).open("rb")
    except ValueError:
        raise ConfigurationError(f"{path!r} is not a path", hint="leave out the NUL character") from None
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror}", hint="check the path and its permissions"
        ) from None


class FileReader(ABC):
    """The rows of one file, or of standard input for `-`. Blank lines are skipped.

    Attributes:
        schema: `None`: these formats declare no types.

    Raises:
        ConfigurationError: it cannot be opened.
    """

    schema = None

    def __init__(self, path: str) -> None:
        self._path = path
        self._stream = open_source(path)
        self._size = _size_of(self._stream)
        self._position = 0

    @abstractmethod
    def _rows(self, lines: Iterator[bytes]) -> Iterator[Row]:
        """Yield the rows of the lines."""

    def __iter__(self) -> Iterator[Row]:
        if self._size:
            self._stream.seek(0)
            self._position = 0
        return self._rows(self._lines())

    def _lines(self) -> Iterator[bytes]:
        for line in self._stream:
            self._position += len(line)
            yield line

    def digest(self) -> str:
        """Return a digest of the bytes of the file; standard input has none.

        Raises:
            ConfigurationError: it can be read only once.
        """
        if not self._stream.seekable():
            raise ConfigurationError(
                f"{self._path} can be read only once, and a run reads its input several times",
                hint=f"give it as standard input: stillhouse generate - < {self._path}",
            )
        self._stream.seek(0)
        return hashlib.file_digest(self._stream, "sha256").hexdigest()  # type: ignore[arg-type]

    def close(self) -> None:
        """Close the file."""
        if self._stream is not sys.stdin.buffer:
            self._stream.close()

    @property
    def share_read(self) -> float | None:
        """How much of the file was read, from 0 to 1; `None` where its size is not known."""
        return self._position / self._size if self._size else None


class JsonlReader(FileReader):
    """The rows of a JSONL file: an object on each line."""

    def _rows(self, lines: Iterator[bytes]) -> Iterator[Row]:
        return _read_jsonl(lines)


class CsvReader(FileReader):
    """The rows of a CSV file whose first line has the names of the columns."""

    def _rows(self, lines: Iterator[bytes]) -> Iterator[Row]:
        return _read_csv(lines)


def _size_of(stream: BinaryIO) -> int:
    status = os.fstat(stream.fileno())
    return status.st_size if status.st_size > 0 else 0


def _read_jsonl(lines: Iterator[bytes]) -> Iterator[Row]:
    index = 0
    for number, line in enumerate(lines, 1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        columns, error = _object(line, number)
        yield Row(index, number, columns, error, digest_of(line.rstrip(b"\r\n")))
        index += 1


def _object(line: bytes, number: int) -> tuple[dict[str, Any], GenerationError | None]:
    """Return the columns on a line, or none and the error that says why."""
    try:
        columns = _decode(line)
    except json.JSONDecodeError as error:
        return {}, invalid_row(number, f"not valid JSON: {error.msg} at character {error.pos + 1}")
    except ValueError as error:
        return {}, invalid_row(number, f"not valid JSON: {error}")
    except RecursionError:
        return {}, invalid_row(number, "not usable JSON: nested too deeply")
    if not isinstance(columns, dict):
        return {}, invalid_row(number, f"not a JSON object but {type(columns).__name__}")
    return columns, None


def _decode(line: bytes) -> Any:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is not UTF-8") from None
    return _decoder.decode(text)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


_decoder = json.JSONDecoder(parse_constant=_no_constant)


def _read_csv(lines: Iterator[bytes]) -> Iterator[Row]:
    texts = (line.decode("utf-8", "surrogateescape") for line in lines)
    limit = csv.field_size_limit(sys.maxsize if sys.maxsize < 2**31 else 2**31 - 1)
    try:
        reader = csv.reader(_without_mark(texts), strict=True)
        header: list[str] | None = None
        index = 0
        while True:
            start = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                problem = f"not valid CSV: {error}"
                yield Row(index, start, error=invalid_row(start, problem), digest=digest_of(problem.encode()))
                index += 1
                continue
            if not values:
                continue
            if header is None:
                header = values
                continue
            yield _csv_row(index, start, header, values)
            index += 1
    finally:
        csv.field_size_limit(limit)


def _csv_row(index: int, line: int, header: list[str], values: list[str]) -> Row:
    # The separator is one that no CSV file uses.
    digest = digest_of("\x1f".join(values).encode("utf-8", "surrogateescape"))
    if len(values) != len(header):
        problem = f"{len(values)} columns where the header has {len(header)}"
        return Row(index, line, error=invalid_row(line, problem), digest=digest)
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        return Row(index, line, error=invalid_row(line, "not valid UTF-8"), digest=digest)
    return Row(index, line, dict(zip(header, values, strict=True)), digest=digest)


def _without_mark(texts: Iterator[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        yield text.removeprefix("\ufeff") if number == 0 else text
