"""The lock that keeps a run to one process at a time."""

from __future__ import annotations

import contextlib
import stat
import time
from pathlib import Path
from typing import Any

from stillhouse.jobs.store.database import StoreError, read

__all__ = ["acquire", "is_worked_on", "lock_path"]


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
    """The file that the process holds which works on the run of this database."""
    return path.with_name(f"{path.name}.lock")


def _is_lock(path: Path) -> bool:
    """Whether a path is free, or holds a lock: an empty file, which a library may open and empty again."""
    try:
        status = path.lstat()
    except OSError:  # what cannot be looked at is told when it is opened
        return True
    return stat.S_ISREG(status.st_mode) and status.st_size == 0


def acquire(path: Path) -> Any:
    """The lock of the one process that works on a run."""
    import filelock

    if not _is_lock(lock_path(path)):
        raise StoreError(
            f"{lock_path(path)} exists, and Stillhouse did not make it; the run needs a file of that name",
            hint="move it away, or give another output",
        )
    lock = filelock.FileLock(lock_path(path))
    try:
        # Who only asks whether somebody works holds it for an instant.
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
    """Who works on a run, as far as it says."""
    with contextlib.suppress(StoreError), contextlib.closing(read(path)) as connection:
        found = connection.execute(
            "SELECT process, host, started FROM sessions ORDER BY session DESC LIMIT 1"
        ).fetchone()
        if found:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found[2]))
            return f"process {found[0]} on {found[1]}, since {since}"
    return f"{path}.lock is held"
