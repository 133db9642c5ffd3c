"""`described`: an exception as an author needs it: what was raised, and in which of the author's lines."""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Collection, Iterator
from pathlib import Path

from stillhouse.errors import GenerationError, StillhouseError

__all__ = ["described", "lines_of", "mistake_of"]

MAX_FRAMES = 4

_NUMBER = re.compile(r"\d+")

_OURS = str(Path(__file__).parents[1])
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def described(error: BaseException, packages: Collection[str]) -> str:
    """Describe an exception: its type, its message without the remedy, and the author's lines.

    Args:
        error: the exception.
        packages: the names of the author's packages and modules, wherever they are installed.
    """
    return f"it raised {_named(_root(error))}{lines_of(error, packages)}"


def mistake_of(error: BaseException, packages: Collection[str]) -> str:
    """Return what two exceptions have in common that come from one mistake: all but the numbers."""
    last = lines_of(error, packages).rpartition("\n        ")[2]
    return _NUMBER.sub("0", f"{_named(_root(error))} {last}")


def lines_of(error: BaseException | None, packages: Collection[str]) -> str:
    """Return the author's lines that an exception, or what caused it, came through; each on a new line."""
    found: list[str] = []
    for item in _chain(error):
        own = [_shown(frame) for frame in _frames(item, packages)]
        found = own[-MAX_FRAMES:] or found  # those of the first cause say most
    return "".join(f"\n        {line}" for line in found)


def _named(error: BaseException) -> str:
    text = error.message if isinstance(error, StillhouseError) else str(error)
    text = " ".join(text.split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _root(error: BaseException) -> BaseException:
    """Return what a backend raised where the contract made a `GenerationError` of it."""
    cause = error.__cause__
    if not isinstance(error, GenerationError) or cause is None:
        return error
    # Whoever wrapped it: a call names the backend, and what merges several calls does not.
    begins = (type(cause).__name__, "the backend ")
    is_wrapped = isinstance(cause, StillhouseError) or error.message.startswith(begins)
    return cause if is_wrapped else error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _frames(error: BaseException, packages: Collection[str]) -> Iterator[traceback.FrameSummary]:
    for frame, line in traceback.walk_tb(error.__traceback__):
        name = frame.f_globals.get("__name__") or ""
        file = frame.f_code.co_filename
        is_theirs = name.partition(".")[0] in packages
        if is_theirs or not (file.startswith((_OURS, *_LIBRARIES, "<")) or "site-packages" in file):
            yield traceback.FrameSummary(file, line, frame.f_code.co_name)


def _shown(frame: traceback.FrameSummary) -> str:
    path = Path(frame.filename)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    line = f"\n          {frame.line}" if frame.line else ""
    return f"{shown}:{frame.lineno}, in {frame.name}{line}"
