"""What keeps Ray from writing among the rows and the lines of a run."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

__all__ = ["quiet", "quiet_logger"]

_logger = logging.getLogger("stillhouse.ray")


@contextlib.contextmanager
def quiet_logger() -> Iterator[None]:
    """Keep off standard error what Ray says of a connection; errors are raised."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def quiet(ray: Any) -> Iterator[None]:
    """Keep off standard output what Ray prints there when a worker or a node dies.

    Rows may be written there. Ray has no switch for it.
    """
    module = ray._private.worker
    printed = getattr(module, "print_to_stdstream", None)
    if printed is None:
        yield
        return

    def log(data: dict[str, Any], *_: Any, **__: Any) -> None:
        _logger.debug("%s", "\n".join(map(str, data.get("lines", ()))))

    module.print_to_stdstream = log
    try:
        yield
    finally:
        if module.print_to_stdstream is log:
            module.print_to_stdstream = printed
