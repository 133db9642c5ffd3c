"""`RemoteSpool`: files behind addresses such as `s3://…`, copied here through `fsspec` before they are read.

A run reads its input several times: to compare it with that of an earlier command, to generate, and to write.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from stillhouse.errors import ConfigurationError, StillhouseError
from stillhouse.jobs.formats.kinds import is_data
from stillhouse.jobs.formats.opening import open_file
from stillhouse.jobs.formats.reading import Reading
from stillhouse.jobs.sources.addresses import file_system, fsspec_for, problem_of
from stillhouse.jobs.sources.names import Names, is_address, passed_over, shown
from stillhouse.jobs.sources.several import SeveralReader, Source
from stillhouse.protocols import HookCalls, RowReader

__all__ = ["RemoteSpool", "is_remote"]


def is_remote(name: str, hooks: HookCalls | None = None) -> bool:
    """Whether a name is the address of files elsewhere, which no plugin reads."""
    if not is_address(name) or name.lower().startswith("file://"):
        return False
    reader = hooks.open_reader(name) if hooks is not None else None
    if reader is not None:
        reader.close()
    return reader is None


class RemoteSpool:
    """Files behind addresses: of files, of folders, and with globs.

    Args:
        names: the addresses.
        reading: how the files are read, as far as it is said.

    Raises:
        ConfigurationError: `fsspec` is not installed, or some of the names are not addresses.
    """

    has_types = False

    def __init__(self, names: Names, reading: Reading | None = None) -> None:
        self._names, self._reading = names, reading
        self._passed: list[str] = []
        if not all(map(is_address, names)):
            raise ConfigurationError(
                "the input has addresses and other names", hint="copy the files here, or give addresses alone"
            )
        fsspec_for(names[0])

    def save(self, folder: Path) -> Path:
        place = folder / "files"
        place.mkdir()
        number = 0
        for name in self._names:
            for address, copy in _files(name, self._passed):
                # The names say the order, and their ends what they are.
                target = place / f"{number:06}-{PurePosixPath(address).name[-100:]}"
                with target.open("xb") as stream:
                    copy(stream)
                (place / f"{number:06}.name").write_text(address, encoding="utf-8", errors="replace")
                number += 1
        return place

    def open(self, path: Path) -> RowReader:
        sources = []
        for said in sorted(path.glob("*.name")):
            (file,) = path.glob(f"{said.stem}-*")
            name = said.read_text(encoding="utf-8")
            opening = partial(open_file, str(file), self._reading, name)
            sources.append(Source(name, opening, file.stat().st_size, [file]))
        if len(sources) == 1 and not self._passed:
            return sources[0].open()
        return SeveralReader(sources, [passed_over(self._passed)] if self._passed else [])


def _files(name: str, passed: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield the files that an address stands for, by name, each with a function that copies it."""
    try:
        system, path = file_system(name)
        paths = _paths(system, path, passed)
    except StillhouseError:
        raise
    except Exception as error:  # each of the libraries for a kind of address has its own
        raise _unreadable(name, error) from None
    if not paths:
        raise ConfigurationError(
            f"{shown(name)}: there are no files with rows", hint="check the address, and the access to it"
        )
    for found in paths:
        address = shown(name) if len(paths) == 1 else shown(_address(system, found))
        yield address, partial(_copy, system, found, address)


def _paths(system: Any, path: str, passed: list[str]) -> list[str]:
    if system.isfile(path):
        return [path]
    has_magic = any(mark in path for mark in "*?[")
    every = system.glob(path) if has_magic else system.find(path)
    files = sorted(item for item in every if not has_magic or system.isfile(item))
    base = path.rstrip("/")
    data = []
    for item in files:
        below = PurePosixPath(item.removeprefix(base))
        # A name that ends with a slash marks a folder, where there are only objects.
        if item.endswith("/") or any(part.startswith((".", "_")) for part in below.parts):
            continue
        if is_data(item):
            data.append(item)
        else:
            passed.append(item)
    return data


def _address(system: Any, path: str) -> str:
    return str(system.unstrip_protocol(path))


def _copy(system: Any, path: str, address: str, target: Any) -> None:
    try:
        with system.open(path, "rb") as source:
            shutil.copyfileobj(source, target, 1 << 20)
    except StillhouseError:
        raise
    except Exception as error:
        raise _unreadable(address, error) from None


def _unreadable(name: str, error: Exception) -> ConfigurationError:
    problem, hint = problem_of(name, error)
    return ConfigurationError(f"{shown(name)} cannot be read: {problem}", hint=hint)
