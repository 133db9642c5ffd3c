"""`AnthropicLLM`: the Messages API."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Unpack

from pydantic import Field, PrivateAttr

from stillhouse import (
    Capability,
    FormattedInput,
    GenerateOutput,
    ModelInfo,
    StructuredOutput,
)
from stillhouse.http import Failure, QuotaHeaders, Request, effort_of
from stillhouse.outputs import count_of
from stillhouse_anthropic.batches import MESSAGES, MessageBatchLLM
from stillhouse_anthropic.caching import cached
from stillhouse_anthropic.failures import QUOTAS, anthropic_failure
from stillhouse_anthropic.messages import request_messages
from stillhouse_anthropic.parameters import MessageParameters
from stillhouse_anthropic.schemas import output_format_of
from stillhouse_anthropic.streams import answer_of_events, piece_of_event
from stillhouse_anthropic.tools import request_tool_choice, request_tools
from stillhouse_anthropic.wire import message_output

__all__ = ["DEFAULT_MAX_NEW_TOKENS", "AnthropicLLM"]

DEFAULT_MAX_NEW_TOKENS = 4096
"""The API has no default. So many tokens every one of its models can generate."""

_EFFORTS = {level: level for level in ("low", "medium", "high", "max")}

# What is not sent under its own name, or not as it was given.
_RENAMED = frozenset({
    "extra_body",
    "max_new_tokens",
    "reasoning_effort",
    "stop",
    "tool_choice",
    "tools",
})  # fmt: skip


class AnthropicLLM(MessageBatchLLM):
    """Models of Anthropic, and of any server that implements its Messages API.

    Each generation is a separate request with its own retries. Any model name is accepted: the
    server knows which models it has.

    `input_tokens` counts the whole input, including tokens read from the cache (`cached_tokens`) and
    written to it (`cache_creation_tokens`). `output_tokens` includes the reasoning.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "images", "json_schema", "offline_batch", "tools"}
    )

    instructor_framework: ClassVar[str | None] = "anthropic"

    default_base_url: ClassVar[str | None] = "https://api.anthropic.com"
    base_url_variable: ClassVar[str | None] = "ANTHROPIC_BASE_URL"
    api_key_variable: ClassVar[str | None] = "ANTHROPIC_API_KEY"
    credential_headers: ClassVar[tuple[str, ...]] = ("x-api-key", "authorization")
    other_credentials: ClassVar[str] = "a token in ANTHROPIC_AUTH_TOKEN"

    quota_headers: ClassVar[tuple[QuotaHeaders, ...]] = QUOTAS
    models_path: ClassVar[str | tuple[str, ...] | None] = "v1/models"

    anthropic_version: str = Field(
        default="2023-06-01",
        min_length=1,
        description="The version of the API; from 2026-10-21 on, it rejects temperature.",
    )

    prompt_caching: bool = Field(
        default=False,
        description="Whether to cache the system prompt, the tools and the conversation.",
    )

    _num_generations_param_supported: bool = PrivateAttr(default=False)

    def auth_headers(self, api_key: str) -> dict[str, str]:
        """Those of the key, or without one of the token in `ANTHROPIC_AUTH_TOKEN`, as a gateway takes it."""
        headers = {"anthropic-version": self.anthropic_version}
        token = os.environ.get("ANTHROPIC_AUTH_TOKEN", "").strip()
        if api_key:
            headers["x-api-key"] = api_key
        elif token:
            headers["authorization"] = f"Bearer {token}"
        return headers

    def models_in(self, answer: Any) -> Iterable[ModelInfo]:
        entries = answer if isinstance(answer, list) else answer["data"] or ()
        for model, entry in zip(super().models_in(answer), entries, strict=True):
            if isinstance(entry, dict):
                if entry.get("lifecycle") == "retired":
                    continue  # it is listed, and refused
                model["max_new_tokens"] = entry.get("max_tokens") or 0
            yield model

    def models_page_after(self, answer: Any) -> Mapping[str, str | int] | None:
        more = isinstance(answer, dict) and answer.get("has_more")
        return {"after_id": answer.get("last_id") or ""} if more else None

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        return anthropic_failure(status, headers, body)

    def check_input(self, input: Any) -> None:
        super().check_input(input)
        request_messages(input[0] if type(input) is tuple else input)

    @classmethod
    def sdk_answer(cls, answer: Any) -> Any:
        types: Any = importlib.import_module("anthropic.types")
        return types.Message.model_construct(**answer)

    @classmethod
    def form_fields(cls, structured_output: StructuredOutput) -> dict[str, Any]:
        return {"output_config": {"format": output_format_of(structured_output, cls.__name__)}}

    async def agenerate(
        self, input: FormattedInput, **arguments: Unpack[MessageParameters]
    ) -> GenerateOutput:
        """Generate once for one chat. `None` is not sent: it means the API's default.

        Args:
            input: the chat.
            max_new_tokens: maximum number of tokens to generate, including reasoning. The API requires it:
                `None` sends 4096, plus the budget for thinking if there is one.
            temperature: sampling temperature, from 0 to 1. Models from Claude 4.7 on reject values other
                than the default, also for `top_p` and `top_k`.
            top_p: sample from the most likely tokens with this total probability.
            top_k: sample from this many most likely tokens.
            stop: texts that end the generation.
            tools: the tools that the model may call, in OpenAI's formatat or the API's.
            tool_choice: which tool to call: `auto`, `none`, `required`, or one by name.
            thinking: how to think before answering, in the API's format, such as `{"type": "enabled",
                "budget_tokens": 2048}`. The text is returned as `reasoning`.
            reasoning_effort: how much effort to spend on the answer: `low`, `medium`, `high` or `max`.
            service_tier: `auto` or `standard_only`.
            extra_body: further fields of the request, in the API's format.

        Raises:
            GenerationError: it failed; `kind` says how. With a `structured_output`, `truncated` if the
                answer was cut off, and `schema` if it does not validate.
        """
        return await self.complete(input, 1, arguments)

    def request_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> Request:
        chat, form = self.split(input)
        system, messages = request_messages(chat)
        limit = arguments.get("max_new_tokens")
        if limit is None:
            budget = count_of((arguments.get("thinking") or {}).get("budget_tokens"))
            limit = DEFAULT_MAX_NEW_TOKENS + (budget or 0)
        body: dict[str, Any] = {"model": self.model, "max_tokens": limit, "messages": messages}
        if system is not None:
            body["system"] = system
        for name, value in arguments.items():
            if value is not None and name not in _RENAMED:
                body[name] = value
        stop, tools, tool_choice = (arguments.get(name) for name in ("stop", "tools", "tool_choice"))
        if stop is not None:
            body["stop_sequences"] = [stop] if isinstance(stop, str) else stop
        if tools is not None:
            body["tools"] = request_tools(tools)
        if tool_choice is not None:
            body["tool_choice"] = request_tool_choice(tool_choice)
        extra, effort = dict(arguments.get("extra_body") or {}), arguments.get("reasoning_effort")
        config = {} if effort is None else {"effort": effort_of(effort, _EFFORTS, type(self).__name__)}
        if form is not None:
            config |= form.fields.get("output_config", {})
        config |= extra.pop("output_config", None) or {}
        if config:
            body["output_config"] = config
        if self.prompt_caching:
            body |= cached(body)
        body |= extra
        return Request(MESSAGES, body, form, max_new_tokens=limit)

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        return message_output(answer)

    def used_tokens(self, output: GenerateOutput) -> int | None:
        """Those that count towards the quotas: what was read from the cache does not."""
        used = super().used_tokens(output)
        cached = output["statistics"].get("cached_tokens") or [0]
        return None if used is None else used - (cached[0] or 0)

    def stream_request_of(self, request: Request) -> Request | None:
        return replace(request, body={**request.body, "stream": True}, wire="events")

    def piece_of_event(self, event: Any) -> str | None:
        return piece_of_event(event)

    def answer_of_events(self, events: list[Any]) -> Any:
        return answer_of_events(events)
