"""The library: MLX and mlx-lm, imported when a model is loaded and not before."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from stillhouse.errors import ConfigurationError

__all__ = ["Library", "load_library", "many_files"]

# Files that may be open while weights are read: a large model lies in hundreds.
_FILES = 2048

_VARIABLE = "TRANSFORMERS_NO_ADVISORY_WARNINGS"

_lock = threading.Lock()


@dataclass(frozen=True)
class Library:
    """What is used of the library.

    Attributes:
        mx: the arrays: `mlx.core`.
        generation: batched generation: `mlx_lm.generate`.
        caches: what a model remembers of a sequence: `mlx_lm.models.cache`.
        utils: reading models: `mlx_lm.utils`.
        flattened: the arrays in a tree of them, with their names: `mlx.utils.tree_flatten`.
    """

    mx: Any
    generation: Any
    caches: Any
    utils: Any
    flattened: Callable[[Any], list[tuple[str, Any]]]


def load_library() -> Library:
    """Import the library.

    Raises:
        ConfigurationError: it is not installed, or does not run on this machine.
    """
    with _lock, _left_alone():
        try:
            return Library(
                mx=importlib.import_module("mlx.core"),
                generation=importlib.import_module("mlx_lm.generate"),
                caches=importlib.import_module("mlx_lm.models.cache"),
                utils=importlib.import_module("mlx_lm.utils"),
                flattened=importlib.import_module("mlx.utils").tree_flatten,
            )
        except (ImportError, OSError) as error:
            first_line = str(error).strip().partition("\n")[0]
            raise ConfigurationError(
                f"MLX cannot be imported: {type(error).__name__}: {first_line}",
                hint="stillhouse install mlx-lm   on a Mac with Apple silicon; "
                "stillhouse install 'mlx-lm[cpu]'   on Linux",
            ) from error


@contextlib.contextmanager
def _left_alone() -> Iterator[None]:
    """Keep what mlx-lm changes in the process when it is imported.

    That is an environment variable, and the limit of open files, which it sets to 2048: where it was
    higher, everything else in the process would soon have too few.
    """
    resource: Any = importlib.import_module("resource")
    original = resource.setrlimit

    def setrlimit(kind: int, limits: tuple[int, int]) -> None:
        if sys._getframe(1).f_globals.get("__name__") != "mlx_lm.utils":
            original(kind, limits)

    resource.setrlimit = setrlimit
    before = os.environ.get(_VARIABLE)
    try:
        yield
    finally:
        resource.setrlimit = original
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before


@contextlib.contextmanager
def many_files() -> Iterator[None]:
    """Allow as many open files as a large model needs, while it is read."""
    resource: Any = importlib.import_module("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        yield
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
