"""`Hooks`: what a backend says about answers, and the check of what it says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stillhouse.http.transport.exceptions import broken_hook
from stillhouse.http.transport.quotas import QuotaHeaders, QuotaLeft
from stillhouse.offline.failures import Failure

__all__ = ["Hooks", "checked"]


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a backend says about the answers of its API.

    Attributes:
        classify: which failure a response with an error status is.
        failure_in: which failure an answer with a good status is, or `None`.
        answer_of_events: joins the JSON of the events of a stream into an answer; `None` where the
            API streams nothing of its own accord.
        quotas: the headers of a response that say what is left of a quota.
        quotas_in: the quotas that an answer tells of itself, by name; `None` where it tells of none.
        explained: returns a failure with what can be found out about it; awaited before it is raised.
    """

    classify: Callable[[int, Mapping[str, str], bytes], Failure]
    failure_in: Callable[[Any, Mapping[str, str]], Failure | None] | None = None
    answer_of_events: Callable[[list[Any]], Any] | None = None
    quotas: Sequence[QuotaHeaders] = ()
    quotas_in: Callable[[Any, Mapping[str, str]], Mapping[str, QuotaLeft | None]] | None = None
    explained: Callable[[Failure], Awaitable[Failure]] | None = None


def checked(name: str, failure: Any, hook: object) -> Failure:
    """Return what a hook says about an answer, with a wait that is one.

    Raises:
        GenerationError: it is no `Failure`, which would pass for an answer.
    """
    if not isinstance(failure, Failure):
        error = TypeError(f"it returned {type(failure).__name__} instead of a Failure")
        raise broken_hook(name, error, hook)
    wait: Any = failure.retry_after
    if wait is None or (isinstance(wait, (int, float)) and wait >= 0):  # NaN is not
        return failure
    return replace(failure, retry_after=None)
