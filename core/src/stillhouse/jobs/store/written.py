"""`WrittenOutput`: a run's record of the output that it wrote, so that it replaces nothing else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.targets import cannot_be_written, followed
from stillhouse.jobs.store.database import store_path
from stillhouse.jobs.store.store import SqliteStore
from stillhouse.protocols import RowWriter

__all__ = ["WrittenOutput", "check_replaceable", "has_stamps", "is_marked", "mark_of"]

_KEY = "written"


class WrittenOutput:
    """The output of a run, as far as the run wrote it.

    Args:
        store: the rows of the run.
        path: where the output is.

    Attributes:
        key: identifies the output among those of the same run; empty for the one next to its state.
    """

    def __init__(self, store: SqliteStore, path: Path) -> None:
        self._store = store
        self._path = path
        self._folder = Path.cwd()
        self.key = "" if store.path == store_path(path) else os.path.realpath(path)
        self._fact = f"{_KEY} {self.key}".rstrip()

    def check_folder(self) -> None:
        """Refuse to write the output to a place that was not intended.

        Raises:
            ConfigurationError: its path is relative, and the working directory is not what it was.
        """
        if not self._path.is_absolute() and Path.cwd() != self._folder:
            raise ConfigurationError(
                f"the working directory changed while the run went on, and {self._path} is a path in it",
                hint=f"make the same command again in {self._folder}",
            )

    def check(self) -> None:
        """Refuse to replace what is at the output's path, unless it is what the run wrote there.

        Raises:
            ConfigurationError: it is something else, or was changed since.
        """
        if not os.path.lexists(self._path):
            return
        known = self._store.get(self._fact)
        if known is None and not self.key and self._was_complete():  # by a version that remembered nothing
            return
        # A process may have ended between moving the output to its place and remembering it.
        if known and (known["moving"] or is_marked(self._path, known["mark"])):
            return
        raise ConfigurationError(
            f"{self._path} was changed after this run wrote it"
            if known and known["mark"]
            else f"{self._path} exists, and this run did not write it",
            hint="move it away, and make the same command again: finished rows are not generated again",
        )

    def adopt(self) -> None:
        """Treat the file at the output's path as the run's, because the user wants to replace it."""
        self._store.set(self._fact, {"mark": mark_of(self._path), "moving": False})

    def recorded(self, writer: RowWriter) -> RowWriter:
        """Return a writer that moves the output to its place only if `check` allows it, and remembers it."""
        return _Recorded(self, writer)

    def move(self, writer: RowWriter) -> None:
        """Have a writer move the output to its place."""
        self.check()  # hours may have passed since the run was opened
        known = self._store.get(self._fact)
        self._store.set(self._fact, {"mark": known and known["mark"], "moving": True})
        writer.finish()
        self._store.set(self._fact, {"mark": mark_of(self._path), "moving": False})

    def _was_complete(self) -> bool:
        with self._store.reading() as connection:
            found = connection.execute("SELECT 1 FROM sessions WHERE outcome = 'complete'").fetchone()
        return found is not None


class _Recorded:
    def __init__(self, output: WrittenOutput, writer: RowWriter) -> None:
        self._output = output
        self._writer = writer
        self.write = writer.write
        self.abandon = writer.abandon

    def finish(self) -> None:
        self._output.move(self._writer)


def mark_of(path: Path) -> dict[str, Any] | None:
    """Return a mark that shows whether a file or a folder has changed; `None` if it does not exist."""
    try:
        return {"files": _stamps(path), "digest": _digest(path)}
    except OSError:
        return None


def is_marked(path: Path, mark: dict[str, Any] | None) -> bool:
    """Whether a file or a folder is the one that `mark_of` marked."""
    # A file system may round the times, and a copy has its own: then the content decides.
    try:
        return mark is not None and (_stamps(path) == mark["files"] or _digest(path) == mark["digest"])
    except OSError:
        return False


def has_stamps(path: Path, mark: dict[str, Any] | None) -> bool:
    """Whether the sizes and times of a file or a folder are as `mark_of` noted them; nothing is read."""
    try:
        return mark is not None and _stamps(path) == mark["files"]
    except OSError:
        return False


def _stamps(path: Path) -> list[list[Any]]:
    """Return the name, the size and the modification time of each file, in the types that JSON restores."""
    statuses = ((name, file.lstat()) for name, file in _files(path))
    return [[name, status.st_size, status.st_mtime_ns] for name, status in statuses]


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    for name, file in _files(path):
        if not file.is_file():  # opening a pipe would wait
            raise OSError(f"{file} is not a file")
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{name}\0{content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield each file of an output with its name in the output's folder, in the order of the names."""
    if not path.is_dir():
        yield "", path
        return
    found = {str(file.relative_to(path)): file for file in path.rglob("*") if not file.is_dir()}
    yield from sorted(found.items())


def check_replaceable(
    output: Path, state: Path, named: Path, *, restart: bool = False, is_of_plugin: bool = False
) -> None:
    """Refuse to replace a file that is not an output of a run; where a link leads to it, in a restart too.

    Args:
        output: where the output is.
        state: where the state of its run is.
        named: the output as it was named: a link, or `output` itself.
        restart: whether what is there may be replaced.
        is_of_plugin: whether a plugin writes it, so that it may be a folder.

    Raises:
        ConfigurationError: something else is there.
    """
    if output.is_dir() and not is_of_plugin:
        raise cannot_be_written(output, IsADirectoryError(0, "it is a folder"))
    is_named = followed(named) == named
    if not output.exists() or (restart and is_named) or SqliteStore.exists(state):
        return
    if state.exists():
        raise ConfigurationError(
            f"{output} already exists, and the state of its run, {state}, is empty: it was cut off",
            hint="put a copy of the state in its place, choose another output, or start over with --restart",
        )
    raise ConfigurationError(
        f"{output} already exists and does not belong to a run",
        hint="choose another output, or replace it with --restart"
        if is_named
        else "give another output, or the name of that file",
    )
