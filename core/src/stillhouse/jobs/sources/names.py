"""`Names`: what INPUT says, one name or several, as the command and Python give it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from stillhouse._settings.secrets import without_login
from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.kinds import is_data

__all__ = ["Names", "is_address", "names_of", "passed_over", "shown", "some"]

_SHOWN = 3


class Names(tuple[str, ...]):
    """Names of files, folders, globs, addresses and what plugins read, in the order of reading."""

    __slots__ = ()

    def __str__(self) -> str:
        """The names for a message; of many, the first ones and how many there are."""
        names = [shown(name) for name in self]
        if len(names) <= _SHOWN:
            return ", ".join(names)
        return f"{', '.join(names[: _SHOWN - 1])} and {len(names) - _SHOWN + 1:,} others"


def names_of(source: Any) -> Names | None:
    """Return the names that an input gives; `None` if it is rows.

    Args:
        source: a text or a path; a list or a tuple of paths, or `Names`.

    Raises:
        ConfigurationError: it names nothing, or it could be names as well as rows.
    """
    if isinstance(source, (str, PathLike)):
        names = Names([os.fspath(source)])
    elif isinstance(source, Names):
        names = source
    elif isinstance(source, (list, tuple)):
        found = _of_list(source)
        if found is None:
            return None
        names = found
    else:
        return None
    if not all(names):
        raise ConfigurationError("an input has an empty name", hint="give the path of a file")
    if "-" in names and len(names) > 1:
        raise ConfigurationError(
            "standard input is given beside files", hint="give it alone, or save it in a file first"
        )
    return names


def _of_list(items: Sequence[Any]) -> Names | None:
    """Return the names in a list of paths. Texts are rows, but not where all of them name files."""
    paths = [isinstance(item, PathLike) for item in items]
    if items and all(paths):
        return Names(os.fspath(item) for item in items)
    if any(paths):
        raise ConfigurationError(
            "the input is a list of paths and of something else", hint="give paths alone, or rows alone"
        )
    if items and all(isinstance(item, str) and is_data(item) and _is_file(item) for item in items):
        raise ConfigurationError(
            f"the input is a list of texts that name files, such as {items[0]!r}; and each would be a prompt",
            hint="give the files as pathlib.Path, or the prompts as {'prompt': …}",
        )
    return None


def some(names: Sequence[str]) -> str:
    """Return names in one line; of many, the first ones and how many others there are."""
    listed = ", ".join(names[:_SHOWN])
    return listed if len(names) <= _SHOWN else f"{listed} and {len(names) - _SHOWN:,} others"


def passed_over(names: Sequence[str]) -> str:
    """Return what is told about names in a folder or a glob that are not of files with rows."""
    return f"passed over, for their names are not of files with rows: {some(names)}"


def is_address(name: str) -> bool:
    """Whether a name is the address of a file elsewhere, as `fsspec` knows them."""
    scheme, mark, _ = name.partition("://")
    return (
        bool(mark) and len(scheme) > 1 and scheme.replace("+", "").replace("-", "").replace(":", "").isalnum()
    )


def shown(name: str) -> str:
    """Return a name for a message, without what is secret in an address."""
    return "::".join(map(without_login, name.split("::"))) if is_address(name) else name


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False
