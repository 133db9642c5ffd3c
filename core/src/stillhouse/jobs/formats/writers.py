"""`JsonlWriter`: rows as lines of JSON."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import math
import sys
from pathlib import Path
from typing import Any, BinaryIO

from stillhouse.jobs.formats.compression import compression_of
from stillhouse.jobs.formats.partial import PartialFile
from stillhouse.jobs.formats.rows import is_encodable

__all__ = ["JsonlWriter"]


class JsonlWriter:
    """Writes rows as lines of JSON, to a file or, for `-`, to standard output at once.

    Args:
        target: the path of the file, or `-`.
        out: the standard output, where it is not that of Python.

    Raises:
        ConfigurationError: the file cannot be written.
    """

    def __init__(self, target: str, out: BinaryIO | None = None) -> None:
        self._file = None if target == "-" else PartialFile(Path(target), compression_of(target))
        self._stream = (out or sys.stdout.buffer) if self._file is None else self._file.stream

    def write(self, record: dict[str, Any]) -> None:
        self._stream.write(to_json(record).encode() + b"\n")

    def finish(self) -> None:
        if self._file is None:
            self._stream.flush()
        else:
            self._file.finish()

    def abandon(self) -> None:
        if self._file is not None:
            self._file.abandon()


def to_json(value: Any) -> str:
    """Return JSON in one line, which UTF-8 can encode and any reader takes.

    Values without a JSON type: dates and times become ISO text, bytes base64, arrays and numbers of
    other libraries lists and numbers, NaN and infinite numbers null, and anything else the text of `str`,
    also as a key.
    """
    try:
        text = _encode(value)
    except (ValueError, TypeError):  # a number that is none, a key that is no text
        value = _jsonable(value)
        text = _encode(value)
    # Half a surrogate pair can only be escaped; a text without one is recognized fast.
    return text if text.isascii() or is_encodable(text) else json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    with contextlib.suppress(Exception):  # whatever its methods do
        plain = value.tolist()
        if isinstance(plain, (list, str, int, float, datetime.date)):
            return plain
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"


def _jsonable(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {_key(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return list(map(_jsonable, value))
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return _whole(value)
    return _jsonable(_plain(value))


def _key(key: Any) -> str:
    """Return the text that a key has in JSON."""
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool):
        return _encode(key)
    if isinstance(key, float):
        return float.__repr__(key)
    return str(_whole(key) if isinstance(key, int) else _plain(key))


def _whole(number: int) -> int | str:
    """Return a whole number, or its hexadecimal digits if Python writes no others of so many."""
    try:
        int.__repr__(number)
    except ValueError:
        return hex(number)
    return number


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain).encode
