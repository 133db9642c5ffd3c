"""`wrapped`: what a backend raised without meaning to, as an error that names the backend and the line."""

from __future__ import annotations

import contextlib
import logging
import re
import traceback
from collections.abc import Iterator
from types import FrameType

from stillhouse._settings.redaction import Redactor, secret_values
from stillhouse.errors import GenerationError, StillhouseError, described

__all__ = ["BUG_HINT", "backend_name", "naming_bugs", "place_of", "report_bug", "wrapped"]

logger = logging.getLogger("stillhouse.bugs")
"""Gets the traceback of a backend's own bug, at the level DEBUG."""

BUG_HINT = "--traceback; report it to its authors"

MAX_CHARACTERS = 2000
"""How much of what an exception says is kept."""

# The classes of these are no backend's own, unless the backend is in the core.
_SHARED = frozenset({"stillhouse", "pydantic", "abc", "typing", "builtins"})


def wrapped(error: Exception, llm: object, name: str = "") -> GenerationError:
    """Return an error itself if it is a `GenerationError`, else a new one that it is the cause of.

    An exception that is not Stillhouse's is a bug of the backend: the message names the backend, its version,
    and the file and the line in it.

    Args:
        error: what a call of the backend raised.
        llm: the backend.
        name: what `backend_name` returns for it, if that is known.
    """
    if isinstance(error, StillhouseError):
        return GenerationError.wrap(error)
    place = place_of(error, type(llm))
    said = described(error)
    said = said if len(said) <= MAX_CHARACTERS else f"{said[:MAX_CHARACTERS]} …"
    bug = GenerationError(
        f"the backend {name or backend_name(llm)} failed: {said}{f' ({place})' if place else ''}",
        hint=BUG_HINT,
        place=place,
    )
    bug.__cause__ = error
    return bug


def report_bug(error: Exception, redactor: Redactor) -> None:
    """Give the logger the traceback of a backend's own bug, without secrets; nothing of any other error.

    Args:
        error: what is known of it; its cause is what the backend raised.
        redactor: masks the secrets of the LLM.
    """
    if isinstance(error, GenerationError) and error.place and logger.isEnabledFor(logging.DEBUG):
        lines = traceback.format_exception(error.__cause__ or error)
        logger.debug("%s", redactor.redact("".join(lines)).rstrip(), extra={"place": error.place})


@contextlib.contextmanager
def naming_bugs(llm: object) -> Iterator[None]:
    """Turn what a backend raises in the block without meaning to into an error that names it.

    Raises:
        GenerationError: it did.
    """
    try:
        yield
    except (StillhouseError, OSError):
        raise
    except Exception as error:
        bug = wrapped(error, llm)
        redactor = Redactor(secret_values(llm))
        redactor.redact_error(bug)
        report_bug(bug, redactor)
        raise bug from bug.__cause__


def backend_name(llm: object) -> str:
    """Return the name and the version of a backend, as `tiny-ngram 0.1.0`; without one, that of its class."""
    cls = type(llm)
    with contextlib.suppress(Exception):  # of a class that is not registered, or anybody's own registry
        registry = llm.registry  # type: ignore[attr-defined]
        name: str = registry.name_of(cls)
        versions = (
            plugin.candidate.version
            for plugin in registry.plugins()
            if plugin.kind == "llm"
            and plugin.name == name
            and _top(plugin.candidate.value) == _top(cls.__module__)
        )
        return f"{name} {next(filter(None, versions), '')}".rstrip()
    return cls.__name__


def place_of(error: BaseException, cls: type | None = None) -> str:
    """Return the last line of a backend that an exception came through, as `package/file.py:62`.

    If it came through none, it is the line that raised it. A folder of this machine is never in it.

    Args:
        error: the exception.
        cls: the class of the backend; if `None`, the backend is the first package after Stillhouse that the
            exception came through.
    """
    packages = set() if cls is None else _own_packages(cls)
    place = own = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        place = f"{_file_of(frame)}:{line}"
        package = _top(str(frame.f_globals.get("__name__")))
        if not packages and package not in _SHARED:
            packages = {package}
        if package in packages:
            own = place
    return own or place


def _own_packages(cls: type) -> set[str]:
    return {_top(base.__module__) for base in cls.__mro__} - _SHARED or {_top(cls.__module__)}


def _top(module: str) -> str:
    return module.partition(":")[0].partition(".")[0].strip()


def _file_of(frame: FrameType) -> str:
    file = re.split(r"[\\/]", frame.f_code.co_filename)[-1]
    package = frame.f_globals.get("__package__")
    return f"{package.replace('.', '/')}/{file}" if isinstance(package, str) and package else file
