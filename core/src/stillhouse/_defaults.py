"""The default registry, for modules that must not import it: the package's face sets it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from stillhouse.protocols import Backends

__all__ = ["default_backends", "set_default_backends"]

_source: Callable[[], Backends] | None = None


def set_default_backends(source: Callable[[], Backends]) -> None:
    """Set the source of the backends that are used when no registry is given."""
    global _source
    _source = source


def default_backends() -> Backends:
    """Return the installed backends, discovered at the first call."""
    assert _source is not None, "Python imports the package before any of its modules"
    return _source()
