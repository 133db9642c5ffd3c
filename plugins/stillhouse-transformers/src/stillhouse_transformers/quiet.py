"""Keeping the library's bars and messages from standard error, and its settings from the process."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["Silencer", "environment_kept", "without_bars"]

_logger = logging.getLogger("stillhouse.transformers")

_LIBRARIES = ("transformers", "accelerate", "huggingface_hub")

_bars = threading.Lock()


class Silencer(logging.Filter):
    """Takes what the libraries log in one thread away from their handlers, into a logger of our own.

    Their loggers, their levels and what they log in other threads stay as they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()
        self._handlers = [handler for name in _LIBRARIES for handler in logging.getLogger(name).handlers]
        for handler in self._handlers:
            handler.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record goes on to the handler."""
        if record.thread != self._thread:
            return True
        _logger.debug("%s: %s", record.name, record.getMessage())
        return False

    def close(self) -> None:
        """Leave the handlers."""
        for handler in self._handlers:
            handler.removeFilter(self)


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Draw no bars while a model loads."""
    library: Any = importlib.import_module("transformers.utils.logging")
    gguf: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    with _bars:
        # It draws this bar by another way than its others.
        bar = getattr(gguf, "tqdm", None)
        hook = library.set_tqdm_hook(lambda _, args, kwargs: library.EmptyTqdm(*args, **kwargs))
        gguf.tqdm = library.EmptyTqdm
        try:
            yield
        finally:
            library.set_tqdm_hook(hook)
            if bar is not None:
                gguf.tqdm = bar


@contextlib.contextmanager
def environment_kept() -> Iterator[None]:
    """Take back what torch writes into the environment when it loads its compiler."""
    before = set(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - before:
            if name.startswith(("TORCHINDUCTOR_", "TRITON_")):
                del os.environ[name]
