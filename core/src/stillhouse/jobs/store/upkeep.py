"""`Upkeep`: the regular work on a state, each second, while a process works on the run."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from stillhouse.jobs.store.database import SQLITE_ERRORS, LostError, sqlite_uri
from stillhouse.jobs.store.lock import RunLock

__all__ = ["Upkeep"]

# How long a commit may stay in the log, and where the machine ends with the process in the system's cache.
SECONDS = 1.0


class Upkeep:
    """A thread that writes commits to the file each second, and checks whether the file still exists.

    Args:
        path: the database, which is open.
        lock: that of the run.
        on_lost: called once with the reason if the database is not at its path any more.
    """

    def __init__(self, path: Path, lock: RunLock, on_lost: Callable[[LostError], None]) -> None:
        self._path = path
        self._lock = lock
        self._on_lost = on_lost
        self._status = path.stat()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stillhouse-upkeep", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), self._status)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # the disk does not answer: the next access to the database reports it
            return True

    def _run(self) -> None:
        uri = f"{sqlite_uri(self._path.absolute())}?mode=rw"
        while not self._ended.wait(SECONDS):
            if not self._is_in_place():
                self._on_lost(_lost(self._path))
                return
            self._lock.put_back()
            # What cannot be written here is still in the log; the next commit meets the same.
            with (
                contextlib.suppress(*SQLITE_ERRORS),
                contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection,
            ):
                connection.execute("PRAGMA wal_checkpoint")


def _lost(path: Path) -> LostError:
    return LostError(
        f"the run's state {path} was moved, removed or replaced while the run worked on it",
        hint="put it back, with the files beside it whose names begin alike, and make the same command again",
    )
