"""`TogetherLLM`: open models on Together."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from stillhouse import FormattedInput, GenerateOutput
from stillhouse_openai.compatible import CompatibleLLM

__all__ = ["TogetherLLM"]


class TogetherLLM(CompatibleLLM):
    """Open models on Together. The variables of the environment are those of Together's SDK."""

    default_base_url: ClassVar[str | None] = "https://api.together.ai/v1"
    base_url_variable: ClassVar[str | None] = "TOGETHER_BASE_URL"
    base_path: ClassVar[str] = "v1"
    api_key_variable: ClassVar[str | None] = "TOGETHER_API_KEY"

    max_tokens_name: str = Field(
        default="max_tokens", description="What the server calls max_new_tokens in chats."
    )

    def logprobs_fields(self, raw: bool, logprobs: bool | None, top_logprobs: int | None) -> dict[str, Any]:
        return super().logprobs_fields(True, logprobs, top_logprobs)  # a number in chats too

    async def agenerate(
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: str | list[str] | None = None,
        seed: int | None = None,
        frequency_penalty: float | None = None,
        presence_penalty: float | None = None,
        logprobs: bool | None = None,
        top_logprobs: int | None = None,
        logit_bias: dict[str, int | float] | None = None,
        tools: list[dict[str, Any]] | None = None,
        tool_choice: str | dict[str, Any] | None = None,
        response_format: dict[str, Any] | None = None,
        reasoning_effort: str | None = None,
        extra_body: dict[str, Any] | None = None,
        top_k: int | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
    ) -> GenerateOutput:
        """Generate for one chat or raw prompt. `None` is not sent: it means the server's default.

        Args:
            input: the chat, or the raw prompt.
            num_generations: how many generations, in one request if the server gives as many.
            max_new_tokens: how many tokens to generate at most, reasoning included.
            temperature: how evenly the tokens are drawn; 0 takes the likeliest.
            top_p: draw from the likeliest tokens that make up this share.
            stop: texts at which to stop.
            seed: the seed of the draw, as far as the server keeps to it.
            frequency_penalty: how much to avoid tokens for each time that they occurred.
            presence_penalty: how much to avoid tokens that occurred at all.
            logprobs: whether to return the log probabilities of the tokens.
            top_logprobs: how many of the likeliest tokens to return for each position; implies logprobs.
            logit_bias: what to add to the logits of tokens, by token id.
            tools: the tools that the model may call, in the API's form; chats only.
            tool_choice: which tool to call: `auto`, `none`, `required`, or one by name; chats only.
            response_format: the API's own response format; `structured_output` is the portable way.
            reasoning_effort: how long a reasoning model thinks: `low`, `medium`, `high`, …; chats only.
            extra_body: further fields of the request, as the server knows them; they win over others.
            top_k: draw from this many of the likeliest tokens.
            min_p: draw from the tokens that are at least this share as likely as the likeliest.
            repetition_penalty: how much to avoid tokens that occurred, prompt included; 1 is not at all.
        """
        own: dict[str, Any] = {
            "top_k": top_k,
            "min_p": min_p,
            "repetition_penalty": repetition_penalty,
        }
        given = {name: value for name, value in own.items() if value is not None}
        return await super().agenerate(
            input,
            num_generations,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            stop=stop,
            seed=seed,
            frequency_penalty=frequency_penalty,
            presence_penalty=presence_penalty,
            logprobs=logprobs,
            top_logprobs=top_logprobs,
            logit_bias=logit_bias,
            tools=tools,
            tool_choice=tool_choice,
            response_format=response_format,
            reasoning_effort=reasoning_effort,
            extra_body=given | (extra_body or {}),
        )
