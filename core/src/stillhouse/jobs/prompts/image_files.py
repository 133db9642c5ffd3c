"""`ImageFolders`: the files of images, read from folders that the user allowed and from nowhere else."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from stillhouse.errors import ConfigurationError

__all__ = ["MAX_IMAGE_BYTES", "ImageFolders", "folder_of", "is_local"]

MAX_IMAGE_BYTES = 20 * 2**20
"""The size of the largest file that is read."""

# The scheme of an address; a letter and a colon is a drive of Windows.
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]+):")

# How a folder on the way to a file is opened, and a file: links that turn up only now are not followed, and a
# pipe or a device that turns up does not block.
_FOLDER = (
    getattr(os, "O_PATH", os.O_RDONLY)
    | getattr(os, "O_DIRECTORY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
)
_FILE = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_WALKS = {os.open, os.stat} <= os.supports_dir_fd


def folder_of(source: str | os.PathLike[str]) -> Path | None:
    """Return the folder that files of rows lie in; `None` for what names no file of this machine."""
    try:
        path = Path(source)
        if path.is_dir():
            return path
        is_pattern = any(letter in path.name for letter in "*?[")
        return path.parent if path.is_file() or (is_pattern and path.parent.is_dir()) else None
    except (OSError, ValueError):
        return None


def is_local(address: str) -> bool:
    """Whether an address names a file of this machine: a path, or one with the scheme `file`."""
    found = _SCHEME.match(address[:80])
    return found is None or found[1].lower() == "file"


class ImageFolders:
    """Reads images of allowed folders, at any depth.

    Links are followed as long as they stay within the allowed folders.

    Args:
        folders: the allowed folders.
        beside: the folders of the input, to which a relative path may be relative if they are allowed.

    Raises:
        ConfigurationError: one of the folders is none.
    """

    def __init__(self, folders: Sequence[str | os.PathLike[str]], beside: Sequence[Path] = ()) -> None:
        self._roots: list[str] = []
        for folder in folders:
            root = _real(os.fspath(folder))
            if root is None or not Path(root).is_dir():
                raise ConfigurationError(
                    f"{os.fspath(folder)!r} is no folder", hint="give --images-from the folder of the images"
                )
            self._roots.append(root)
        self._starts = list(self._roots)
        for start in map(_real, beside):
            if start is not None and start not in self._starts and self._root_of(start) is not None:
                self._starts.append(start)

    def read(self, address: str) -> bytes:
        """Return the content of a file.

        Args:
            address: a path or a `file:` address; a relative path is relative to an allowed folder, the first
                in which there is such a file.

        Raises:
            ValueError: it is not read, and why.
        """
        told = repr(address if len(address) <= 80 else f"{address[:80]}…")
        path = _path_of(address)
        if path is None:
            raise ValueError(f"the image {told} is no path of this machine")
        is_allowed = False
        for start in self._starts:  # which an absolute path replaces
            real = _real(Path(start, path))
            root = None if real is None else self._root_of(real)
            if real is None or root is None:
                continue
            is_allowed = True
            try:
                return _content(root, real, told)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ValueError(f"the image {told} cannot be read: {error.strerror}") from None
        if is_allowed:
            raise ValueError(f"the image {told} is not there")
        raise ValueError(f"the image {told} is in no folder that --images-from allows")

    def _root_of(self, real: str) -> str | None:
        """Return the allowed folder that a path without links is, or is in."""
        for root in self._roots:
            if real == root or real.startswith(root if root.endswith(os.sep) else root + os.sep):
                return root
        return None


def _real(path: str | Path) -> str | None:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # it is none
        return None


def _path_of(address: str) -> str | None:
    """Return the path that an address names; `None` if it is none, or that of another machine."""
    if "\0" in address or not address.strip():
        return None
    found = _SCHEME.match(address[:80])
    if found is None:
        return address
    try:
        parts = urlsplit(address.strip())
    except ValueError:
        return None
    if parts.netloc.lower() not in ("", "localhost"):
        return None
    # What follows a question mark or a hash is a part of the name: a file has no query.
    rest = address.strip()[len("file:") :]
    if rest.startswith("//"):
        rest = rest[2 + len(parts.netloc) :]
    path = url2pathname(rest) if os.name == "nt" else unquote(rest)
    return None if "\0" in path or not path else path


def _content(root: str, real: str, told: str) -> bytes:
    names = Path(real).relative_to(root).parts
    if not names:
        raise ValueError(f"the image {told} is a folder, and no file")
    with contextlib.ExitStack() as resources:
        if _WALKS:
            folder = _held(resources, os.open(root, _FOLDER))
            for name in names[:-1]:
                folder = _held(resources, os.open(name, _FOLDER, dir_fd=folder))
            _check(os.stat(names[-1], dir_fd=folder, follow_symlinks=False), told)
            file = _held(resources, os.open(names[-1], _FILE, dir_fd=folder))
        else:
            _check(Path(real).lstat(), told)
            file = _held(resources, os.open(real, _FILE))
        _check(os.fstat(file), told)
        parts: list[bytes] = []
        left = MAX_IMAGE_BYTES + 1  # it may grow while it is read
        while left > 0 and (part := os.read(file, min(left, 2**20))):
            parts.append(part)
            left -= len(part)
        if left <= 0:
            raise _too_large(told)
        return b"".join(parts)


def _held(resources: contextlib.ExitStack, file: int) -> int:
    resources.callback(os.close, file)
    return file


def _check(status: os.stat_result, told: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        what = (
            "a folder" if stat.S_ISDIR(status.st_mode) else "a link" if stat.S_ISLNK(status.st_mode) else ""
        )
        raise ValueError(f"the image {told} is {what or 'a pipe, a socket or a device'}, and no file")
    if status.st_size > MAX_IMAGE_BYTES:
        raise _too_large(told)


def _too_large(told: str) -> ValueError:
    return ValueError(f"the image {told} is larger than {MAX_IMAGE_BYTES // 2**20} MiB")
