"""`CompatibleLLM`: what every server that speaks OpenAI's chat completions API has in common."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

from pydantic import Field

from stillhouse import (
    Capability,
    FormattedInput,
    GenerateOutput,
    StructuredOutput,
    UnsupportedError,
)
from stillhouse.http import Failure, Request, StructuredHTTPLLM
from stillhouse_openai.parameters import ChatParameters
from stillhouse_openai.schemas import KEYWORDS, strict
from stillhouse_openai.streams import answer_of_events
from stillhouse_openai.wire import output_of

__all__ = ["CompatibleLLM"]

# What is not sent under its own name, or not at once.
_RENAMED = frozenset({"extra_body", "logprobs", "max_new_tokens", "top_logprobs"})

# Finish reasons of OpenRouter, Mistral and DeepSeek.
_FAILED = frozenset({"error", "insufficient_system_resource"})

_CHAT_ONLY = frozenset({"reasoning_effort", "response_format", "tool_choice", "tools"})


class CompatibleLLM(StructuredHTTPLLM):
    """A model behind an API like OpenAI's: chats go to `chat/completions`, raw prompts to `completions`.

    A subclass says where the API is and what it does in another way.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "images", "json_schema", "logprobs", "num_generations", "raw_prompt", "seed", "tools"}
    )

    schema_keywords: ClassVar[frozenset[str]] = KEYWORDS
    """The keywords of JSON Schema that the API keeps to."""

    instructor_framework: ClassVar[str | None] = "openai"

    max_tokens_name: str = Field(
        default="max_completion_tokens",
        description="What the server calls max_new_tokens in chats; older ones call it max_tokens.",
    )

    @classmethod
    def form_fields(cls, structured_output: StructuredOutput) -> dict[str, Any]:
        if structured_output["format"] != "json":
            raise UnsupportedError(
                f"{cls.__name__} has no structured output of the format {structured_output['format']}",
                hint="ask for JSON: an object with a property that has an enum for choices, or a pattern",
            )
        schema = structured_output["schema"]
        title = str(schema.get("title") or "answer")
        name = "".join(item if item.isascii() and item.isalnum() else "_" for item in title)[:64]
        narrow = strict(schema, cls.__name__, cls.schema_keywords)
        wanted = {"name": name, "schema": narrow, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": wanted}}

    @classmethod
    def sdk_answer(cls, answer: Any) -> Any:
        types: Any = importlib.import_module("openai.types.chat")
        return types.ChatCompletion.model_construct(**answer)

    def logprobs_fields(self, raw: bool, logprobs: bool | None, top_logprobs: int | None) -> dict[str, Any]:
        """The fields of a request that ask for log probabilities; `None` is not sent."""
        if logprobs is None and top_logprobs is not None:
            logprobs = True
        if raw:  # a number there; 0 asks some servers for none at all
            return {"logprobs": max(top_logprobs or 0, 1) if logprobs else None}
        return {"logprobs": logprobs, "top_logprobs": top_logprobs if logprobs else None}

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, **arguments: Unpack[ChatParameters]
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
        """
        return await self.complete(input, num_generations, arguments)

    def request_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> Request:
        prompt, form = self.split(input)
        raw = type(prompt) is str
        body: dict[str, Any] = {"model": self.model, "prompt" if raw else "messages": prompt}
        if num_generations > 1:
            body["n"] = num_generations
        for name, value in arguments.items():
            if value is None or name in _RENAMED:
                continue
            if raw and name in _CHAT_ONLY:
                raise UnsupportedError(f"{name} means nothing for a raw prompt", hint="send a chat")
            body[name] = value
        limit = arguments.get("max_new_tokens")
        if limit is not None:
            body["max_tokens" if raw else self.max_tokens_name] = limit
        if "logprobs" in arguments or "top_logprobs" in arguments:
            asked = self.logprobs_fields(raw, arguments.get("logprobs"), arguments.get("top_logprobs"))
            body |= {name: value for name, value in asked.items() if value is not None}
        if form is not None:
            body |= form.fields
        extra = arguments.get("extra_body")
        if extra:
            body |= extra
        return Request("completions" if raw else "chat/completions", body, form)

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        return output_of(answer, chat=request.path == "chat/completions")

    def failure_in(self, answer: Any, headers: Mapping[str, str]) -> Failure | None:
        """As that of `HTTPLLM`; a choice can say that it failed, too, as those of OpenRouter do."""
        failure = super().failure_in(answer, headers)
        if failure is None and isinstance(answer, dict):
            choices = answer.get("choices")
            for choice in choices if isinstance(choices, list) else ():
                error = _error_of(choice) if isinstance(choice, dict) else None
                if error:
                    return super().failure_in({"error": error}, headers)
        return failure

    def answer_of_events(self, events: list[Any]) -> Any:
        return answer_of_events(events)


def _error_of(choice: dict[str, Any]) -> Any:
    """The error that a choice is; one that only says that it failed is its provider's."""
    error, reason = choice.get("error"), choice.get("finish_reason")
    if error or not (isinstance(reason, str) and reason in _FAILED):
        return error
    return {"message": f"the model's provider failed: {reason}", "code": 502}
