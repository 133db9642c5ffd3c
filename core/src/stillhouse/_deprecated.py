"""Everything that is deprecated, in one place: moved import paths, renamed names, and their warning.

A deprecated path works for two minor releases; docs/versioning.md has the policy.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NamedTuple

__all__ = [
    "MOVED",
    "RENAMED",
    "Deprecated",
    "StillhouseDeprecationWarning",
    "install",
    "renamed",
]


class StillhouseDeprecationWarning(DeprecationWarning):
    """A deprecated name is used; the message says what to use instead, and when the name goes away."""


class Deprecated(NamedTuple):
    """What replaces an old name.

    Attributes:
        new: the module to import from, or the new name in the same module.
        since: the version from which on that works.
        until: the version in which the old name goes away.
    """

    new: str
    since: str
    until: str

    def warn(self, old: str, stacklevel: int) -> None:
        """Warn that the old name is used; `stacklevel` counts from the caller of this."""
        warnings.warn(
            f"{old} is {self.new} since stillhouse {self.since}; the old name goes away in {self.until}",
            StillhouseDeprecationWarning,
            stacklevel=stacklevel + 1,
        )


MOVED = {
    "stillhouse.answers": Deprecated("stillhouse.structured", "0.1", "0.3"),
    "stillhouse.http.failures": Deprecated("stillhouse.http", "0.1", "0.3"),
    "stillhouse.http.quotas": Deprecated("stillhouse.http", "0.1", "0.3"),
    "stillhouse.http.uploads": Deprecated("stillhouse.http", "0.1", "0.3"),
    "stillhouse.jobs.arrow": Deprecated("stillhouse.jobs.formats", "0.1", "0.3"),
    "stillhouse.jobs.rows": Deprecated("stillhouse.jobs.formats", "0.1", "0.3"),
    "stillhouse.ledger": Deprecated("stillhouse.offline", "0.1", "0.3"),
    "stillhouse.serialization": Deprecated("stillhouse", "0.1", "0.3"),
}
"""The import paths that were documented and moved, by their old name."""


RENAMED = {
    "stillhouse.registry.Trouble": Deprecated("Problem", "0.1", "0.3"),
}
"""The names that were documented and renamed, each with its module."""


def renamed(module: str, name: str) -> Any:
    """Return what has this old name in a module, with a warning: the `__getattr__` of that module.

    Raises:
        AttributeError: the module never had such a name.
    """
    entry = RENAMED.get(f"{module}.{name}")
    if entry is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    entry.warn(f"{module}.{name}", stacklevel=3)  # the caller of __getattr__
    return getattr(sys.modules[module], entry.new)


class _Finder:
    """Finds the modules that moved, where Python itself finds none."""

    @staticmethod
    def find_spec(name: str, *_: object) -> ModuleSpec | None:
        if name not in MOVED:
            return None
        MOVED[name].warn(name, stacklevel=2)
        return ModuleSpec(name, _Loader())  # type: ignore[arg-type]  # typeshed wants the abstract class


class _Loader:
    """Gives an old module the names of its new home."""

    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType:
        return _Alias(spec.name)

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        pass


class _Alias(ModuleType):
    """A module that has the names of another, and imports it when one of them is asked for."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(MOVED[self.__name__].new), name)


def install() -> None:
    """Let the old paths be imported; calling it again changes nothing."""
    if _Finder not in sys.meta_path:
        sys.meta_path.append(_Finder)
