"""What a provider says about a job and about one of its requests, in words of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stillhouse.http.transport.failures import Failure
from stillhouse.offline.chunks import ChunkState

__all__ = ["Job", "JobResult", "UndecidedError"]


class UndecidedError(Exception):
    """There is a job that may be the one looked for, and only its results will tell."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job of the provider.

    Attributes:
        id: the provider's id.
        state: `created` while it goes on, else how it ended.
        provider_state: the provider's own word for it.
        counts: how many requests are `completed`, `failed`, …, as far as the provider says.
        result_files: where the results are, those of failed requests included.
        failure: why the job as a whole failed; `None` if it did not.
    """

    id: str
    state: ChunkState
    provider_state: str
    counts: Mapping[str, int] = field(default_factory=dict)
    result_files: tuple[str, ...] = ()
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class JobResult:
    """The result of one request.

    Attributes:
        answer: what the API would have answered online; `None` if the request failed.
        failure: why it failed; one that is `retried` is sent again. `None` without an answer means
            that it was cancelled.
    """

    answer: Any = None
    failure: Failure | None = None
