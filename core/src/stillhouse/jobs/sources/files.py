"""`files_named`: the files that names of files, folders and globs stand for, in order."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.arrow_files import is_saved_dataset
from stillhouse.jobs.formats.kinds import SUFFIXES, is_data
from stillhouse.jobs.sources.names import passed_over, some

__all__ = ["Named", "files_named", "is_glob", "local_path"]


@dataclass
class Named:
    """What names stand for.

    Attributes:
        files: the paths of files and of saved datasets, each once, in the order of the names.
        folders: the folders that were named.
        globs: the globs that were named.
        said: what is told about them, each a whole sentence.
    """

    files: list[str] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    globs: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def would_read(self, path: Path) -> str | None:
        """Return the name that would stand for this path as well, once there is a file."""
        absolute = os.path.abspath(path)  # noqa: PTH100 -- without following links
        for pattern in self.globs:
            if is_data(path.name) and _matches(absolute, os.path.abspath(pattern)):  # noqa: PTH100
                return pattern
        return None


def local_path(name: str) -> str:
    """Return a `file://` address as a path; anything else as it is."""
    if not name.lower().startswith("file://"):
        return name
    parts = urlsplit(name)
    if parts.netloc not in ("", "localhost"):
        raise ConfigurationError(f"{name} is a file of another machine", hint="give file:///PATH, or a path")
    return url2pathname(unquote(parts.path) if os.name != "nt" else parts.path)


def is_glob(name: str) -> bool:
    """Whether a name is a glob; a file may have such a name, and is meant then."""
    return glob.has_magic(name) and not os.path.lexists(name)


def files_named(names: Iterable[str], is_taken: Callable[[str], bool] = lambda _: False) -> Named:
    """Find the files that names stand for.

    A folder stands for the files with rows in it and in the folders below, by name; a glob for those that
    match it, by name. What has no rows there is passed over.

    Args:
        names: paths, globs, and whatever else.
        is_taken: whether somebody else reads such a name, which stands for itself then.

    Raises:
        ConfigurationError: one of them stands for nothing.
    """
    found = Named()
    seen: set[str] = set()
    twice: list[str] = []
    passed: list[str] = []

    def add(path: str) -> None:
        place = os.path.realpath(path)
        if place in seen:
            twice.append(path)
        else:
            seen.add(place)
            found.files.append(path)

    for name in names:
        path = local_path(name)
        if is_taken(name):
            found.files.append(name)
        elif is_glob(path):
            found.globs.append(path)
            found_here = _matching(path, passed)
            _add_all(name, _distinct(found_here) if "**" in path else found_here, add, "no file matches it")
        elif os.path.isdir(path):  # noqa: PTH112 -- pathlib raises for no name
            found.folders.append(Path(path))
            _add_all(name, _within(Path(path), passed), add, "no file in it has rows, by its name")
        else:
            add(path)
    if passed:
        found.said.append(passed_over(passed))
    if twice:
        found.said.append(f"named more than once, and read once: {some(twice)}")
    return found


def _add_all(name: str, paths: Iterator[str], add: Callable[[str], None], problem: str) -> None:
    has_any = False
    for path in paths:
        has_any = True
        add(path)
    if not has_any:
        suffixes = ", ".join(SUFFIXES)
        raise ConfigurationError(
            f"{name}: {problem}",
            hint=f"check the path; their names end in {suffixes}, also with .gz or .zst",
        )


def _matching(pattern: str, passed: list[str]) -> Iterator[str]:
    """Yield the files that match a glob, and those in folders that do, by name."""
    for path in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207
        if os.path.isdir(path):  # noqa: PTH112
            # With `**`, the files within match by themselves.
            if "**" not in pattern or is_saved_dataset(Path(path)):
                yield from _within(Path(path), passed)
        elif is_data(path):
            if not _is_of_saved_dataset(path):
                yield path
        else:
            passed.append(path)


def _within(folder: Path, passed: list[str]) -> Iterator[str]:
    """Yield the files with rows in a folder and below, by name. Hidden ones are passed over in silence."""
    if is_saved_dataset(folder):
        yield str(folder)
        return
    for entry in sorted(_entries(folder), key=lambda entry: entry.name):
        if entry.name.startswith((".", "_")):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _within(Path(entry.path), passed)
        elif is_data(entry.name) and _is_file(entry):
            yield entry.path
        else:
            passed.append(entry.path)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself
        return False


def _distinct(paths: Iterator[str]) -> Iterator[str]:
    """Yield each file once, under its shortest path, by name: `**` enters folders that are links."""
    shortest: dict[str, str] = {}
    for path in paths:
        place = os.path.realpath(path)
        before = shortest.setdefault(place, path)
        if len(path) < len(before):
            shortest[place] = path
    yield from sorted(shortest.values())


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise ConfigurationError(
            f"{folder} cannot be read: {error.strerror}", hint="check the path and its permissions"
        ) from None


def _is_of_saved_dataset(path: str) -> bool:
    return path.endswith(".json") and is_saved_dataset(Path(path).parent)


def _matches(path: str, pattern: str) -> bool:
    parts, patterns = Path(path).parts, Path(pattern).parts
    if "**" in patterns:
        return fnmatch.fnmatchcase(path, pattern.replace("**/", "*").replace("**", "*"))
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))
