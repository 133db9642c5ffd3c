"""`replace_settings`: a file with settings is whole at every moment, and no other file is replaced."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from stillhouse.errors import ConfigurationError

__all__ = ["replace_settings"]


def replace_settings(path: str | Path, text: str, holds_settings: Callable[[], bool]) -> None:
    """Write a file that does not exist, is empty, or holds settings; a link is followed.

    Args:
        path: the file.
        text: its new content.
        holds_settings: whether the file, which exists, holds settings; a `ConfigurationError` is a no.

    Raises:
        ConfigurationError: the file holds something else, or cannot be written.
    """
    if "\0" in str(path):
        raise ConfigurationError(f"{str(path)!r} is not a path", hint="leave out the NUL character")
    place = Path(os.path.realpath(path))
    try:
        if str(path).endswith(os.sep):
            raise IsADirectoryError(0, "it is the name of a folder")
        earlier = place.lstat() if os.path.lexists(place) else None  # a link here leads to itself
        if earlier is not None and not _may_be_replaced(earlier, holds_settings):
            raise ConfigurationError(
                f"{path} exists, and does not hold the settings of an LLM",
                hint="move it away, or give another file",
            )
        fresh = place.with_name(f".{place.name}.{os.getpid()}.new")
        with fresh.open("x", encoding="utf-8") as file:
            try:
                file.write(text)
                file.flush()
                if earlier is not None:
                    fresh.chmod(stat.S_IMODE(earlier.st_mode))
                os.fsync(file.fileno())
                file.close()  # Windows moves no file that is open
                fresh.replace(place)
            except BaseException:
                file.close()
                fresh.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror or error}",
            hint="check the folder and its permissions",
        ) from None


def _may_be_replaced(status: os.stat_result, holds_settings: Callable[[], bool]) -> bool:
    if not stat.S_ISREG(status.st_mode):
        return False
    with contextlib.suppress(ConfigurationError):
        return status.st_size == 0 or holds_settings()
    return False
