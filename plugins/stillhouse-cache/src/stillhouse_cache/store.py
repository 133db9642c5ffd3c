"""A bounded table of keys and values in one SQLite database, for several processes at once."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from stillhouse_cache.known import KnownKeys

__all__ = ["ForeignError", "Store"]

_PAGE_BYTES = 4096
_BUSY_SECONDS = 10.0

# Asking the database for a key that it does not have costs as much as reading this many keys from it.
_READ_KEYS = 20

# How old what is known of the keys of other processes may be.
_KNOWN_SECONDS = 1.0

# Bytes of the limit for each bit of what is known of the keys: sixteen for an entry of a kilobyte.
_BYTES_A_BIT = 64

_DAY_SECONDS = 86_400

# Sixteen megabytes: the keys of a group are spread over the whole index, and the larger a group is, the more
# of them share a page that is written.
_MOST_LOG_PAGES = 4000

# What one transaction may take: so many entries for a page of the log, each of which may change a page of its
# own, and a share of the log for the values.
_ENTRIES_A_PAGE = 1 / 2
_VALUES_SHARE = 1 / 4

# The oldest entries are deleted this many at a time to make room: few enough that other processes do
# not wait, enough that it is seldom necessary.
_EVICTED_AT_ONCE = 64

# More pages than inserting an entry takes in addition to those of the value, and than inserting any does.
_ENTRY_PAGES = 2
_TREE_PAGES = 64

# A connection may not be used in a forked child, nor closed there.
_left_to_the_parent: list[sqlite3.Connection] = []


class ForeignError(sqlite3.DatabaseError):
    """The database is one of something else: nothing in it is changed."""


class Store:
    """Keys and values on the disk, the entries not used for longest leaving first.

    The file never grows beyond its limit: SQLite itself refuses, and room is made. When an entry
    was last used is known to the day, so that reading seldom writes.

    Args:
        path: the database; its folder is made if it is missing.
        limit: how many bytes the database and its log may take.
        clock: the time in seconds.

    Attributes:
        group_entries: how many values `put` stores at once at most.
        group_bytes: how many bytes of values.

    Every method raises `sqlite3.Error` or `OSError` as SQLite or the file system does.
    """

    def __init__(self, path: Path, limit: int, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._limit = limit
        self._clock = clock
        # What one transaction writes must fit into the log, which is part of the limit.
        pages = _log_pages(limit)
        self.group_entries = max(1, int(pages * _ENTRIES_A_PAGE))
        self.group_bytes = int(pages * _PAGE_BYTES * _VALUES_SHARE)
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._pid = os.getpid()
        self._touches = True
        self._misses = 0
        self._known: KnownKeys | None = None
        self._known_until = 0  # the id of the last entry that it has
        self._read_at = 0.0

    def get(self, key: bytes) -> bytes | None:
        """The value under a key, or `None`."""
        self._check_process()
        known = self._known
        if known is not None and key not in known and time.monotonic() < self._read_at + _KNOWN_SECONDS:
            return None
        with self._lock:
            connection = self._connection or self._opened()
            if self._known is not None and not self._may_have(connection, key):
                return None
            row = connection.execute("SELECT id, used, value FROM entry WHERE key = ?", (key,)).fetchone()
            if row is None:
                self._on_miss(connection)
                return None
            today = self._today()
            if row[1] != today and self._touches:
                try:
                    connection.execute("UPDATE entry SET used = ? WHERE id = ?", (today, row[0]))
                except sqlite3.OperationalError:  # locked or full: not worth losing the value for
                    self._touches = False
        value: bytes = row[2]
        return value

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Store values, all or none, in the place of older ones. One that is too large is left out."""
        kept = {key: value for key, value in values.items() if len(value) <= self._limit // 8}
        if not kept:
            return
        self._check_process()
        with self._lock:
            connection = self._connection or self._opened()
            while True:
                try:
                    before = _insert(connection, kept, self._today())
                    break
                except sqlite3.OperationalError as error:
                    evicted = max(_EVICTED_AT_ONCE, len(kept))
                    if not _is_at_limit(connection, error, kept) or not _evict(connection, evicted):
                        raise
            if self._known is not None:
                for key in kept:
                    self._known.add(key)
                if before == self._known_until:  # no other process added entries meanwhile
                    self._known_until = _last_id(connection)

    def _on_miss(self, connection: sqlite3.Connection) -> None:
        """Begin to know the keys, once the misses have cost as much as reading all keys does."""
        self._misses += 1
        if self._known is None:
            first, last = connection.execute("SELECT min(id), max(id) FROM entry").fetchone()
            if self._misses * _READ_KEYS >= (last or 0) - (first or 0):
                self._known, self._known_until = KnownKeys(self._limit // _BYTES_A_BIT), 0
                self._read_keys(connection)

    def _may_have(self, connection: sqlite3.Connection, key: bytes) -> bool:
        if time.monotonic() >= self._read_at + _KNOWN_SECONDS:
            self._read_keys(connection)
        return self._known is None or key in self._known

    def _read_keys(self, connection: sqlite3.Connection) -> None:
        """Read the keys of the entries that were added since the last time, by any process."""
        assert self._known is not None
        self._read_at = time.monotonic()
        query = "SELECT id, key FROM entry WHERE id > ? ORDER BY id"
        for id, key in connection.execute(query, (self._known_until,)):
            self._known.add(key)
            self._known_until = id

    def close(self) -> None:
        """Close the database; the next `get` or `put` opens it again."""
        if os.getpid() == self._pid:
            with self._lock:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
                self._known, self._misses = None, 0

    def _today(self) -> int:
        return int(self._clock() // _DAY_SECONDS)

    def _opened(self) -> sqlite3.Connection:
        """Open the database; called with the lock held."""
        self._connection = _open(self._path, self._limit)
        return self._connection

    def _check_process(self) -> None:
        """Leave the connection to the parent, after a fork."""
        if os.getpid() == self._pid:
            return
        # The lock may have been held by a thread that the child does not have.
        self._lock = threading.Lock()
        self._pid = os.getpid()
        if self._connection is not None:
            _left_to_the_parent.append(self._connection)
            self._connection = None


def _open(path: Path, limit: int) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection, limit)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, limit: int) -> None:
    _check_own(connection)
    pages, log_pages = limit // _PAGE_BYTES, _log_pages(limit)
    connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    _use_log(connection)
    # A crash of the machine may lose the latest entries, and never damages the file.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {log_pages}")
    connection.execute(f"PRAGMA journal_size_limit = {log_pages * _PAGE_BYTES}")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS entry"
        " (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, used INTEGER NOT NULL, value BLOB NOT NULL)"
    )
    connection.execute("CREATE INDEX IF NOT EXISTS entry_used ON entry (used)")
    # Of the rest, 16 pages are the index of the log.
    own_pages = pages - 2 * log_pages - 16
    _shrink(connection, own_pages)
    connection.execute(f"PRAGMA max_page_count = {own_pages}")


def _check_own(connection: sqlite3.Connection) -> None:
    """Refuse a database that has other tables than a cache.

    Raises:
        ForeignError: it has.
    """
    found = {
        name: {column[1] for column in connection.execute("SELECT * FROM pragma_table_info(?)", (name,))}
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        ).fetchall()
    }
    if found and found != {"entry": {"id", "key", "used", "value"}}:
        raise ForeignError("it is the database of another program")


def _log_pages(limit: int) -> int:
    """How many pages the log may have before it is written back."""
    return min(_MOST_LOG_PAGES, limit // _PAGE_BYTES // 8)


def _use_log(connection: sqlite3.Connection) -> None:
    """Turn write-ahead logging on: readers and a writer do not wait for each other.

    SQLite does not wait where two processes do this to a new database at once.
    """
    until = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)


def _shrink(connection: sqlite3.Connection, pages: int) -> None:
    """Bring a database from under a higher limit down to a number of pages."""
    while (now := _number(connection, "page_count")) > pages:
        entries = connection.execute("SELECT count(*) FROM entry").fetchone()[0]
        # Half of what seems too much at a time, for the oldest may be larger than the others.
        count = max(_EVICTED_AT_ONCE, int(entries * (now - pages) / now / 2))
        if not _evict(connection, count):
            break
        # `execute` would free a single page: it takes one step of a statement without rows.
        connection.executescript("PRAGMA incremental_vacuum")


def _insert(connection: sqlite3.Connection, values: Mapping[bytes, bytes], today: int) -> int:
    """Insert entries, and return the id of the last one before them."""
    # Of the write lock from the beginning: one that is taken later may be refused without waiting.
    connection.execute("BEGIN IMMEDIATE")
    try:
        before = _last_id(connection)
        connection.executemany(
            "INSERT OR REPLACE INTO entry (key, used, value) VALUES (?, ?, ?)",
            [(key, today, value) for key, value in values.items()],
        )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite ends some of those that fail by itself
            connection.execute("ROLLBACK")
        raise
    return before


def _last_id(connection: sqlite3.Connection) -> int:
    """Return the id of the last entry, or 0."""
    return int(connection.execute("SELECT max(id) FROM entry").fetchone()[0] or 0)


def _evict(connection: sqlite3.Connection, count: int) -> bool:
    """Delete the entries not used for longest; whether there were any."""
    return (
        connection.execute(
            "DELETE FROM entry WHERE id IN (SELECT id FROM entry ORDER BY used, id LIMIT ?)", (count,)
        ).rowcount
        > 0
    )


def _is_at_limit(connection: sqlite3.Connection, error: sqlite3.Error, values: Mapping[bytes, bytes]) -> bool:
    """Whether the limit refused values, and not the disk, which SQLite reports alike."""
    if _code(error) != sqlite3.SQLITE_FULL:
        return False
    free = _number(connection, "freelist_count")
    room = _number(connection, "max_page_count") - _number(connection, "page_count")
    wanted = sum(len(value) // _PAGE_BYTES + _ENTRY_PAGES for value in values.values())
    return free + room < wanted + _TREE_PAGES


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def _code(error: sqlite3.Error) -> int:
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
