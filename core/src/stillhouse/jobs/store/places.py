"""The paths that a run reads, writes and replaces, which are compared before anything is written."""

from __future__ import annotations

import contextlib
import os
import stat
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.opening import output_path
from stillhouse.jobs.formats.partial import PartialFolder
from stillhouse.jobs.formats.targets import beside, check_target, kind_of
from stillhouse.jobs.store.database import StoreError, check_not_open, not_ours, store_path
from stillhouse.jobs.store.lock import RunLock, acquire, lock_path
from stillhouse.jobs.store.salvage import holds_run
from stillhouse.protocols import HookCalls, RowReader

__all__ = [
    "check_places",
    "check_side_files",
    "check_source",
    "files_named_in",
    "is_same_name",
    "places_of",
    "remove_state",
    "reserve_path",
    "spool_path",
    "take",
    "written_places",
]

# The first bytes of the files that SQLite keeps next to a database, in either byte order; zeros while it
# creates them.
_LOG = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_INDEX = (b"\x18\xe2\x2d\x00", b"\x00\x2d\xe2\x18", bytes(4))
_JOURNAL = (b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7", bytes(8))


def spool_path(output: Path) -> Path:
    """Return the path where standard input is saved, because a run reads its input several times."""
    return beside(output, ".run.input")


def reserve_path(state: Path) -> Path:
    """Return the path of the file that reserves disk space for the last results of a run."""
    return state.with_name(f"{state.name}-reserve")


def written_places(output: Path, state: Path | None = None) -> list[Path]:
    """List every path that the run of an output may write, replace or remove, with the output first.

    Args:
        output: the output.
        state: the run's state, if it is not beside the output.
    """
    state = store_path(output) if state is None else state
    return [
        output,
        PartialFolder.path_of(output),
        state,
        *(Path(f"{state}{suffix}") for suffix in ("-wal", "-shm", "-journal")),
        PartialFolder.path_of(state),
        lock_path(state),
        reserve_path(state),
        PartialFolder.path_of(spool_path(output)),
    ]


def places_of(reader: RowReader, source: str, hooks: HookCalls | None = None) -> list[Path]:
    """List the files and folders that a reader reads, according to the reader or the name of its source."""
    places: Iterable[Path] | None = getattr(reader, "places", None)
    if places is not None:
        return [Path(place) for place in places]
    found = [Path(source)]
    # A plugin that also writes such outputs knows where one is.
    with contextlib.suppress(ConfigurationError):
        found.append(output_path(source, hooks))
    return found


def files_named_in(settings: Any) -> list[Path]:
    """List the files and folders that settings name, such as the weights or the chat template of an LLM."""
    if isinstance(settings, (str, Path)):
        try:
            return [Path(settings)] if Path(settings).exists() else []
        except (OSError, ValueError):  # a text that is no path
            return []
    if isinstance(settings, Mapping):
        values: Iterable[Any] = settings.values()
    elif isinstance(settings, (list, tuple)):
        values = settings
    else:
        values = [getattr(settings, name) for name in getattr(type(settings), "model_fields", ())]
    return [place for value in values for place in files_named_in(value)]


def check_places(
    reads: Sequence[Path], output: Path, uses: Sequence[Path] = (), state: Path | None = None
) -> None:
    """Refuse a run that would replace or remove what it reads, or write into a folder that it reads.

    Links, and other names of the same file, are resolved.

    Args:
        reads: the files and folders that are read.
        output: where the output will be.
        uses: the files and folders that the LLM may read: an output may be in such a folder, but must not
            replace one.
        state: the run's state, if it is not beside the output.

    Raises:
        ConfigurationError: two of the places are one, or one is within the other; or no output can be written
            there.
    """
    written = written_places(output, state)
    if state is not None:
        _check_state(state, output, written)
    places = [_Place(place) for place in written]
    # The input may have many files: each is looked at once.
    for read, is_input in chain(((path, True) for path in reads), ((path, False) for path in uses)):
        found = _Place(read)
        for place in places:
            if found.is_same(place):
                if place.path == output:
                    raise ConfigurationError(f"{output} is the input as well", hint="give another output")
                raise ConfigurationError(
                    f"{read} is read, and a run of {output} writes a file of that name",
                    hint="give another output",
                )
            if found.is_within(place):
                raise ConfigurationError(
                    f"{read} is read, and is in {place.path}, which the run replaces",
                    hint="give another output",
                )
        if is_input and found.is_folder and places[0].is_within(found):
            raise ConfigurationError(
                f"{output} is in {read}, which the run reads", hint="give an output in another folder"
            )
    check_target(output)


def _check_state(state: Path, output: Path, written: Sequence[Path]) -> None:
    """Refuse a path of the state that the run needs for something else, or where no file can be."""
    check_target(state)
    for number, place in enumerate(written):
        if any(_Place(place).is_same(_Place(other)) for other in written[:number]):
            raise ConfigurationError(
                f"{state} cannot be the state of the run of {output}: both need {place}",
                hint="give another --state",
            )
    if state.is_dir():
        raise ConfigurationError(f"{state} is a folder", hint="give the name of a file in it as --state")


def check_source(source: str) -> None:
    """Refuse an input that can be read only once, without opening it: opening would wait for its writer.

    Raises:
        ConfigurationError: it is a pipe, a socket or a device.
    """
    kind = None
    with contextlib.suppress(OSError, ValueError):  # it is reported when it is opened
        kind = kind_of(Path(source))
    if source != "-" and kind in ("pipe", "socket", "device"):
        raise ConfigurationError(
            f"{source} can be read only once, and a run reads its input several times",
            hint=f"give it as standard input: stillhouse generate - < {source}",
        )


def check_side_files(state: Path) -> None:
    """Refuse a run if files that Stillhouse did not make have the names of those next to its state.

    Raises:
        StoreError: there is such a file; the message names it.
    """
    with contextlib.suppress(OSError):  # it is reported where it is used
        if kind_of(state) in ("folder", "pipe", "socket", "device"):  # opening a pipe would wait
            raise not_ours(state)
    for suffix, beginnings in (("-wal", _LOG), ("-shm", _INDEX), ("-journal", _JOURNAL)):
        _check(Path(f"{state}{suffix}"), partial(_begins, beginnings))
    _check(reserve_path(state), _is_zero)


def take(state: Path, held: RunLock | None = None) -> RunLock:
    """Acquire a run for this process alone, and return its lock.

    Args:
        state: the run's state.
        held: the lock, if this process has it already; it is acquired once more.

    Raises:
        StoreError: another process works on it, or something else has the name of one of its files.
    """
    lock = acquire(state, held)
    if held is not None:
        return lock
    try:
        check_side_files(state)
        if PartialFolder.is_present(state):  # that of a killed process
            PartialFolder(state).remove()
        # The lock is a file, which somebody may have removed.
        check_not_open(state)
    except BaseException:
        lock.release()
        raise
    return lock


def is_same_name(one: str, other: str) -> bool:
    """Whether two names are the same on file systems that ignore case and the composition of letters."""
    return _folded(one) == _folded(other)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def remove_state(state: Path) -> None:
    """Remove the database of a run, if there is one.

    Raises:
        StoreError: the file is something else, or cannot be removed.
    """
    if os.path.lexists(state) and not holds_run(state):
        raise not_ours(state)
    try:
        # The log goes first: one that is left without its database would be read into the next.
        for suffix in ("-wal", "-shm", ""):
            Path(f"{state}{suffix}").unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"{state} cannot be replaced: {error.strerror}", hint="check the folder's permissions"
        ) from None


def _check(path: Path, is_expected: Callable[[BinaryIO], bool]) -> None:
    """Refuse a name that a run uses if it belongs to something other than a file, or to a file of others."""
    try:
        if not os.path.lexists(path):
            return
        if path.is_symlink() or not path.is_file():
            raise not_ours(path)
        with path.open("rb") as stream:
            if not is_expected(stream):
                raise not_ours(path)
    except OSError:  # it is reported where it is used
        return


def _begins(beginnings: tuple[bytes, ...], stream: BinaryIO) -> bool:
    head = stream.read(8)
    return not head or head.startswith(beginnings)


def _is_zero(stream: BinaryIO) -> bool:
    """Whether a file contains only zeros, like the reserve."""
    return all(block.count(0) == len(block) for block in iter(lambda: stream.read(1 << 20), b""))


class _Place:
    """A path, and the file that it leads to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._real = Path(os.path.realpath(path))
            self._status: os.stat_result | None = path.stat()
        except ValueError:  # no path can have a NUL; it is reported where it is used
            self._real, self._status = path, None
        except OSError:  # it does not exist
            self._status = None

    @property
    def is_folder(self) -> bool:
        return self._status is not None and stat.S_ISDIR(self._status.st_mode)

    def is_same(self, other: _Place) -> bool:
        if self._status is None or other._status is None:
            return self._real == other._real
        return os.path.samestat(self._status, other._status)

    def is_within(self, folder: _Place) -> bool:
        """Whether it is in a folder, at any depth."""
        if folder._real in self._real.parents:
            return True
        # A folder may have several names, on a file system that does not distinguish upper and lower case.
        return folder.is_folder and any(
            parent.is_dir() and parent.samefile(folder.path) for parent in self._real.parents
        )
