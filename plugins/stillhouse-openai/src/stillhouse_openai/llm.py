"""`OpenAILLM`: chat completions, and completions for raw prompts."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from stillhouse import (
    Capability,
    FormattedInput,
    GenerateOutput,
    RuntimeParameter,
    StructuredOutputMixin,
    normalize_structured_output,
)
from stillhouse.http import HTTPLLM
from stillhouse_openai.schemas import response_format_of
from stillhouse_openai.wire import chat_output, completion_output, total_tokens

__all__ = ["OpenAILLM"]


class OpenAILLM(HTTPLLM, StructuredOutputMixin):
    """Models of OpenAI, and of any server that speaks its chat completions API.

    A chat goes to `chat/completions`, a raw prompt to `completions`. No model is refused for its
    name: the server knows which it has.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {
            "chat",
            "images",
            "json_schema",
            "logprobs",
            "num_generations",
            "raw_prompt",
            "seed",
            "tools",
        }
    )

    default_base_url: ClassVar[str | None] = "https://api.openai.com/v1"
    base_url_variable: ClassVar[str | None] = "OPENAI_BASE_URL"
    api_key_variable: ClassVar[str | None] = "OPENAI_API_KEY"

    organization: RuntimeParameter[str] | None = Field(
        default=None, description="The organization to bill, if the key belongs to several."
    )
    max_tokens_name: str = Field(
        default="max_completion_tokens",
        description="What the server calls max_new_tokens; older ones call it max_tokens.",
    )

    def auth_headers(self, api_key: str) -> dict[str, str]:
        headers = super().auth_headers(api_key)
        if self.organization:
            headers["openai-organization"] = self.organization
        return headers

    def check_input(self, input: Any) -> None:
        super().check_input(input)
        if type(input) is tuple:
            response_format_of(normalize_structured_output(input[1]), type(self).__name__)

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
        logit_bias: dict[str, float] | None = None,
        tools: list[dict[str, Any]] | None = None,
        tool_choice: str | dict[str, Any] | None = None,
        response_format: dict[str, Any] | None = None,
        reasoning_effort: str | None = None,
        extra_body: dict[str, Any] | None = None,
    ) -> GenerateOutput:
        """Generate for one chat or raw prompt. `None` is not sent: it means the server's default.

        Args:
            input: the chat, or the raw prompt.
            num_generations: how many generations, in one request.
            max_new_tokens: how many tokens to generate at most, reasoning included.
            temperature: how evenly the tokens are drawn; 0 takes the likeliest.
            top_p: draw from the likeliest tokens that make up this share.
            stop: texts at which to stop.
            seed: the seed of the draw, as far as the server keeps to it.
            frequency_penalty: how much to avoid tokens for each time that they occurred.
            presence_penalty: how much to avoid tokens that occurred at all.
            logprobs: whether to return the log probabilities of the tokens.
            top_logprobs: how many candidates to return for each position.
            logit_bias: what to add to the logits of tokens, by token id.
            tools: the tools that the model may call, in the API's form.
            tool_choice: which tool to call: `auto`, `none`, `required`, or one by name.
            response_format: the API's own response format; `structured_output` is the portable way.
            reasoning_effort: how long a reasoning model thinks: `low`, `medium`, `high`, ….
            extra_body: further fields of the request, as the server knows them.
        """
        structured_output: Any = self.structured_output
        if type(input) is tuple:
            input, own = input
            structured_output = normalize_structured_output(own) if own is not None else structured_output
        raw = type(input) is str
        body: dict[str, Any] = {"model": self.model, "prompt" if raw else "messages": input}
        fields: dict[str, Any] = {
            "n": num_generations if num_generations > 1 else None,
            "max_tokens" if raw else self.max_tokens_name: max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "stop": stop,
            "seed": seed,
            "frequency_penalty": frequency_penalty,
            "presence_penalty": presence_penalty,
            "logit_bias": logit_bias,
        }
        if raw:
            fields["logprobs"] = (top_logprobs or 1) if logprobs else None
        else:
            fields |= {
                "logprobs": logprobs,
                "top_logprobs": top_logprobs,
                "tools": tools,
                "tool_choice": tool_choice,
                "reasoning_effort": reasoning_effort,
                "response_format": response_format
                or response_format_of(structured_output, type(self).__name__),
            }
        for name, value in fields.items():
            if value is not None:
                body[name] = value
        if extra_body:
            body.update(extra_body)
        answer = await self.post(
            "completions" if raw else "chat/completions",
            body,
            max_new_tokens=max_new_tokens,
            used_tokens=total_tokens,
        )
        return completion_output(answer) if raw else chat_output(answer)
