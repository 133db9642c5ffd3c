"""Faces of packages: names that are imported from their modules when they are first used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package whose names live in its modules.

    Args:
        package: its name.
        homes: the modules, within the package or by their whole name, and the names that each gives it.
    """
    home_of = {
        name: module if module.startswith("stillhouse.") else f"{package}.{module}"
        for module, names in homes.items()
        for name in names
    }

    def getattr_(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(home_of[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    names = sorted(home_of)
    return getattr_, lambda: names, names
