"""`Cache`: a store that never raises: it reports the first failure, and disables itself."""

from __future__ import annotations

import logging
import sqlite3
import weakref
from pathlib import Path

from stillhouse_cache.store import Store

__all__ = ["DATABASE", "Cache"]

DATABASE = "outputs-1.db"
"""The name of the database; the number changes with its format."""

_logger = logging.getLogger("stillhouse.cache")

_ELSEWHERE = "set STILLHOUSE_CACHE_DIR to another folder"


class Cache:
    """The outputs in one folder.

    Attributes:
        is_readable: whether looking up is worth while; not any more after a failure to read.
        is_writable: whether storing is; not any more after a failure to write, such as a full
            disk. What is stored already is still found then.
    """

    def __init__(self, directory: Path, limit: int) -> None:
        self._path = directory / DATABASE
        self._store = Store(self._path, limit)
        self.is_readable = True
        self.is_writable = True
        # Also at the exit of the interpreter, so that the log is written back.
        self._finalizer = weakref.finalize(self, self._store.close)

    def get(self, key: bytes) -> bytes | None:
        """Return the value under a key; `None` if there is none, or it cannot be read."""
        if not self.is_readable:
            return None
        try:
            return self._store.get(key)
        except (sqlite3.Error, OSError) as error:
            if self.is_readable:
                self.is_readable = self.is_writable = False
                self._say("cannot be used", "generating goes on without it", error)
            return None

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value, if it can be written."""
        if not self.is_writable:
            return
        try:
            self._store.put(key, value)
        except (sqlite3.Error, OSError) as error:
            if self.is_writable:
                self.is_writable = False
                self._say("cannot be written", "generating goes on, and nothing more is stored", error)

    def close(self) -> None:
        """Close the database; it is opened again when it is needed."""
        self._store.close()

    def _say(self, what: str, effect: str, error: Exception) -> None:
        _logger.warning(
            "the cache %s %s (%s); %s\n  try  %s", self._path, what, error, effect, self._hint(error)
        )

    def _hint(self, error: Exception) -> str:
        code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return f"delete {self._path}; nothing but cached outputs is lost"
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            return f"look whether the disk has space left, or {_ELSEWHERE}"
        if code == sqlite3.SQLITE_BUSY:
            return f"end the process that holds the database, or {_ELSEWHERE}"
        return f"make the folder writable, or {_ELSEWHERE}"
