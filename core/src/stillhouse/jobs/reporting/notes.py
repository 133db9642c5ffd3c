"""`noting`: tracebacks and messages, printed while a run works without breaking its progress."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

from stillhouse._execution.messages import printable

__all__ = ["noting"]

MAX_CHARACTERS = 8000
"""How much of a traceback is printed: its beginning and its end."""

MAX_BUGS = 10
"""How many bugs have their traceback printed; the same line's is printed once."""


class _Handler(logging.Handler):
    def __init__(self, note: Callable[[str], object]) -> None:
        super().__init__()
        self._note = note
        self._places: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        place = getattr(record, "place", None)
        if place is not None:
            if place in self._places or len(self._places) >= MAX_BUGS:
                return
            self._places.add(place)
        with contextlib.suppress(OSError, ValueError):  # the terminal is gone, or the stream closed
            self._note(_printable(record.getMessage()))


@contextlib.contextmanager
def noting(note: Callable[[str], object], *, traceback: bool, verbose: bool) -> Iterator[None]:
    """Print what was asked for while the block runs.

    Args:
        note: prints a text, from any thread.
        traceback: whether the traceback of a backend's own bug is printed, once for each line.
        verbose: whether what is sent and answered is printed.
    """
    names = [*(["stillhouse.bugs"] if traceback else ()), *(["stillhouse.messages"] if verbose else ())]
    handler = _Handler(note)
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(_handled(logging.getLogger(name), handler))
        yield


@contextlib.contextmanager
def _handled(logger: logging.Logger, handler: logging.Handler) -> Iterator[None]:
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def _printable(text: str) -> str:
    """Return a text that a terminal only shows, with its lines; the middle of a long one is left out."""
    if len(text) > MAX_CHARACTERS:
        text = f"{text[: MAX_CHARACTERS // 2]}\n…\n{text[-MAX_CHARACTERS // 2 :]}"
    return printable(text, kept="\n")
