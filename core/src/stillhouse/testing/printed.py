"""`printed`: what is written to standard output, by Python, by a library in C, or past `sys.stdout`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator

__all__ = ["printed"]

_STDOUT = 1


@contextlib.contextmanager
def printed() -> Iterator[list[str]]:
    """Keep what is written to standard output in this context; the list has it once the context is left."""
    found: list[str] = []
    previous = sys.stdout
    previous.flush()
    _flush_c()
    with tempfile.TemporaryFile() as file:
        saved = os.dup(_STDOUT)
        os.dup2(file.fileno(), _STDOUT)
        stream = os.fdopen(os.dup(file.fileno()), "w", buffering=1, encoding="utf-8", errors="replace")
        sys.stdout = stream
        # A module may have kept the stream that pytest put in its place.
        with contextlib.suppress(AttributeError):
            previous.write = stream.write  # type: ignore[method-assign]
        try:
            yield found
        finally:
            sys.stdout = previous
            with contextlib.suppress(AttributeError):
                del previous.write
            stream.close()
            _flush_c()
            os.dup2(saved, _STDOUT)
            os.close(saved)
            file.seek(0)
            text = file.read().decode("utf-8", "replace")
            found += [text] if text else []


def _flush_c() -> None:
    """Write out what C's own buffer holds, on this side of the change."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).fflush(None)
