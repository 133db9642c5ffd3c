"""`check_target`: what may be at the path of an output, found out before anything is written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from stillhouse.errors import ConfigurationError

__all__ = ["MARKER", "beside", "cannot_be_written", "check_target", "followed", "kind_of"]

MARKER = "MADE-BY-STILLHOUSE"
"""The name of the file that marks a folder as made by Stillhouse, which removes it with all that is in it."""


def beside(target: Path, suffix: str) -> Path:
    """Return the path next to an output that has its name and a suffix.

    Raises:
        ConfigurationError: the output has no name of its own, as `.`, `..` and `/` have none.
    """
    if target.name in ("", ".."):
        raise ConfigurationError(
            f"{target} cannot be an output: it has no name of its own", hint="give a name in that folder"
        )
    return target.with_name(f"{target.name}{suffix}")


def followed(path: Path) -> Path:
    """Return where a path leads: a link to an output stays a link, and its target is written."""
    # Unlike `Path.is_symlink`, it raises for no name.
    return Path(os.path.realpath(path)) if os.path.islink(path) else path  # noqa: PTH114


def check_target(path: Path, hint: str = "give another output, or - for standard output") -> None:
    """Refuse a path at which no output can be written, or at which it would not be safe.

    Args:
        path: the path.
        hint: what to do if it is no path of a file.

    Raises:
        ConfigurationError: its folder is missing or is one that Stillhouse removes, or it is a pipe, a device
            or a socket.
    """
    beside(path, "")
    if "\0" in str(path):
        raise ConfigurationError(f"{str(path)!r} is not a path", hint="leave out the NUL character")
    try:
        if not path.parent.is_dir():
            path.parent.stat()  # raises if it is missing
            raise cannot_be_written(path, NotADirectoryError(0, f"{path.parent} is not a folder"))
        kind = kind_of(path)
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path} cannot be written: there is no folder {path.parent}",
            hint="write the path out: only a shell knows what ~ is"
            if str(path).startswith("~")
            else "create it, or check the path; the disk may not be mounted",
        ) from None
    except OSError as error:
        raise cannot_be_written(path, error) from None
    if kind is not None and kind not in ("file", "folder"):
        raise ConfigurationError(
            f"{path} is a {kind}, which cannot be replaced by a file",
            hint=hint,
        )
    for folder in Path(os.path.realpath(path)).parents:
        if (folder / MARKER).is_file():
            raise ConfigurationError(
                f"{path} is in {folder}, which Stillhouse made for another output and removes",
                hint="give an output in another folder",
            )


def kind_of(path: Path) -> str | None:
    """Return what a path leads to: a file, a folder, a pipe, a device, a socket, a link that leads nowhere.

    Returns:
        `None` if there is nothing.

    Raises:
        OSError: it cannot be said.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "link that leads nowhere" if path.is_symlink() else None
    for kind, is_it in (("file", stat.S_ISREG), ("folder", stat.S_ISDIR), ("pipe", stat.S_ISFIFO)):
        if is_it(mode):
            return kind
    return "socket" if stat.S_ISSOCK(mode) else "device"


def cannot_be_written(path: Path, error: OSError) -> ConfigurationError:
    """Return the error for an output that cannot be written."""
    return ConfigurationError(
        f"{path} cannot be written: {error.strerror or error}", hint="check the folder and its permissions"
    )
