"""`Failure`: why a request failed, `UnclearError`, and how long to wait before a request is repeated.

They are here, below both `http` and the engine of offline batches, because both need them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from stillhouse.errors import ErrorKind, GenerationError

__all__ = ["Failure", "UnclearError", "backoff_seconds"]

INITIAL_BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request failed.

    Attributes:
        kind: the kind, as in `GenerationError`.
        message: the provider's message, or a description of what happened.
        hint: what to do next.
        retried: whether the request is retried, because it may succeed.
        congestion: whether the provider is overloaded, so that all requests slow down.
        stops_run: whether every further request would fail in the same way.
        retry_after: the number of seconds that the provider asks to wait, or `None`.
        request_id: the provider's id of the request, or an empty string.
        unclear: whether the request may have been carried out although it failed.
        unknown_model: whether the model may not exist; the hint then gets the nearest names.
    """

    kind: ErrorKind
    message: str
    hint: str = ""
    retried: bool = False
    congestion: bool = False
    stops_run: bool = False
    retry_after: float | None = None
    request_id: str = ""
    unclear: bool = False
    unknown_model: bool = False


class UnclearError(GenerationError):
    """A request that must not be repeated failed, and it is unknown whether it was carried out."""


def backoff_seconds(attempt: int, random_share: float | None = None) -> float:
    """Return how long to wait after the failed attempt of this number (from 1): anything up to a bound.

    The bound doubles with every attempt, from `INITIAL_BACKOFF_SECONDS` to `MAX_BACKOFF_SECONDS`.
    Waiting for any part of it ("full jitter") keeps many clients from coming back together; see
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    """
    share = random.random() if random_share is None else random_share  # noqa: S311
    bound: float = min(MAX_BACKOFF_SECONDS, INITIAL_BACKOFF_SECONDS * 2 ** min(attempt - 1, 16))
    return share * bound
