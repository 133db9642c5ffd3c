"""`Cache`: a store that never raises: it reports the first failure, and disables itself."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from pathlib import Path

from stillhouse_cache.store import ForeignError, Store

__all__ = ["DATABASE", "Cache"]

DATABASE = "outputs-1.db"
"""The name of the database; the number changes with its format."""

GROUP_SECONDS = 1.0
"""How long a value may wait for others, so that they are stored together; a kill loses no older one."""

_logger = logging.getLogger("stillhouse.cache")

_ELSEWHERE = "set STILLHOUSE_CACHE_DIR to another folder"


class Cache:
    """The outputs in one folder.

    A commit for each output would cost more than the output: they are stored in groups, bounded by their
    number, their bytes and the time. What waits is found too.

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
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._pid = os.getpid()
        # The one is for what waits, and held for moments; the other is held while a group is stored.
        self._lock = threading.Lock()
        self._storing = threading.Lock()
        self._waiting: dict[bytes, bytes] = {}
        self._waiting_bytes = 0
        self._group: dict[bytes, bytes] = {}  # what is being stored
        self._timer: threading.Timer | None = None

    def get(self, key: bytes) -> bytes | None:
        """Return the value under a key; `None` if there is none, or it cannot be read."""
        if not self.is_readable:
            return None
        self._check_process()
        # In this order: a value goes from the one to the other, and then to the store.
        value = self._waiting.get(key) or self._group.get(key)
        if value is not None:
            return value
        try:
            return self._store.get(key)
        except (sqlite3.Error, OSError) as error:
            if self.is_readable:
                self.is_readable = self.is_writable = False
                self._say("cannot be used", "generating continues without it", error)
            return None

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value, if it can be written: with others, within `GROUP_SECONDS`."""
        if not self.is_writable:
            return
        self._check_process()
        with self._lock:
            self._waiting[key] = value
            self._waiting_bytes += len(value)
            store = self._store
            is_full = (
                len(self._waiting) >= store.group_entries or self._waiting_bytes >= store.group_bytes
            ) or not self._has_timer()
        if is_full:
            self.flush()

    def flush(self) -> None:
        """Store what waits."""
        self._check_process()
        with self._storing:
            with self._lock:
                self._group, self._waiting, self._waiting_bytes = self._waiting, {}, 0
            try:
                if self.is_writable:
                    self._store.put(self._group)
            except (sqlite3.Error, OSError) as error:
                self.is_writable = False
                self._say("cannot be written", "generating continues, and nothing more is stored", error)
            except BaseException:  # an interrupt: nothing of the group was stored
                with self._lock:
                    self._waiting = {**self._group, **self._waiting}
                raise
            finally:
                self._group = {}

    def close(self) -> None:
        """Store what waits and close the database; it is opened again when it is needed."""
        self.flush()
        timer = self._timer
        if timer is not None:
            timer.cancel()
            self._timer = None
        self._store.close()

    def _has_timer(self) -> bool:
        """Start the timer of the group unless it runs; whether one could be started."""
        if self._timer is None:
            timer = threading.Timer(GROUP_SECONDS, self._on_timer)
            timer.daemon = True
            try:
                timer.start()
            except RuntimeError:  # the interpreter ends, or there are too many threads
                return False
            self._timer = timer
        return True

    def _on_timer(self) -> None:
        self._timer = None
        self.flush()

    def _check_process(self) -> None:
        """Leave what waits to the parent, after a fork: its locks and its timer are not the child's."""
        if os.getpid() != self._pid:
            self._begin_anew()

    def _say(self, what: str, effect: str, error: Exception) -> None:
        _logger.warning(
            "the cache %s %s (%s); %s\n  try  %s", self._path, what, error, effect, self._hint(error)
        )

    def _hint(self, error: Exception) -> str:
        if isinstance(error, ForeignError):
            return _ELSEWHERE
        code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return f"delete {self._path}; nothing but cached outputs is lost"
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            return f"look whether the disk has space left, or {_ELSEWHERE}"
        if code == sqlite3.SQLITE_BUSY:
            return f"end the process that holds the database, or {_ELSEWHERE}"
        return f"make the folder writable, or {_ELSEWHERE}"
