"""`CopyTarget`: where the copy of a state is: its mark, writing it in one step, and reading it."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stillhouse._wording import install_command
from stillhouse.errors import ConfigurationError
from stillhouse.jobs.copies.marks import MAX_HEAD_BYTES, Mark, NewerMarkError, mark_in, pack
from stillhouse.jobs.sources.addresses import file_system, problem_of, shown_address
from stillhouse.jobs.sources.names import is_address

__all__ = ["CopyTarget"]

_BLOCK_BYTES = 1 << 20
_MAX_ATTEMPTS = 3

# Room that stays free on the disk when a copy is restored or made.
SPARE_BYTES = 64 << 20


class CopyTarget:
    """The place of a copy.

    Args:
        url: an address for `fsspec`, or a path. One that ends with a slash is a folder.
        name: the name of the copy in such a folder.

    Attributes:
        shown: the address for people, without secrets.

    Raises:
        ConfigurationError: the address cannot be used: the library for it is missing, or no file can have it.
    """

    def __init__(self, url: str, name: str) -> None:
        self._url = f"{url}{name}" if url.endswith("/") else url
        self.shown = shown_address(self._url)
        with self._reported("used"):
            try:
                self._system, self._path = file_system(self._url)
            except ConfigurationError:
                raise ConfigurationError(
                    f"--state-copy: {self.shown} needs fsspec, which is not installed",
                    hint=install_command("stillhouse[remote]"),
                ) from None
        if not is_address(self._url) and "://" in self._url:
            raise ConfigurationError(
                f"--state-copy: {self.shown} is not an address", hint="give one such as s3://bucket/run.db.gz"
            )
        if any(mark in self._path for mark in "*?[") or self._path.endswith("/") or not self._path:
            raise ConfigurationError(
                f"--state-copy: {self.shown} is not the address of one file",
                hint="give an address such as s3://bucket/run.db.gz, without *, ? and [",
            )

    def is_one_of(self, places: Iterable[Path]) -> bool:
        """Whether the copy has one of these paths on this machine."""
        protocol = self._system.protocol
        if "file" not in ((protocol,) if isinstance(protocol, str) else protocol):
            return False
        own = os.path.realpath(self._path)
        return any(own == os.path.realpath(place) for place in places)

    def problem(self, error: Exception) -> str:
        """Describe an error without the secrets in the address."""
        if isinstance(error, ConfigurationError):
            return error.message
        return problem_of(self._url, error)[0]

    @contextlib.contextmanager
    def _reported(self, done: str) -> Iterator[None]:
        try:
            yield
        except ConfigurationError:
            raise
        except Exception as error:  # each of the libraries for a kind of address has its own
            problem, hint = problem_of(self._url, error)
            raise ConfigurationError(
                f"--state-copy: {self.shown} cannot be {done}: {problem}", hint=hint
            ) from None

    def read_mark(self) -> Mark | None:
        """Return the mark of the copy; `None` if there is none yet.

        Raises:
            ConfigurationError: it cannot be read, or there is something that Stillhouse did not make.
        """
        with self._reported("read"):
            self._system.invalidate_cache()
            try:
                head = self._system.cat_file(self._path, start=0, end=MAX_HEAD_BYTES)
            except FileNotFoundError:
                return None
            except Exception:
                # Of an empty file, a store may refuse to read the beginning.
                if self._system.info(self._path).get("size") != 0:
                    raise
                head = b""
        try:
            mark = mark_in(head)
        except NewerMarkError:
            raise ConfigurationError(
                f"--state-copy: {self.shown} was written by a newer version of stillhouse",
                hint=install_command("stillhouse", options="--upgrade"),
            ) from None
        if mark is None:
            raise ConfigurationError(
                f"--state-copy: {self.shown} exists, and is not a copy that Stillhouse made",
                hint="give another address; Stillhouse does not replace that file",
            )
        return mark

    def probe(self, writer: str) -> None:
        """Check that something can be written there, and leave nothing.

        Args:
            writer: identifies the process, as in `Mark`.

        Raises:
            ConfigurationError: nothing can.
        """
        try:
            with self._reported("written"), self._system.open(self._partial(writer), "wb") as stream:
                stream.write(b"Stillhouse checks whether it can write here.\n")
        finally:
            # Who may write may not delete: then the first copy replaces it.
            self.remove_partial([writer])

    def write(self, state: Path, mark: Mark) -> None:
        """Replace the copy by one of this state.

        It is written under a temporary name, and moved, so that there is a whole copy at any time.

        Raises:
            Exception: whatever the library for this kind of address raises.
        """
        place = self._partial(mark.writer)
        self._upload(state, mark, place)
        try:
            self._system.mv(place, self._path)
        except NotImplementedError:  # a store whose objects appear once they are whole
            self._upload(state, mark, self._path)
            with contextlib.suppress(Exception):
                self._system.rm_file(place)
        except Exception:
            # It may have been copied, and could not be removed under the other name.
            there = self.read_mark()
            if there is None or (there.writer, there.number) != (mark.writer, mark.number):
                raise

    def remove_partial(self, writers: Iterable[str]) -> None:
        """Remove what dead processes have left beside the copy, as far as that can be removed."""
        for writer in writers:
            with contextlib.suppress(Exception):
                self._system.rm_file(self._partial(writer))

    def _upload(self, state: Path, mark: Mark, place: str) -> None:
        with state.open("rb") as content, self._system.open(place, "wb") as stream:
            pack(content, mark, stream)

    def _partial(self, writer: str) -> str:
        # Each process has its own: another one may work on the run for a while, and be amid a copy.
        return f"{self._path}.{writer[:12]}.partial"

    def save(self, path: Path) -> Mark:
        """Save the state in the copy as a file, and return the mark of the copy.

        Raises:
            ConfigurationError: it cannot be read, is not whole, or there is no room for it.
        """
        for _ in range(_MAX_ATTEMPTS):
            mark, problem = self.read_mark(), None
            if mark is None:
                raise ConfigurationError(f"--state-copy: {self.shown} was removed while it was read")
            _check_room(path.parent, mark.size)
            try:
                self._save(path, mark)
            except ConfigurationError as error:
                problem = error
            # Another process may have replaced it meanwhile.
            if self.read_mark() == mark:
                if problem is not None:
                    raise problem
                return mark
            path.unlink(missing_ok=True)
        raise ConfigurationError(
            f"--state-copy: {self.shown} was replaced repeatedly while it was read: another process "
            "works on the run",
            hint="let that process finish",
        )

    def _save(self, path: Path, mark: Mark) -> None:
        size = 0
        with self._reported("read"):
            try:
                with (
                    self._system.open(self._path, "rb") as raw,
                    gzip.GzipFile(fileobj=raw) as content,
                    path.open("xb") as file,
                ):
                    while block := content.read(_BLOCK_BYTES):
                        size += len(block)
                        if size > mark.size:
                            break
                        file.write(block)
            except (EOFError, gzip.BadGzipFile, zlib.error):
                size = -1
        if size != mark.size:
            raise ConfigurationError(
                f"--state-copy: the copy {self.shown} is not complete: it was cut off or damaged",
                hint="put an earlier version of it back if the store keeps versions; or remove it to start "
                "over, and pay for its rows again",
            )


def _check_room(folder: Path, size: Any) -> None:
    free = shutil.disk_usage(folder).free
    if free < size + SPARE_BYTES:
        raise ConfigurationError(
            f"the state in the copy has {size >> 20:,} MiB, and the disk of {folder.parent} has "
            f"{free >> 20:,} MiB left",
            hint="make room, or give a state on another disk with --state",
        )
