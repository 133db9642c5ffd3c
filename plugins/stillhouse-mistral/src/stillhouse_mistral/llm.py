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

    The API refuses a field that it does not know, so that only what was set is sent, under its own names.
    No model is refused for its name: the server knows which it has.
    """

    default_base_url: ClassVar[str | None] = "https://api.mistral.ai/v1"
    base_path: ClassVar[str] = "v1"
    api_key_variable: ClassVar[str | None] = "MISTRAL_API_KEY"

    quota_headers: ClassVar[tuple[QuotaHeaders, ...]] = QUOTAS

    max_tokens_name: str = Field(
        default="max_tokens", description="What the server calls max_new_tokens in chats."
    )

    prompt_caching: bool = Field(
        default=False,
        description="Whether to ask for a cache of prompts, which all requests share; prompt_cache_key "
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
            num_generations: how many generations, in one request, whose input is billed once.
            max_new_tokens: how many tokens to generate at most, reasoning included.
            min_tokens: how many tokens to generate at least.
            temperature: how evenly the tokens are drawn; 0 takes the likeliest.
            top_p: draw from the likeliest tokens that make up this share.
            top_k: draw from so many of the likeliest tokens.
            stop: texts at which to stop.
            seed: the seed of the draw.
            frequency_penalty: how much to avoid tokens for each time that they occurred.
            presence_penalty: how much to avoid tokens that occurred at all.
            repetition_penalty: how much to avoid tokens that occurred, prompt included; 1 is not at all.
            logprobs: whether to return the log probabilities of the tokens.
            top_logprobs: how many of the likeliest tokens to return for each position; implies logprobs.
            tools: the tools that the model may call, in the API's form.
            tool_choice: which tool to call: `auto`, `none`, `required` (or `any`), or one by name.
            parallel_tool_calls: whether the model may call several tools at once.
            response_format: the API's own response format; `structured_output` is the portable way.
            reasoning_effort: how long a reasoning model thinks; the server says which levels the model takes.
            prompt_mode: `reasoning` puts Mistral's system prompt for reasoning first.
            prediction: the text that the answer will probably be, which makes it faster.
            safe_prompt: whether to put Mistral's safety prompt first.
            guardrails: which content to refuse, in the API's form.
            prompt_cache_key: requests with the same key share a cache of the prompt.
            service_tier: `auto`, or `standard_only` to stay out of the priority capacity.
            extra_body: further fields of the request, as the API knows them; they win over others.
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
