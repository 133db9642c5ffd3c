"""`StateCopier`: copies the state of a run to its place regularly, in a thread, while the run works.

Over 300 lines: it is one class, and what may be said and what may be replaced depends on every step of it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from stillhouse._wording import duration, moment
from stillhouse.errors import ConfigurationError
from stillhouse.jobs.copies.facts import KEY, CopyFact
from stillhouse.jobs.copies.marks import Mark
from stillhouse.jobs.copies.target import SPARE_BYTES, CopyTarget
from stillhouse.jobs.formats.partial import PartialFolder
from stillhouse.jobs.formats.writers import to_json
from stillhouse.jobs.store.database import StoreError, TakenOverError, sqlite_uri
from stillhouse.jobs.store.schema import SCHEMA_VERSION
from stillhouse.jobs.store.seals import sealed

__all__ = ["COPY_SECONDS", "StateCopier", "snapshot"]

COPY_SECONDS = 60.0
"""From the end of a copy to the next one."""

MAX_SHARE_OF_TIME = 0.1
"""How much of the time copies may take: after one that takes long, the next one waits longer."""

WARN_SECONDS = 600.0
"""From one warning about a copy that cannot be written to the next; twice as long each time."""

MAX_WARN_SECONDS = 6 * 3600.0

NOTICE_SECONDS = 5.0
"""How long a run waits for a copy until it says so."""

MAX_EARLIER = 4
"""Of how many earlier processes are removed what they have left beside the copy."""

_WAITING = "waiting for the last copy of the state to be written to %s; an interrupt ends the run without it"

_BUSY_SECONDS = 10.0

_logger = logging.getLogger("stillhouse.jobs")


class StateCopier:
    """Copies the state of one run while a process works on it.

    Args:
        target: where to.
        state: the state; the process has its lock.
        output: the name of the run's output.
        fact: what the state knows of its copies.
        before: the mark of the copy that is there; `None` if there is none.
        writer: identifies this process.
        stored: returns how many rows this process stored.
        window: how many rows may be in flight.
        on_lost: called with the reason once another process writes the copy.

    Attributes:
        taken: when the state of the last whole copy was read, in seconds since 1970.
    """

    def __init__(
        self, target: CopyTarget, state: Path, output: str, fact: CopyFact, before: Mark | None,
        *, writer: str, stored: Callable[[], int], window: int, on_lost: Callable[[StoreError], None],
    ) -> None:  # fmt: skip
        self._target, self._state, self._output = target, state, output
        self._fact, self._before = replace(fact, url=target.shown), before
        self._stored, self._window, self._on_lost = stored, window, on_lost
        self._writer, self._number = writer, 0
        self._is_lost = self._is_begun = False
        self._last = time.monotonic(), stored()
        self._took = 0.0
        self._warn_at, self._warn_wait = 0.0, WARN_SECONDS
        self._ended, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="stillhouse-state-copy", daemon=True)

    @property
    def taken(self) -> float | None:
        """When the state of the last whole copy was read, in seconds since 1970."""
        return self._fact.taken

    def start(self) -> None:
        """Make the first copy, by which the run belongs to this process, and then copy regularly.

        Raises:
            ConfigurationError: the copy cannot be written.
            StoreError: another process began to write it a moment ago.
        """
        with self._connected() as connection, self._telling("writing the first copy of the state to %s"):
            try:
                self._copy(connection)
            except ConfigurationError:
                raise
            except Exception as error:
                raise ConfigurationError(
                    f"--state-copy: {self._target.shown} cannot be written: {self._target.problem(error)}",
                    hint="check the address, and the access to it",
                ) from None
        earlier = [writer for writer in self._fact.known if writer != self._writer]
        self._target.remove_partial(earlier[-MAX_EARLIER:])
        self._is_begun = True
        self._thread.start()

    def request(self) -> None:
        """Copy the state as soon as possible, for something that must not be lost."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread; a copy that it makes is waited for, until an interrupt."""
        self._ended.set()
        self._wake.set()
        if self._thread.is_alive():
            with self._telling(f"{_WAITING}; {self._age}"), contextlib.suppress(KeyboardInterrupt):
                self._thread.join()

    def finish(self) -> str | None:
        """Copy the state for the last time, after it was closed; return a warning if that fails."""
        if self._is_lost or not self._is_begun or not self._state.exists():
            return None
        try:
            if self._thread.is_alive():  # it was interrupted, and two would write to one place
                raise KeyboardInterrupt
            with self._connected() as connection, self._telling(f"{_WAITING}; {self._age}"):
                self._copy(connection, is_final=True)
        except KeyboardInterrupt:
            problem = "interrupted"
        except Exception as error:
            problem = self._target.problem(error)
        else:
            return None
        return f"the last copy of the state was not written to {self._target.shown}: {problem}; {self._age}"

    def _run(self) -> None:
        try:
            with self._connected() as connection:
                self._work(connection)
        except Exception as error:  # the state cannot be opened: the run meets the same
            self._warn(error)

    def _work(self, connection: sqlite3.Connection) -> None:
        copied = None  # the first copy was made before what the run recorded since
        while not self._is_lost:
            self._wake.wait(self._pause)
            self._wake.clear()
            if self._ended.is_set():
                return
            try:
                version = _version(connection)
                if version == copied:
                    self._check_owner(self._target.read_mark())
                    continue
                self._copy(connection)
            except TakenOverError as error:
                self._on_lost(error)
            except Exception as error:
                self._warn(error)
                with contextlib.suppress(sqlite3.Error):
                    self._put(connection, replace(self._fact, problem=self._target.problem(error)))
            else:
                copied = version
                self._warn_at, self._warn_wait = 0.0, WARN_SECONDS

    @property
    def _pause(self) -> float:
        """How many seconds follow a copy, until the next one begins."""
        return max(COPY_SECONDS, self._took * (1 / MAX_SHARE_OF_TIME - 1))

    def _copy(self, connection: sqlite3.Connection, *, is_final: bool = False) -> None:
        """Replace the copy, unless another process wrote it.

        Raises:
            TakenOverError: another process did.
            Exception: whatever the disk or the library for the address raises.
        """
        began = time.monotonic()
        try:
            self._check_owner(self._target.read_mark())
            self._number += 1
            # Recorded first: a copy that is there is one that the state knows.
            self._put(connection, self._fact.with_number(self._writer, self._number))
            taken, stored, at = time.time(), self._stored(), time.monotonic()
            folder = PartialFolder(self._state)
            try:
                part = folder.path / self._state.name
                snapshot(connection, part)
                self._target.write(part, self._mark(part, taken, stored, at, is_final))
            finally:
                folder.remove()
            self._last = at, stored
            self._put(connection, replace(self._fact, taken=taken, problem=None))
        finally:
            self._took = time.monotonic() - began

    def _mark(self, part: Path, taken: float, stored: int, at: float, is_final: bool) -> Mark:
        since, before = self._last
        return Mark(
            run=self._fact.run,
            writer=self._writer,
            number=self._number,
            taken=taken,
            is_final=is_final,
            size=part.stat().st_size,
            schema=SCHEMA_VERSION,
            output=self._output,
            host=socket.gethostname(),
            process=os.getpid(),
            # How long this copy takes is not known yet.
            due=self._pause + self._took,
            pace=None if self._number == 1 else max(0, stored - before) / max(at - since, 1e-3),
            window=self._window,
        )

    def _check_owner(self, there: Mark | None) -> None:
        """Refuse to replace the copy of another process.

        Raises:
            TakenOverError: it is one.
        """
        # Somebody may have removed it.
        if there is None or there.writer == self._writer or (self._number == 0 and there == self._before):
            self._before = there
            return
        self._is_lost = True
        what = "the same run" if there.run == self._fact.run else f"a run of {there.output}"
        raise TakenOverError(
            f"another process continues with the copy {self._target.shown}: process {there.process} on "
            f"{there.host} works on {what}, and wrote it at {moment(there.taken)}",
            hint="let that process finish: rows would be paid twice otherwise"
            if there.run == self._fact.run
            else "give each run its own --state-copy",
        )

    def _put(self, connection: sqlite3.Connection, fact: CopyFact) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO info VALUES (?, ?, ?)", sealed("info", KEY, to_json(fact.as_json()))
        )
        self._fact = fact

    def _warn(self, error: Exception) -> None:
        """Warn that the copy cannot be written, unless that was said a short time ago."""
        now = time.monotonic()
        if now < self._warn_at:
            return
        self._warn_at = now + self._warn_wait
        self._warn_wait = min(2 * self._warn_wait, MAX_WARN_SECONDS)
        _logger.warning(
            "the copy of the state cannot be written to %s: %s; the run continues; %s",
            self._target.shown, self._target.problem(error), self._age,
        )  # fmt: skip

    @property
    def _age(self) -> str:
        if self._fact.taken is None:
            return "there is no copy"
        age = duration(max(0.0, time.time() - self._fact.taken))
        return f"the copy that is there is {age} old"

    @contextlib.contextmanager
    def _telling(self, text: str) -> Iterator[None]:
        """Say what the run waits for, if the block takes long."""
        timer = threading.Timer(NOTICE_SECONDS, _logger.warning, (text, self._target.shown))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        uri = f"{sqlite_uri(self._state.absolute())}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_BUSY_SECONDS)
        with contextlib.closing(connection):
            connection.execute("PRAGMA synchronous = NORMAL")
            yield connection


def _version(connection: sqlite3.Connection) -> int:
    """Return a number that changes when another connection changes the database."""
    version: int = connection.execute("PRAGMA data_version").fetchone()[0]
    return version


def snapshot(connection: sqlite3.Connection, path: Path) -> None:
    """Copy a database as it is at this moment, while others write it.

    Raises:
        OSError: there is no room for it beside the rows that are still to come.
    """
    ((pages,),) = connection.execute("PRAGMA page_count")
    ((size,),) = connection.execute("PRAGMA page_size")
    if shutil.disk_usage(path.parent).free < pages * size + SPARE_BYTES:
        raise OSError(f"there is no room for a snapshot of {pages * size >> 20:,} MiB beside the state")
    with contextlib.closing(sqlite3.connect(path.absolute(), isolation_level=None)) as copy:
        connection.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # else it would need a log beside it
