"""Where the cache is and how large it may grow, by the environment as it is now, else by the settings."""

from __future__ import annotations

import os
import re
from pathlib import Path

from stillhouse.errors import ConfigurationError

__all__ = [
    "DEFAULT_SIZE", "DIRECTORY_VARIABLE", "SIZE_VARIABLE", "cache_directory", "cache_size", "parse_size",
]  # fmt: skip

DIRECTORY_VARIABLE = "STILLHOUSE_CACHE_DIR"
SIZE_VARIABLE = "STILLHOUSE_CACHE_SIZE"

DEFAULT_SIZE = 2_000_000_000
"""Bytes; about a million answers of a paragraph each."""

_SMALLEST_SIZE = 1_000_000

_UNITS = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE | re.ASCII)


def cache_directory(setting: Path | None = None) -> Path:
    """The folder that holds the cache: the variable's, else the setting's, else the user's cache folder."""
    given = os.environ.get(DIRECTORY_VARIABLE)
    if given:
        return Path(given).expanduser().absolute()
    if setting is not None:
        return setting
    import platformdirs

    return Path(platformdirs.user_cache_dir("stillhouse", appauthor=False))


def cache_size(setting: int = DEFAULT_SIZE) -> int:
    """How many bytes the cache may take on the disk: what the variable says, else the setting.

    Raises:
        ConfigurationError: the variable holds no size, or one that is too small to hold anything.
    """
    given = os.environ.get(SIZE_VARIABLE)
    if not given:
        return setting
    try:
        return parse_size(given)
    except ValueError as error:
        raise ConfigurationError(
            f"{SIZE_VARIABLE} is {given!r}: {error}",
            hint=f"write it as a number and a unit, such as {SIZE_VARIABLE}=2GB or {SIZE_VARIABLE}=500MB; "
            "STILLHOUSE_DISABLE_PLUGINS=stillhouse-cache disables the cache",
        ) from None


def parse_size(text: str) -> int:
    """Read a number of bytes, such as `2GB` or `500 MiB`.

    Raises:
        ValueError: the text is not a size, or one that is too small to hold anything.
    """
    match = _SIZE.fullmatch(text)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError("it is not a size such as 2GB or 500MB")
    size = int(float(match[1]) * unit)
    if size < _SMALLEST_SIZE:
        raise ValueError("the minimum size is 1MB")
    return size
