"""Reading rows from a file, one after the other, whatever some of them look like."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.rows import Row, invalid_row

__all__ = ["Reader"]


class Reader:
    """The rows of one file.

    Iterating yields every row once, an unreadable one with its error. Blank lines are no rows.

    Args:
        path: the file, or `-` for standard input.

    Raises:
        ConfigurationError: it cannot be opened, or its format is not known.
    """

    def __init__(self, path: str) -> None:
        read = _FORMATS.get(".jsonl" if path == "-" else Path(path).suffix.lower())
        if read is None:
            raise ConfigurationError(
                f"{path} is in a format that is not known", hint="give a .jsonl or .csv file, or - for JSONL"
            )
        self._read = read
        try:
            self._stream: IO[bytes] = sys.stdin.buffer if path == "-" else Path(path).open("rb")  # noqa: SIM115
            self.size = _size_of(self._stream)
        except OSError as error:
            raise ConfigurationError(
                f"{path} cannot be read: {error.strerror}", hint="check the path and its permissions"
            ) from None
        self.position = 0

    def __iter__(self) -> Iterator[Row]:
        return self._read(self._lines())

    def _lines(self) -> Iterator[bytes]:
        for line in self._stream:
            self.position += len(line)
            yield line

    def close(self) -> None:
        """Close the file."""
        if self._stream is not sys.stdin.buffer:
            self._stream.close()

    @property
    def share_read(self) -> float | None:
        """How much of the file was read, from 0 to 1; `None` where its size is not known."""
        return self.position / self.size if self.size else None


def _size_of(stream: IO[bytes]) -> int:
    status = os.fstat(stream.fileno())
    return status.st_size if status.st_size > 0 else 0


def _read_jsonl(lines: Iterator[bytes]) -> Iterator[Row]:
    index = 0
    for number, line in enumerate(lines, 1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            columns = _decode(line)
        except json.JSONDecodeError as error:
            problem = f"not valid JSON: {error.msg} at character {error.pos + 1}"
            yield Row(index, number, error=invalid_row(number, problem))
        except ValueError as error:
            yield Row(index, number, error=invalid_row(number, f"not valid JSON: {error}"))
        except RecursionError:
            yield Row(index, number, error=invalid_row(number, "not usable JSON: nested too deeply"))
        else:
            if isinstance(columns, dict):
                yield Row(index, number, columns)
            else:
                problem = f"not a JSON object but {type(columns).__name__}"
                yield Row(index, number, error=invalid_row(number, problem))
        index += 1


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
                yield Row(index, start, error=invalid_row(start, f"not valid CSV: {error}"))
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
    if len(values) != len(header):
        problem = f"{len(values)} columns where the header has {len(header)}"
        return Row(index, line, error=invalid_row(line, problem))
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        return Row(index, line, error=invalid_row(line, "not valid UTF-8"))
    return Row(index, line, dict(zip(header, values, strict=True)))


def _without_mark(texts: Iterator[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        yield text.removeprefix("\ufeff") if number == 0 else text


_FORMATS: dict[str, Callable[[Iterator[bytes]], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
}
