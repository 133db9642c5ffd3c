"""`AnthropicLLM`: the Messages API."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from stillhouse import (
    Capability,
    ChatItem,
    FormattedInput,
    GenerateOutput,
    StructuredOutput,
)
from stillhouse.http import Failure, QuotaHeaders, ask_instructed, ask_until_done
from stillhouse_anthropic.batches import MessageBatchLLM
from stillhouse_anthropic.failures import QUOTAS, anthropic_failure
from stillhouse_anthropic.messages import request_messages
from stillhouse_anthropic.schemas import output_format_of
from stillhouse_anthropic.tools import request_tool_choice, request_tools
from stillhouse_anthropic.wire import limited_tokens, message_output

__all__ = ["DEFAULT_MAX_NEW_TOKENS", "AnthropicLLM"]

DEFAULT_MAX_NEW_TOKENS = 4096
"""The API has no default. So many tokens every one of its models can generate."""


class AnthropicLLM(MessageBatchLLM):
    """Models of Anthropic, and of any server that speaks its Messages API.

    A request has one generation; several are as many requests, each tried again by itself. No
    model is refused for its name: the server knows which it has.

    `input_tokens` counts the whole input: what was read from the cache (`cached_tokens`), what was
    written to it (`cache_creation_tokens`), and the rest. `output_tokens` includes the reasoning.
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

    anthropic_version: str = Field(
        default="2023-06-01",
        min_length=1,
        description="The version of the API's protocol; from 2026-10-21 on it takes no temperature.",
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
        self,
        input: FormattedInput,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        stop: str | list[str] | None = None,
        tools: list[dict[str, Any]] | None = None,
        tool_choice: str | dict[str, Any] | None = None,
        thinking: dict[str, Any] | None = None,
        reasoning_effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None,
        extra_body: dict[str, Any] | None = None,
    ) -> GenerateOutput:
        """Generate once for one chat. `None` is not sent: it means the API's default.

        Args:
            input: the chat.
            max_new_tokens: how many tokens to generate at most, reasoning included; the API wants
                to be told. `None` is 4096, on top of the budget for thinking if there is one.
            temperature: how evenly the tokens are drawn, from 0 to 1; models from Claude 4.7 on
                refuse another value than the default, and also of the next two.
            top_p: draw from the likeliest tokens that make up this share.
            top_k: draw from so many of the likeliest tokens.
            stop: texts at which to stop.
            tools: the tools that the model may call, in OpenAI's form or the API's.
            tool_choice: which tool to call: `auto`, `none`, `required`, or one by name.
            thinking: how to think before answering, in the API's form, such as
                `{"type": "enabled", "budget_tokens": 2048}`. The text is returned as `reasoning`.
            reasoning_effort: how much effort to spend on the answer.
            extra_body: further fields of the request, as the API knows them.

        Raises:
            GenerationError: it failed; `kind` says how. Of an answer with a `structured_output`,
                `truncated` if it was cut off, and `schema` if it does not validate.
        """
        return await AnthropicLLM._generate(**locals())

    def body_of(self, input: FormattedInput, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The body of a request; the arguments are those of `agenerate`."""
        chat, form = self.split(input)
        system, messages = request_messages(chat)
        thinking, max_new_tokens = arguments.get("thinking"), arguments.get("max_new_tokens")
        if max_new_tokens is None:
            max_new_tokens = DEFAULT_MAX_NEW_TOKENS + ((thinking or {}).get("budget_tokens") or 0)
        stop, tools = arguments.get("stop"), arguments.get("tools")
        tool_choice, effort = arguments.get("tool_choice"), arguments.get("reasoning_effort")
        body: dict[str, Any] = {"model": self.model, "max_tokens": max_new_tokens, "messages": messages}
        fields: dict[str, Any] = {
            "system": system,
            "temperature": arguments.get("temperature"),
            "top_p": arguments.get("top_p"),
            "top_k": arguments.get("top_k"),
            "stop_sequences": [stop] if isinstance(stop, str) else stop,
            "tools": None if tools is None else request_tools(tools),
            "tool_choice": None if tool_choice is None else request_tool_choice(tool_choice),
            "thinking": thinking,
        }
        for name, value in fields.items():
            if value is not None:
                body[name] = value
        extra = dict(arguments.get("extra_body") or {})
        config = {} if effort is None else {"effort": effort}
        if form is not None:
            config |= form.fields.get("output_config", {})
        config |= extra.pop("output_config", None) or {}
        if config:
            body["output_config"] = config
        body |= extra
        return body

    def batch_request(
        self, input: FormattedInput, num_generations: int, arguments: dict[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        return self.messages_path, self.body_of(input, arguments)

    async def _generate(self, input: FormattedInput, **arguments: Any) -> GenerateOutput:
        body, path = self.body_of(input, arguments), self.messages_path
        _, form = self.split(input)

        async def send(sent: dict[str, Any]) -> Any:
            return await self.post(path, sent, max_new_tokens=body["max_tokens"], used_tokens=limited_tokens)

        async def ask(_: int, __: int, added: Sequence[ChatItem]) -> GenerateOutput:
            sent = {**body, "messages": [*body["messages"], *added]} if added else body
            if form is not None and form.is_instructed:
                return await ask_instructed(self, sent, form, send, message_output)
            return message_output(await send(sent))

        return await ask_until_done(ask, 1, form)
