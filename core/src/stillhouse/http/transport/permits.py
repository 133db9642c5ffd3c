"""`Permit`: permission to send a request, and `RequestLimits`, which gives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from stillhouse.errors import GenerationError

__all__ = ["Permit", "RequestLimits", "too_many_tokens"]


@dataclass(slots=True)
class Permit:
    """Permission to send one request.

    Attributes:
        epoch: how many congestions there had been when it was granted.
    """

    epoch: int


class RequestLimits(Protocol):
    """The limits of one LLM: `Limits` has them itself, `LeasedLimits` has them from the process of the run.

    Attributes:
        seconds_waited: how long requests have waited for permission, and before they were sent again.
        counts_tokens: whether a quota of tokens is known, set by the user or reported by the provider.
    """

    seconds_waited: float
    counts_tokens: bool

    def try_acquire(self, tokens: int = 0) -> Permit | None:
        """Return permission to send a request at once, or `None` if it must wait."""

    async def acquire(self, tokens: int = 0) -> Permit:
        """Wait for permission to send a request that is estimated to use this number of tokens."""

    def release(self, permit: Permit) -> None:
        """Return a permit."""

    def correct_tokens(self, estimated: int, used: int) -> None:
        """Replace the tokens that a request was estimated to use by those that it used."""

    def on_success(self) -> None:
        """Count an accepted request."""

    def on_rate_limit(self, permit: Permit, retry_after: float | None) -> None:
        """Slow down after the provider refused a request because there were too many."""

    def on_overload(self, permit: Permit, retry_after: float | None) -> None:
        """Lower the concurrency after the provider was overloaded, or did not answer."""

    def update_quota(self, name: str, left: float, whole: float, reset: float, *, is_tokens: bool) -> None:
        """Record what a response says is left of a quota."""

    def close(self) -> None:
        """End: no request follows."""


def too_many_tokens(tokens: int, whole: float) -> GenerationError:
    """Return the error of a request that no wait makes possible.

    Args:
        tokens: how many it is estimated to use.
        whole: the quota of a minute.
    """
    return GenerationError(
        f"the request may use {tokens:,} tokens, and tokens_per_minute is {whole:,.0f}",
        kind="invalid_request",
        attempts=0,
        hint="raise tokens_per_minute if the quota allows it, or lower max_new_tokens, or shorten the prompt",
    )
