"""The plugins that can be installed: `available.toml`, which is read only when it is needed."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path
from typing import NamedTuple

__all__ = ["PATH", "Available", "available", "packages"]

PATH = Path(__file__).with_name("available.toml")

_KINDS = {"llms": "llm", "hooks": "hook"}


class Available(NamedTuple):
    """A plugin that could be installed.

    Attributes:
        name: the name under which it is asked for.
        kind: `llm` or `hook`.
        distribution: the package that brings it.
        summary: one line about it.
    """

    name: str
    kind: str
    distribution: str
    summary: str


@functools.cache
def available() -> tuple[Available, ...]:
    """Return every plugin in the table: LLMs before hooks, by name."""
    with PATH.open("rb") as stream:
        tables = tomllib.load(stream)
    found = [
        Available(name, kind, distribution, summary)
        for group, kind in _KINDS.items()
        for distribution, plugins in tables.get(group, {}).items()
        for name, summary in plugins.items()
    ]
    return tuple(sorted(found, key=lambda item: (item.kind != "llm", item.name, item.distribution)))


@functools.cache
def packages() -> dict[str, str]:
    """Return the distribution that provides an LLM, by the LLM's name.

    Where several do, it is this project's own: the first in the file.
    """
    with_ours_last = sorted(
        (item for item in available() if item.kind == "llm"),
        key=lambda item: item.distribution.startswith("stillhouse-"),
    )
    return {item.name: item.distribution for item in with_ours_last}
