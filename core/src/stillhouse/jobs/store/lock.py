"""The lock that keeps a run to one process at a time."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from pathlib import Path

from stillhouse.jobs.store.database import StoreError, not_ours, reading

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["RunLock", "acquire", "is_worked_on", "lock_path"]

# How long a lock is waited for: `is_worked_on` in another process holds it for an instant.
PATIENCE_SECONDS = 1.0
POLL_SECONDS = 0.05


class RunLock:
    """The lock of a run: an empty file that one process has locked, and that is removed with the lock.

    It counts its holders: acquiring it twice requires releasing it twice.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1
        self._holders = 0

    def acquire(self) -> bool:
        """Acquire the lock, or count one more holder; return whether no other process has it.

        Raises:
            OSError: the file cannot be created or locked.
            StoreError: a file that is not a lock has that name.
        """
        if self._holders == 0:
            ends = time.monotonic() + PATIENCE_SECONDS
            while not self._try():
                if time.monotonic() > ends:
                    return False
                time.sleep(POLL_SECONDS)
        self._holders += 1
        return True

    def _try(self) -> bool:
        descriptor = _locked(self.path, os.O_CREAT)
        if descriptor is None:
            return False
        self._descriptor = descriptor
        return True

    @property
    def is_in_place(self) -> bool:
        """Whether the locked file is still the one with that name."""
        return _is_at(self._descriptor, self.path)

    def put_back(self) -> None:
        """Lock a new file if the lock file was removed, so that other processes see the lock."""
        if self.is_in_place:
            return
        with contextlib.suppress(OSError, StoreError):
            descriptor = _locked(self.path, os.O_CREAT)
            if descriptor is not None:
                self._descriptor, descriptor = descriptor, self._descriptor
                os.close(descriptor)

    def release(self) -> None:
        """Count one holder less; the last one frees the lock and removes its file."""
        self._holders -= 1
        if self._holders:
            return
        # Removed while it is locked, so that nobody else's is. Windows removes no open file, and none
        # that another process has opened meanwhile.
        if sys.platform != "win32" and self.is_in_place:
            with contextlib.suppress(OSError):
                self.path.unlink()
        os.close(self._descriptor)
        if sys.platform == "win32":
            with contextlib.suppress(OSError):
                self.path.unlink()


def _locked(path: Path, flags: int) -> int | None:
    """Open a lock file, never through a link, and lock it; return `None` if another process has it."""
    if not _is_lock(path):
        raise not_ours(path)
    flags |= os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags, 0o644)
    try:
        # The one that had it may have removed the file between the two: then this one locks nothing.
        if _lock(descriptor) and _is_at(descriptor, path):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _is_lock(path: Path) -> bool:
    """Whether a path does not exist or is a lock, that is an empty file."""
    try:
        status = path.lstat()
    except OSError:  # it is reported when it is opened
        return True
    return stat.S_ISREG(status.st_mode) and status.st_size == 0


def _lock(descriptor: int) -> bool:
    """Lock an open file until it is closed or the process ends; return whether no other process had it."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False


def is_worked_on(path: Path) -> bool:
    """Whether a process works on the run of this database, on this machine or one that shares the folder."""
    try:
        descriptor = _locked(lock_path(path), 0)
    except (OSError, StoreError):  # there is none, or a folder that this user cannot write
        return False
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def lock_path(path: Path) -> Path:
    """Return the path of the lock file of a run's database."""
    return path.with_name(f"{path.name}.lock")


def acquire(path: Path, held: RunLock | None = None) -> RunLock:
    """Acquire the lock of the one process that works on a run.

    Args:
        path: the run's database.
        held: the lock, if this process has it already; it is acquired once more.

    Raises:
        StoreError: another process has it, or the file cannot be created.
    """
    lock = RunLock(lock_path(path)) if held is None else held
    try:
        is_ours = lock.acquire()
    except OSError as error:
        raise StoreError(
            f"the run's state {path} cannot be written: {error.strerror}",
            hint="check the folder and its permissions, or give an output elsewhere",
        ) from None
    if not is_ours:
        raise StoreError(
            f"another process works on this run: {_worker(path)}",
            hint="wait for it, or look at it with stillhouse status; it may be on another machine",
        )
    return lock


def _worker(path: Path) -> str:
    """Return the name of the process that works on a run, if its database has it."""
    with contextlib.suppress(StoreError), reading(path) as connection:
        found = connection.execute(
            "SELECT process, host, started FROM sessions ORDER BY session DESC LIMIT 1"
        ).fetchone()
        if found:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found[2]))
            return f"process {found[0]} on {found[1]}, since {since}"
    return f"{path}.lock is held"
