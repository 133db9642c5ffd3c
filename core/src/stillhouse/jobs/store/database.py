"""The database of a run: how it is created and opened, and what its errors mean.

One SQLite file holds a run: its command (`info`), every row that has a result (`rows`), and the
processes that worked on it (`sessions`). One process at a time writes it, which a lock file next to it
ensures; any number may read meanwhile. Every record has a seal; see `stillhouse.jobs.store.seals`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Literal

from stillhouse._wording import install_command
from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.partial import PartialFolder
from stillhouse.jobs.formats.targets import beside
from stillhouse.jobs.store.schema import APPLICATION_ID, SCHEMA_VERSION, build

__all__ = [
    "DONE", "FAILED", "QUEUED", "SQLITE_ERRORS", "DamagedError", "LostError", "Outcome", "StoreError",
    "TakenOverError", "check_not_open", "connect", "has_application_id", "is_idle", "not_ours", "read",
    "reading", "store_path", "translated",
]  # fmt: skip

# The states of a row.
QUEUED, DONE, FAILED = 0, 1, 2

Outcome = Literal["complete", "interrupted", "stopped", "waiting"]
"""How the work of a process on a run ended; `stopped`: by an error, `waiting`: for offline batches."""

# How long a state that another process has open is waited for: `stillhouse status` opens it for an instant.
PATIENCE_SECONDS = 1.0
POLL_SECONDS = 0.05

SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""The exceptions of SQLite; it raises the latter if its message quotes a damaged name."""

# What the system refused, whatever is in the file.
_OF_THE_SYSTEM = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR,
     sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_AUTH}
)  # fmt: skip


class StoreError(ConfigurationError):
    """The run's database cannot be used, or cannot be written any more."""


class LostError(StoreError):
    """The run's database is not where it was when the work began."""


class TakenOverError(StoreError):
    """Another process writes the copy of this run, so that this process must not continue."""


class DamagedError(StoreError):
    """The run's database is not as Stillhouse wrote it; its readable records can be kept."""


def not_ours(path: Path) -> StoreError:
    """Return the error for a file that has a name that a run needs, and was not made by Stillhouse."""
    return StoreError(
        f"{path} exists, and Stillhouse did not make it; the run needs a file of that name",
        hint="move it away, or give another output",
    )


def store_path(output: Path) -> Path:
    """Return the path of the database of an output's run."""
    return beside(output, ".run.db")


def connect(path: Path) -> sqlite3.Connection:
    """Open the database for the one process that writes it; create it if it does not exist.

    Raises:
        DamagedError: it is damaged, or not a run's.
        StoreError: it is empty, of another version, or cannot be written.
    """
    if not os.path.lexists(path):
        _create(path)
    connection = _open(path, "rw")
    try:
        with translated(path):
            # A commit is safe from the end of the process at once, and from that of the machine
            # when `Upkeep` has it written through.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


def _create(path: Path) -> None:
    """Create an empty database of a run, in one step, so that it never exists without its tables."""
    try:
        folder = PartialFolder(path)
        try:
            part = folder.path / path.name
            with (
                translated(path),
                contextlib.closing(sqlite3.connect(part.absolute(), isolation_level=None)) as connection,
            ):
                build(connection)
            # A log that is left without its database would be read into this one.
            for suffix in ("-wal", "-shm", "-journal"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
            part.replace(path)
        finally:
            folder.remove()
    except OSError as error:
        raise StoreError(
            f"the run's state {path} cannot be written: {error.strerror or error}",
            hint="check the folder and its permissions",
        ) from None


def read(path: Path, options: str = "") -> sqlite3.Connection:
    """Open the database for reading, also while another process writes it; see `reading`.

    Args:
        path: the database.
        options: further options of the address with which SQLite opens a file that others may write.

    Raises:
        DamagedError: it is damaged, or not a run's.
        StoreError: it does not exist, is empty or of another version, or cannot be read.
    """
    if not path.is_file():
        raise StoreError(
            f"there is no run of this output: {path} does not exist",
            hint="give the OUTPUT of a stillhouse generate",
        )
    # Reading it as immutable leaves no files next to it.
    return _open(path, "ro", "&immutable=1" if is_idle(path) else options)


def is_idle(path: Path) -> bool:
    """Whether no process writes a database: there is no log."""
    return not Path(f"{os.path.realpath(path)}-wal").exists()


def _open(path: Path, mode: str, options: str = "") -> sqlite3.Connection:
    """Open an existing database, and check that it belongs to a run before anything is changed."""
    try:
        is_empty = path.stat().st_size == 0
    except OSError as error:
        raise StoreError(
            f"the run's state {path} cannot be opened: {error.strerror}", hint="check where the link leads"
        ) from None
    if is_empty:
        raise StoreError(
            f"the run's state {path} is empty: it was cut off, or Stillhouse did not make it",
            hint="put a copy in its place, or start over with --restart",
        )
    uri = f"{sqlite_uri(path.absolute())}?mode={mode}{options}"
    with translated(path):
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10.0)
        try:
            _check_version(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def check_not_open(path: Path) -> None:
    """Refuse a database that another process has open, for example because its lock file was removed.

    Raises:
        StoreError: it is open elsewhere.
    """
    ends = time.monotonic() + PATIENCE_SECONDS
    while _is_open(path):
        if time.monotonic() > ends:
            raise StoreError(
                f"another process has the state of this run open: {path}",
                hint="wait for it, or close the program; stillhouse status shows how the run goes",
            )
        time.sleep(POLL_SECONDS)


def _is_open(path: Path) -> bool:
    """Whether another connection has a database open: each holds a lock on the file while it is open."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    uri = f"{sqlite_uri(path.absolute())}?mode=rw"
    try:
        with contextlib.closing(
            sqlite3.connect(uri, uri=True, isolation_level=None, timeout=0)
        ) as connection:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except SQLITE_ERRORS as error:  # others are reported where it is used
        return _code_of(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return False


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the database for reading while the block runs, in which SQLite's errors become `StoreError`.

    Raises:
        StoreError: it does not exist, or cannot be used.
    """
    with contextlib.closing(read(path)) as connection, translated(path):
        yield connection


def sqlite_uri(path: PurePath) -> str:
    """Return an absolute path as the address by which SQLite opens it.

    SQLite takes no host in an address. That of a share on Windows, `\\\\host\\share`, is part of its path.
    """
    uri = path.as_uri()
    return uri if uri.startswith("file:///") else uri.replace("file://", "file:////", 1)


def has_application_id(path: Path) -> bool:
    """Whether a file begins like a run's database, or is empty, so that there is nothing to lose."""
    try:
        with path.open("rb") as stream:
            head = stream.read(72)
    except OSError:
        return False
    return not head or head[68:] == APPLICATION_ID.to_bytes(4, "big")


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a database that is not a run's, or that another version of Stillhouse wrote."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    has_tables = connection.execute("SELECT 1 FROM sqlite_master").fetchone() is not None
    if not has_tables and application in (0, APPLICATION_ID):
        raise DamagedError(
            f"the run's state {path} has no tables: it was copied without {path.name}-wal, or cut off",
            hint="put that file beside it again, or a copy in its place, or move it away and start over",
        )
    if application != APPLICATION_ID:
        raise DamagedError(f"{path} is a database of something else", hint="give another output, or move it")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written by a newer version of stillhouse (schema {version}; this one knows "
            f"{SCHEMA_VERSION})",
            hint=install_command("stillhouse", options="--upgrade"),
        )
    if version < SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written by an earlier version of stillhouse (schema {version}; this one knows "
            f"{SCHEMA_VERSION} alone)",
            hint="finish the run with that version, give another output, or start over with --restart",
        )


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into `StoreError`: what happened to the run and what to do."""
    try:
        yield
    except SQLITE_ERRORS as error:
        code = _code_of(error)
        again = "then repeat the command to resume"
        if code == sqlite3.SQLITE_FULL:
            raise StoreError(f"the disk of {path} is full", hint=f"make room, {again}") from error
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            raise StoreError(
                f"the run's state {path} cannot be written: {error}",
                hint="check the folder and its permissions",
            ) from error
        if code in _OF_THE_SYSTEM:
            raise StoreError(
                f"the run's state {path} cannot be used: {error}", hint=f"fix that, {again}"
            ) from error
        # Among others a table that is not there, and a text that is none.
        raise DamagedError(
            f"the run's state {path} is damaged and cannot be used: {error}",
            hint="make the same command again: it keeps every row that can be read",
        ) from error


def _code_of(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
