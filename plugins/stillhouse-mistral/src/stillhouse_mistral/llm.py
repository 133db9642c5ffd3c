"""`MistralLLM`: the models of Mistral."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Unpack

from pydantic import Field

from stillhouse import FormattedInput, GenerateOutput
from stillhouse.http import Failure, QuotaHeaders, Request, RequestForm, complete_tool, statistics_of
from stillhouse.typing import ModelInfo
from stillhouse_mistral.batches import MistralBatchLLM
from stillhouse_mistral.failures import QUOTAS, mistral_failure
from stillhouse_mistral.messages import request_messages
from stillhouse_mistral.parameters import MistralParameters

__all__ = ["MistralLLM"]


_CACHE_KEY = "stillhouse"


class MistralLLM(MistralBatchLLM):
    """Models of Mistral.

    The API rejects unknown fields, so only what was set is sent, under the API's names. Any model name is
    accepted: the server knows which models it has.
    """

    default_base_url: ClassVar[str | None] = "https://api.mistral.ai/v1"
    base_path: ClassVar[str] = "v1"
    api_key_variable: ClassVar[str | None] = "MISTRAL_API_KEY"

    quota_headers: ClassVar[tuple[QuotaHeaders, ...]] = QUOTAS

    max_tokens_name: str = Field(
        default="max_tokens", description="The server's name for max_new_tokens in chats."
    )

    prompt_caching: bool = Field(
        default=False,
        description="Whether to cache prompts, with one cache for all requests; prompt_cache_key "
        "names another one.",
    )

    renamed: ClassVar[Mapping[str, str]] = {"seed": "random_seed"}
    stream_fields: ClassVar[Mapping[str, Any]] = {"stream": True}

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        return mistral_failure(super().classify(status, headers, body), status, headers, body)

    async def agenerate(  # type: ignore[override]  # other parameters, which pydantic checks
        self, input: FormattedInput, num_generations: int = 1, **arguments: Unpack[MistralParameters]
    ) -> GenerateOutput:
        """Generate for one chat. `None` is not sent: it means the API's default.

        Args:
            input: the chat.
            num_generations: number of generations; they are one request, whose input is billed once.
            max_new_tokens: maximum number of tokens to generate, including reasoning.
            min_tokens: minimum number of tokens to generate.
            temperature: sampling temperature; 0 always takes the most likely token.
            top_p: sample from the most likely tokens with this total probability.
            top_k: sample from this many most likely tokens.
            stop: texts that end the generation.
            seed: seed for sampling.
            frequency_penalty: penalty for a token, for each time it has occurred.
            presence_penalty: penalty for a token that has occurred at all.
            repetition_penalty: penalty for tokens that have occurred, including in the prompt; 1 means
                none.
            logprobs: whether to return the log probabilities of the tokens.
            top_logprobs: number of most likely tokens to return for each position; implies `logprobs`.
            tools: the tools that the model may call, in the API's format.
            tool_choice: which tool to call: `auto`, `none`, `required` (or `any`), or one by name.
            parallel_tool_calls: whether the model may call several tools at once.
            response_format: the API's own response format; `structured_output` works with every backend.
            reasoning_effort: how long a reasoning model thinks; the server reports which levels the model
                supports.
            prompt_mode: `reasoning` adds Mistral's system prompt for reasoning at the beginning.
            prediction: expected text of the answer, which speeds up generation.
            safe_prompt: whether to add Mistral's safety prompt at the beginning.
            guardrails: which content to reject, in the API's format.
            prompt_cache_key: requests with the same key share a cache of the prompt.
            service_tier: `auto`, or `standard_only` to stay out of the priority capacity.
            extra_body: further fields of the request, in the API's format; they override others.
        """
        return await self.complete(input, num_generations, arguments)

    def request_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> Request:
        given = dict(arguments)
        if given.get("tools"):
            given["tools"] = [complete_tool(tool) for tool in given["tools"]]
        prediction = given.get("prediction")
        if isinstance(prediction, str):
            given["prediction"] = {"type": "content", "content": prediction}
        if self.prompt_caching and given.get("prompt_cache_key") is None:
            given["prompt_cache_key"] = _CACHE_KEY
        return super().request_of(input, num_generations, given)

    def messages_of(self, chat: Any, form: RequestForm | None) -> Any:
        return request_messages(super().messages_of(chat, form))

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        output = super().output_of(answer, request)
        statistics = output["statistics"]
        if "cached_tokens" not in statistics:
            statistics |= statistics_of(cached_tokens=_cached(answer.get("usage")))
        return output

    def models_in(self, answer: Any) -> Iterable[ModelInfo]:
        """Those that chat, where the API says what a model can do: it has others that embed."""
        models = answer if isinstance(answer, list) else answer["data"]
        return super().models_in([model for model in models if _chats(model)])


def _cached(usage: Any) -> Any:
    """How many tokens came from the cache, where the usage says so under one of the API's older names."""
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_token_details")
    count = usage.get("num_cached_tokens")
    return details.get("cached_tokens") if count is None and isinstance(details, dict) else count


def _chats(model: Any) -> bool:
    abilities = model.get("capabilities") if isinstance(model, dict) else None
    return not isinstance(abilities, dict) or abilities.get("completion_chat") is not False
