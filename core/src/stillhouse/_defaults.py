"""The installed backends, as the lower floors reach them: the package's face puts the way here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from stillhouse.protocols import Backends

__all__ = ["default_backends", "set_default_backends"]

_source: Callable[[], Backends] | None = None


def set_default_backends(source: Callable[[], Backends]) -> None:
    """Say where the backends come from when nobody names a registry."""
    global _source
    _source = source


def default_backends() -> Backends:
    """The backends that are installed; discovered when they are first asked for."""
    assert _source is not None, "Python imports the package before any of its modules"
    return _source()
