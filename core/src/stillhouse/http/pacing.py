"""`PacingMixin`: how fast requests are sent, and for how long they are retried."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from stillhouse._execution.leases import current_leases
from stillhouse._execution.share import share
from stillhouse._settings.runtime import RuntimeParameter
from stillhouse.outputs import count_of

if TYPE_CHECKING:
    from stillhouse.http.transport.permits import RequestLimits

__all__ = ["PacingMixin"]


class PacingMixin(BaseModel):
    """The fields for the limits and retries of requests, for every backend that sends requests."""

    timeout: RuntimeParameter[float] = Field(
        default=120.0, gt=0, description="Time limit for one attempt, in seconds."
    )
    retry_timeout: RuntimeParameter[float] = Field(
        default=180.0, ge=0, description="Seconds after its first failure during which a request is retried."
    )
    requests_per_minute: RuntimeParameter[float] | None = Field(
        default=None, gt=0, description="The quota of requests, if you know it; None learns the rate."
    )
    tokens_per_minute: RuntimeParameter[float] | None = Field(
        default=None, gt=0, description="The quota of tokens, if you know it."
    )

    def _limits(self, max_concurrency: int | None) -> RequestLimits:
        """Return the limits of one load; `None` and 0 of a setting mean its default."""
        whole, leases = max_concurrency or 1, current_leases.get()
        quotas = self.requests_per_minute or None, self.tokens_per_minute or None
        if leases is not None:
            from stillhouse.http.transport.leased import LeasedLimits

            return LeasedLimits(leases, whole, *quotas, part=share().of(whole))
        from stillhouse.http.transport.limits import Limits

        return Limits(whole, *quotas)


def correct_tokens(
    limits: RequestLimits, estimated: int, used_tokens: Callable[[Any], int | None], answer: Any
) -> None:
    """Correct the estimate of a request's tokens by what its answer says."""
    try:
        used = count_of(used_tokens(answer))
    except (AttributeError, LookupError, TypeError, ValueError):
        return  # whoever reads the answer next rejects another shape; the row is paid for
    if used is not None:
        limits.correct_tokens(estimated, used)
