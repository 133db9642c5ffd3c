"""Writing rows to a file that is not there before it is whole."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import math
import os
import sys
from pathlib import Path
from typing import IO, Any

from stillhouse.errors import ConfigurationError

__all__ = ["JsonlWriter", "PartialFile"]


class PartialFile:
    """A file that is written as `PATH.partial` and gets its name when it is whole.

    Args:
        path: the name that it gets.

    Attributes:
        stream: what to write to.

    Raises:
        ConfigurationError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f"{path.name}.partial")
        try:
            if path.is_dir():
                raise IsADirectoryError(0, "it is a folder")
            self.stream: IO[bytes] = self._partial.open("wb", buffering=1 << 16)
        except OSError as error:
            raise ConfigurationError(
                f"{path} cannot be written: {error.strerror}", hint="check the folder and its permissions"
            ) from None

    def finish(self) -> None:
        """Put the file in the place of an earlier one, in one step."""
        self.stream.flush()
        os.fsync(self.stream.fileno())
        self.stream.close()
        self._partial.replace(self._path)

    def abandon(self) -> None:
        """Remove it."""
        with contextlib.suppress(OSError):  # the disk is full: what was buffered cannot be written
            self.stream.close()
        self._partial.unlink(missing_ok=True)


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
    """JSON in one line, of text that can be encoded.

    What JSON has no type for: dates and times are ISO text, bytes are base64, a number that is
    none or infinite is null, and anything else is its text.
    """
    try:
        text = _encode(value)
    except ValueError:
        value = _finite(value)
        text = _encode(value)
    # Half a surrogate pair, which only an escape can carry; a text without one is found fast.
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
