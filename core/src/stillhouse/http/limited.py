"""`LimitedLLM`: the base of a backend whose requests a library sends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from pydantic import PrivateAttr

from stillhouse._settings.redaction import Redactor
from stillhouse.async_llm import AsyncLLM
from stillhouse.errors import described
from stillhouse.http.pacing import PacingMixin, correct_tokens
from stillhouse.http.transport.bodies import clean
from stillhouse.http.transport.calls import LimitedCalls
from stillhouse.http.transport.permits import RequestLimits
from stillhouse.offline.failures import Failure

__all__ = ["LimitedLLM"]

T = TypeVar("T")


class LimitedLLM(PacingMixin, AsyncLLM):
    """An LLM behind a library that sends the requests, such as a provider's SDK.

    The library makes single attempts, with its own retries switched off. Everything else works as in
    `HTTPLLM`: adaptive concurrency, quotas, shared pauses, retries, time limits. A backend makes each call
    with `limited`, and `failure_of` maps an exception to a `Failure`.
    """

    _calls: LimitedCalls | None = PrivateAttr(default=None)
    _masking: Redactor | None = PrivateAttr(default=None)

    def load(self) -> None:
        super().load()
        self._masking = super()._redactor().with_secrets(self.further_secrets())
        self._calls = self.run_on_loop(self._open())

    def unload(self) -> None:
        calls, self._calls = self._calls, None
        if calls is not None:
            self.run_on_loop(_close(calls.limits))
        self._masking = None
        super().unload()

    def _redactor(self) -> Redactor:
        return super()._redactor() if self._masking is None else self._masking

    def further_secrets(self) -> Iterable[str]:
        """Return further secrets to mask, such as keys that the library finds itself."""
        return ()

    async def _open(self) -> LimitedCalls:
        return LimitedCalls(
            self._limits(self.max_concurrency),
            timeout=self.timeout or 120.0,
            retry_timeout=self.retry_timeout or 0.0,
            redactor=self._redactor(),
        )

    @property
    def seconds_waited(self) -> float | None:
        """Seconds that calls have waited for a limit, or to be repeated; `None` if it is not loaded."""
        calls = self._calls
        return None if calls is None else calls.limits.seconds_waited

    def failure_of(self, error: Exception) -> Failure:
        """Return the `Failure` for an exception of a call. A backend overrides it for its library.

        If an exception has the status, the headers and the body of a response, use
        `stillhouse.http.failure_of(status, headers, body)`. Secrets are masked in the message.
        """
        return Failure("unknown", clean(described(error)))

    def failure_in(self, answer: Any) -> Failure | None:
        """Return the `Failure` that an answer reports, or `None` if it is a real answer."""
        return None

    async def limited(
        self,
        call: Callable[[], Awaitable[T]],
        *,
        tokens: int = 0,
        used_tokens: Callable[[T], int | None] | None = None,
    ) -> T:
        """Make a call of the library under the limits of this LLM, and return the answer.

        The `Failure` of an attempt decides whether it is repeated, slows all calls down, or stops the run. A
        cancelled call is not repeated; the library must not catch `CancelledError`.

        Args:
            call: makes one attempt, such as `lambda: client.chat(**arguments)`; called for every attempt.
            tokens: the maximum number of tokens, input and output together, for `tokens_per_minute`.
            used_tokens: returns the number of tokens that an answer reports as used. It need not check the
                shape of the answer.

        Raises:
            GenerationError: the call failed after all retries; `kind` says how. It has no cause, because an
                exception of a library may contain the key.
        """
        calls = self._calls
        if calls is None:
            self.require_loaded()
            raise AssertionError
        answer: T = await calls.make(call, self.failure_of, self.failure_in, tokens=tokens)
        if used_tokens is not None and calls.limits.counts_tokens:
            correct_tokens(calls.limits, tokens, used_tokens, answer)
        return answer


async def _close(limits: RequestLimits) -> None:
    limits.close()
