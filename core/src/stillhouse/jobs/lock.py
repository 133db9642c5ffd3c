"""The lock that keeps a run to one process at a time."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from stillhouse.jobs.database import StoreError, read

__all__ = ["acquire", "is_worked_on"]


def is_worked_on(path: Path) -> bool:
    """Whether a process works on the run of this database, on this machine or one that shares the folder."""
    import filelock

    lock = filelock.FileLock(_lock_path(path))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    except OSError:  # a folder that this user cannot write
        return False
    lock.release()
    return False


def _lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def acquire(path: Path) -> Any:
    """The lock of the one process that works on a run."""
    import filelock

    lock = filelock.FileLock(_lock_path(path))
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
