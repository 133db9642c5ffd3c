"""`JsonlWriter`: rows as lines of JSON."""

from __future__ import annotations

import base64
import datetime
import json
import math
import sys
from pathlib import Path
from typing import Any

from stillhouse.jobs.formats.partial import PartialFile

__all__ = ["JsonlWriter"]


class JsonlWriter:
    """Writes rows as lines of JSON, to a file or, for `-`, to standard output at once.

    Raises:
        ConfigurationError: the file cannot be written.
    """

    def __init__(self, target: str) -> None:
        self._file = None if target == "-" else PartialFile(Path(target))
        self._stream = sys.stdout.buffer if self._file is None else self._file.stream

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
    """Return JSON in one line, which UTF-8 can encode.

    Values without a JSON type: dates and times become ISO text, bytes base64, NaN and infinite
    numbers null, and anything else the text of `str`.
    """
    try:
        text = _encode(value)
    except ValueError:
        value = _finite(value)
        text = _encode(value)
    # Half a surrogate pair can only be escaped; a text without one is recognized fast.
    return text if text.isascii() or _is_encodable(text) else json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain).encode


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
