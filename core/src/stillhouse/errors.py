"""The exceptions of Stillhouse. Each says what happened and what to do next.

All derive from `StillhouseError`. They have their facts as attributes, can be pickled, and never contain
a secret.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, get_args

from stillhouse._deprecated import StillhouseDeprecationWarning

if TYPE_CHECKING:
    from stillhouse.typing import GenerateOutput

__all__ = [
    "ERROR_KINDS",
    "ConfigurationError",
    "ErrorKind",
    "GenerationError",
    "OfflineBatchNotFinishedError",
    "PluginError",
    "StillhouseDeprecationWarning",
    "StillhouseError",
    "UnknownLLMError",
    "UnsupportedError",
    "near_matches",
]

# Maximum number of names that `near_matches` lists.
_MAX_NAMES = 100

ErrorKind = Literal[
    "rate_limit",
    "timeout",
    "connection",
    "server",
    "authentication",
    "invalid_input",
    "invalid_request",
    "context_length",
    "content_filter",
    "schema",
    "truncated",
    "unknown",
]
"""The kind of a failure.

`invalid_input`: the row could not be read, and nothing was sent. `invalid_request`: the backend or the
provider refused the request. The other names speak for themselves.
"""

ERROR_KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)


class StillhouseError(Exception):
    """Base class of all errors of Stillhouse.

    Attributes:
        message: what happened, in a sentence.
        hint: what to do next, or an empty string.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  try  {self.hint}" if self.hint else self.message


class ConfigurationError(StillhouseError, ValueError):
    """A field, a parameter, a file or an argument has a wrong name or value."""


class UnsupportedError(StillhouseError, NotImplementedError):
    """The backend has no such capability; nothing was sent.

    Attributes:
        stops_run: whether every input of the call would fail in the same way, as with a parameter that the
            model does not support.
    """

    def __init__(self, message: str, *, hint: str = "", stops_run: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.stops_run = stops_run


class UnknownLLMError(StillhouseError, LookupError):
    """No usable LLM has this name.

    Attributes:
        name: the requested name.
    """

    def __init__(self, message: str, *, name: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.name = name


class PluginError(StillhouseError):
    """An installed plugin is broken. The message is the whole report, with a suggested fix.

    Attributes:
        code: the code of the problem, such as `E201`.
        entry_point: `group: name = module:attribute`.
        distribution: name and version of the package that declares it.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        entry_point: str = "",
        distribution: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.entry_point = entry_point
        self.distribution = distribution

    def __str__(self) -> str:
        return self.message


class GenerationError(StillhouseError):
    """Generating failed, for one input or for a list of them.

    Attributes:
        kind: what failed, one of `ERROR_KINDS`; any other value becomes `unknown`.
        attempts: number of attempts; 0 if nothing was sent.
        request_id: the provider's id of the request, if it returned one.
        stops_run: whether every further request would fail in the same way, as with a refused key.
        outputs: for a list of inputs, one entry per input: its output, or `None` if it was not finished. For
            a single input, at most its partial output.
        place: for a bug in a backend, where the exception was raised, such as `my_backend/llm.py:62`; the
            exception is the cause. Empty for every other error.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: ErrorKind = "unknown",
        attempts: int = 1,
        outputs: Sequence[GenerateOutput | None] = (),
        request_id: str = "",
        stops_run: bool = False,
        hint: str = "",
        place: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.kind: ErrorKind = kind if kind in ERROR_KINDS else "unknown"
        self.attempts = attempts
        self.request_id = request_id
        self.stops_run = stops_run or kind == "authentication"
        self.outputs: list[GenerateOutput | None] = list(outputs)
        self.place = place

    @classmethod
    def wrap(cls, error: Exception) -> GenerationError:
        """Return `error` itself if it is a `GenerationError`, or else a new one with `error` as its cause."""
        if isinstance(error, cls):
            return error
        if isinstance(error, StillhouseError):
            stops = isinstance(error, UnsupportedError) and error.stops_run
            wrapped = cls(error.message, kind="invalid_request", attempts=0, hint=error.hint, stops_run=stops)
        else:
            wrapped = cls(described(error))
        wrapped.__cause__ = error
        return wrapped


def described(error: BaseException) -> str:
    """Return the name and the message of an exception, also if its own `__str__` fails."""
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except Exception:
        return f"{name}, which cannot say what happened"


def message_of(error: BaseException) -> str:
    """Return what an exception says: the message of one that is for the user, else its name too."""
    return error.message if isinstance(error, StillhouseError) else described(error)


class OfflineBatchNotFinishedError(StillhouseError):
    """The provider is still working on the batch. Repeat the call later to get the outputs.

    Attributes:
        jobs_ids: the provider's ids of the submitted jobs.
    """

    def __init__(self, jobs_ids: Iterable[str] = ()) -> None:
        self.jobs_ids = tuple(jobs_ids)
        super().__init__(
            f"the offline batch is not finished; jobs: {', '.join(self.jobs_ids) or 'none'}",
            hint="make the same call again later; nothing is submitted twice",
        )

    def __reduce__(self) -> tuple[type[OfflineBatchNotFinishedError], tuple[tuple[str, ...]]]:
        return type(self), (self.jobs_ids,)


def near_matches(name: str, known: Iterable[str]) -> str:
    """Return a sentence that suggests names similar to `name`, or lists all names if none is similar."""
    names = sorted(known)
    matches = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if matches:
        return f"did you mean {' or '.join(repr(match) for match in matches)}?"
    # Names of columns can be many and long, and can contain any character.
    shown = [name if name.isprintable() and name.strip() == name != "" else repr(name) for name in names]
    more = f" and {len(names) - _MAX_NAMES:,} more" if len(names) > _MAX_NAMES else ""
    return f"available: {', '.join(shown[:_MAX_NAMES])}{more}" if names else "there are none"
