"""The lock that keeps a run to one process at a time."""

from __future__ import annotations

import contextlib
import stat
import time
from pathlib import Path
from typing import Protocol

from stillhouse.jobs.store.database import StoreError, not_ours, read

__all__ = ["RunLock", "acquire", "is_worked_on", "lock_path"]


class RunLock(Protocol):
    """The lock of a run. It counts: a process that acquired it twice releases it twice."""

    def acquire(self, timeout: float | None = None) -> object:
        """Acquire the lock, or count one more holder if this process has it."""

    def release(self) -> None:
        """Count one holder less; the last one frees the lock."""


def is_worked_on(path: Path) -> bool:
    """Whether a process works on the run of this database, on this machine or one that shares the folder."""
    import filelock

    if not _is_lock(lock_path(path)):
        return False
    lock = filelock.FileLock(lock_path(path))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    except OSError:  # a folder that this user cannot write
        return False
    lock.release()
    return False


def lock_path(path: Path) -> Path:
    """Return the path of the lock file of a run's database."""
    return path.with_name(f"{path.name}.lock")


def _is_lock(path: Path) -> bool:
    """Whether a path is free or is a lock: an empty file, so that truncating it loses nothing."""
    try:
        status = path.lstat()
    except OSError:  # it is reported when it is opened
        return True
    return stat.S_ISREG(status.st_mode) and status.st_size == 0


def acquire(path: Path, held: RunLock | None = None) -> RunLock:
    """Acquire the lock of the one process that works on a run.

    Args:
        path: the run's database.
        held: the lock, if this process has it already; it is acquired once more.

    Raises:
        StoreError: another process has it, or the file cannot be made.
    """
    if held is not None:
        held.acquire()
        return held
    import filelock

    if not _is_lock(lock_path(path)):
        raise not_ours(lock_path(path))
    lock = filelock.FileLock(lock_path(path))
    try:
        # `is_worked_on` in another process holds it for an instant.
        lock.acquire(timeout=1.0)
    except filelock.Timeout:
        raise StoreError(
            f"another process works on this run: {_worker(path)}",
            hint="wait for it, or look at it with stillhouse status; it may be on another machine",
        ) from None
    except OSError as error:
        raise StoreError(
            f"the run's state {path} cannot be written: {error.strerror}",
            hint="check the folder and its permissions, or give an output elsewhere",
        ) from None
    return lock


def _worker(path: Path) -> str:
    """Name the process that works on a run, as far as its database does."""
    with contextlib.suppress(StoreError), contextlib.closing(read(path)) as connection:
        found = connection.execute(
            "SELECT process, host, started FROM sessions ORDER BY session DESC LIMIT 1"
        ).fetchone()
        if found:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found[2]))
            return f"process {found[0]} on {found[1]}, since {since}"
    return f"{path}.lock is held"
