"""`OpenRouterLLM`: the models of many providers, by way of OpenRouter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Unpack

import orjson
from pydantic import Field, PrivateAttr

from stillhouse import Capability, FormattedInput, GenerateOutput, RuntimeParameter
from stillhouse.errors import ErrorKind
from stillhouse.http import Failure, Request, finish_reason
from stillhouse.typing import ModelInfo
from stillhouse_openai.compatible import CompatibleLLM
from stillhouse_openai.failures import of_kind
from stillhouse_openai.parameters import OpenRouterParameters
from stillhouse_openai.pricing import with_prices
from stillhouse_openai.wire import FINISH_REASONS

__all__ = ["OpenRouterLLM"]

_LEVELS = {
    "none": "none",
    "minimal": "minimal",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "max": "xhigh",
}

_REQUIRED = frozenset({"logprobs", "response_format", "seed", "tools", "top_logprobs"})
"""What a provider must keep to if it is asked for; else OpenRouter may choose one that ignores it."""

_KINDS: dict[str, ErrorKind] = {
    "context_length_exceeded": "context_length",
    "string_too_long": "context_length",
    "token_limit_exceeded": "context_length",
    "content_policy_violation": "content_filter",
    "refusal": "content_filter",
    "max_tokens_exceeded": "truncated",
    "authentication": "authentication",
    "permission_denied": "authentication",
    "rate_limit_exceeded": "rate_limit",
    "provider_overloaded": "server",
    "provider_unavailable": "server",
}
"""The kinds of errors by their `error_type`."""


_NO_ENDPOINT = (
    "check the model's name, leave out what no provider supports, or let providers ignore it with "
    'provider={"require_parameters": false}; the account\'s privacy settings rule out providers, too'
)


class OpenRouterLLM(CompatibleLLM):
    """Models of many providers through OpenRouter, such as `anthropic/claude-sonnet-4.5`.

    Chats only, one generation per request. The statistic `cost` is the cost of a request in USD. A
    request with tools, a seed, log probabilities or a structured output goes only to providers that
    support them, unless the parameter `provider` says otherwise.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "images", "json_schema", "logprobs", "seed", "tools"}
    )

    default_base_url: ClassVar[str | None] = "https://openrouter.ai/api/v1"
    base_path: ClassVar[str] = "api/v1"
    api_key_variable: ClassVar[str | None] = "OPENROUTER_API_KEY"
    reasoning_efforts: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        level: {"reasoning": {"effort": name}} for level, name in _LEVELS.items()
    }
    kept_keys: ClassVar[tuple[str, ...]] = ("reasoning_details",)

    max_tokens_name: str = Field(
        default="max_tokens",
        description="The server's name for max_new_tokens; some providers know only max_tokens.",
    )
    app_url: RuntimeParameter[str] | None = Field(
        default=None, description="The address of your application, for OpenRouter's rankings."
    )
    app_title: RuntimeParameter[str] | None = Field(
        default=None, description="The name of your application, for OpenRouter's rankings."
    )

    prompt_caching: RuntimeParameter[bool] = Field(
        default=False,
        description="Whether to request prompt caching from providers that do not cache by default.",
    )

    _num_generations_param_supported: bool = PrivateAttr(default=False)

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, **arguments: Unpack[OpenRouterParameters]
    ) -> GenerateOutput:
        """Generate like `CompatibleLLM`, with OpenRouter's parameters.

        Args:
            top_k: sample from this many most likely tokens.
            min_p: sample from tokens with at least this fraction of the most likely token's probability.
            top_a: sample from tokens with at least this fraction of the most likely token's squared
                probability.
            repetition_penalty: penalty for tokens that have occurred, including in the prompt; 1 means
                none.
            reasoning: OpenRouter's own reasoning settings, such as `{"max_tokens": 2000}`.
            service_tier: the service tier, such as `flex` or `priority`.
            provider: which providers may serve the request, such as `{"only": ["together"]}`.
            models: fallback models, if no provider serves the first one.
            plugins: OpenRouter's plugins, such as `[{"id": "web"}]`.
            session_id: the same value for requests that belong together.
            cache_control: where to cache the prompt, such as `{"type": "ephemeral"}`.
        """
        return await self.complete(input, num_generations, arguments)

    def auth_headers(self, api_key: str) -> dict[str, str]:
        headers = super().auth_headers(api_key)
        if self.app_url:
            headers["http-referer"] = self.app_url
        if self.app_title:
            headers["x-openrouter-title"] = self.app_title
        return headers

    def request_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> Request:
        request = super().request_of(input, num_generations, arguments)
        body, extra = request.body, arguments.get("extra_body") or {}
        for name in ("provider", "reasoning"):  # each says a part of it
            given, further = arguments.get(name), extra.get(name)
            if isinstance(body.get(name), dict):
                merged = dict(given or {})
                if name == "reasoning" and arguments.get("reasoning_effort") is not None:
                    merged = {**self.reasoning_efforts[arguments["reasoning_effort"]]["reasoning"], **merged}
                body[name] = merged | further if isinstance(further, dict) else merged
        if self.prompt_caching:
            body.setdefault("cache_control", {"type": "ephemeral"})
        if not _REQUIRED.isdisjoint(body):
            chosen = body.get("provider")
            if chosen is None or isinstance(chosen, dict):
                body["provider"] = {"require_parameters": True, **(chosen or {})}
        return request

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        output = super().output_of(answer, request)
        if output["finish_reasons"] == ["stop"]:  # also where the provider says why there is no more of it
            native = finish_reason(answer["choices"][0].get("native_finish_reason"), FINISH_REASONS)
            if native in ("content_filter", "length"):
                output["finish_reasons"] = [native]
        usage = answer.get("usage")
        cost = usage.get("cost") if isinstance(usage, dict) else None
        if isinstance(cost, (float, int)) and not isinstance(cost, bool) and 0 <= cost < math.inf:
            output["statistics"]["cost"] = [float(cost)]
        return output

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        failure = super().classify(status, headers, body)
        metadata = _metadata_in(body)
        if status == 402 and failure.retry_after is not None:  # what is in flight has used the budget up
            hint = "set max_concurrency lower, or add credits"
            return replace(failure, retried=True, congestion=True, stops_run=False, hint=hint)
        if status == 403 and metadata.get("reasons"):
            return of_kind(failure, "content_filter")
        if status == 403 and (metadata.get("limit_source") or "limit exceeded" in failure.message.lower()):
            # a budget of the key, or of its workspace
            return replace(
                failure, kind="rate_limit", stops_run=True, hint="raise the budget, or wait for its reset"
            )
        if status == 404 and "no endpoints" in failure.message.lower():
            return replace(failure, hint=_NO_ENDPOINT)
        if metadata.get("error_type") == "payment_required" and status != 402:
            return super().classify(402, headers, body)
        kind = _KINDS.get(str(metadata.get("error_type")))
        return failure if kind is None else of_kind(failure, kind)

    def models_in(self, answer: Any) -> Iterable[ModelInfo]:
        prices = ("prompt", "completion")
        return with_prices(answer, super().models_in(answer), prices, are_of_one_token=True)


def _metadata_in(body: bytes) -> dict[str, Any]:
    try:
        given = orjson.loads(body)
    except ValueError:
        return {}
    error = given.get("error") if isinstance(given, dict) else None
    metadata = error.get("metadata") if isinstance(error, dict) else None
    return metadata if isinstance(metadata, dict) else {}
