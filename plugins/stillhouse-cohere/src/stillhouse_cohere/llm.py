"""`CohereLLM`: Cohere's chat API, version 2."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Unpack

from pydantic import PrivateAttr

from stillhouse import (
    Capability,
    FormattedInput,
    GenerateOutput,
    StructuredOutput,
    UnsupportedError,
)
from stillhouse.http import Failure, QuotaHeaders, Request, StructuredHTTPLLM
from stillhouse.offline import clean_words
from stillhouse.structured import json_schema_of
from stillhouse.typing import ChatItem, ModelInfo
from stillhouse_cohere.failures import FAILED, QUOTAS, cohere_failure
from stillhouse_cohere.messages import asks_for_json, request_messages
from stillhouse_cohere.parameters import CohereParameters, request_fields
from stillhouse_cohere.schemas import narrowed
from stillhouse_cohere.streams import answer_of_events, piece_of_event
from stillhouse_cohere.wire import chat_output

__all__ = ["CohereLLM"]

_INSTRUCTION = "Answer with a JSON object."

_MAX_WARNINGS = 20

_OWN_PATH = re.compile(r"/(v[12](/chat)?|compatibility/v1)/*$")
"""The API's own paths, which other clients want in the address."""


class CohereLLM(StructuredHTTPLLM):
    """Models of Cohere; each generation is a separate request.

    `input_tokens` and `output_tokens` count what the model read and wrote. Fewer tokens are billed:
    `billed_input_tokens` and `billed_output_tokens`. Any model name is accepted: the server knows which
    models it has.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "images", "json_schema", "logprobs", "seed", "tools"}
    )

    default_base_url: ClassVar[str | None] = "https://api.cohere.com"
    base_url_variable: ClassVar[str | None] = "CO_API_URL"
    api_key_variable: ClassVar[str | None] = "CO_API_KEY"

    models_path: ClassVar[str | tuple[str, ...] | None] = "v1/models"

    quota_headers: ClassVar[tuple[QuotaHeaders, ...]] = QUOTAS

    _num_generations_param_supported: bool = PrivateAttr(default=False)
    _warnings: set[str] = PrivateAttr(default_factory=set)

    def configured_base_url(self) -> str | None:
        """As that of `HTTPLLM`, without a path of the API itself, in any version."""
        address, mark, query = (super().configured_base_url() or "").partition("?")
        return _OWN_PATH.sub("", address.strip()) + mark + query or None

    @classmethod
    def form_fields(cls, structured_output: StructuredOutput) -> dict[str, Any]:
        schema = narrowed(json_schema_of(structured_output, cls.__name__), cls.__name__)
        return {"response_format": {"type": "json_object", "json_schema": schema}}

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        return cohere_failure(status, headers, body)

    async def agenerate(self, input: FormattedInput, **arguments: Unpack[CohereParameters]) -> GenerateOutput:
        """Generate once for one chat. `None` is not sent: it means the API's default.

        Args:
            input: the chat.
            max_new_tokens: maximum number of tokens to generate, including reasoning.
            temperature: sampling temperature; 0 always takes the most likely token, and 0.3 is the API's
                default.
            top_p: sample from the most likely tokens with this total probability, from 0.01 to 0.99.
            top_k: sample from this many most likely tokens, up to 500; 0 for all.
            stop: texts that end the generation, at most five.
            seed: seed for sampling, if the server supports it.
            frequency_penalty: penalty for a token, for each time it has occurred, from 0 to 1.
            presence_penalty: penalty for a token that has occurred at all, from 0 to 1.
            logprobs: whether to return the log probabilities of the text's pieces.
            tools: the tools that the model may call, in OpenAI's format.
            tool_choice: which tool to call: `auto`, `none`, `required`, or one by name, which is then the
                only one offered.
            strict_tools: whether calls must match the tools' schemas; each tool must have a required
                parameter.
            response_format: the API's own response format; `structured_output` works with every backend.
            reasoning_effort: how long a reasoning model thinks, as a token budget; `none` turns thinking
                off.
            thinking: the same in the API's format, such as `{"type": "enabled", "token_budget": 500}`.
            documents: texts or objects that the model may quote and cite.
            citation_options: how to cite, in the API's format, such as `{"mode": "fast"}`.
            safety_mode: which safety instruction is added: `CONTEXTUAL`, `STRICT` or `OFF`.
            priority: priority of the request under load; 0 is handled first.
            extra_body: further fields of the request, in the API's format; they override others.
        """
        return await self.complete(input, 1, arguments)

    def request_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> Request:
        chat, form = self.split(input)
        body = {"model": self.model, "stream": False, "messages": request_messages(chat)}
        body |= request_fields(arguments, type(self).__name__)
        if form is not None:
            self._check_alone(body)
            body = {**_asking(body, chat), **form.fields, **(arguments.get("extra_body") or {})}
        return Request("v2/chat", body, form)

    def check_arguments(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """As that of `LLM`; what the API cannot be asked for at once is refused before the first row, too."""
        checked = super().check_arguments(arguments)
        fields = request_fields(checked, type(self).__name__)
        if self.structured_output is not None:
            self._check_alone(fields)
        return checked

    def _check_alone(self, body: dict[str, Any]) -> None:
        for name in ("tools", "documents"):
            if body.get(name):
                raise UnsupportedError(
                    f"{type(self).__name__} does not support structured output together with {name}",
                    hint="leave out one of them; strict_tools enforces the schemas of tool calls",
                )

    def models_in(self, answer: Any) -> Iterable[ModelInfo]:
        """Those that chat, where the API says what a model is for: it has others that embed and rank."""
        for model in answer["models"]:
            endpoints = model.get("endpoints")
            if not endpoints or "chat" in endpoints:
                yield {"name": model.get("name"), "context_length": model.get("context_length")}

    def models_page_after(self, answer: Any) -> Mapping[str, str | int] | None:
        token = answer.get("next_page_token")
        return {"page_token": token} if token else None

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        return chat_output(answer)

    def stream_request_of(self, request: Request) -> Request | None:
        return replace(request, body={**request.body, "stream": True}, wire="events")

    def piece_of_event(self, event: Any) -> str | None:
        return piece_of_event(event)

    def answer_of_events(self, events: list[Any]) -> Any:
        return answer_of_events(events)

    def failure_in(self, answer: Any, headers: Mapping[str, str]) -> Failure | None:
        """As that of `HTTPLLM`; a finish reason can say that the model failed, too."""
        if "x-api-warning" in headers:
            self._warn(headers["x-api-warning"])
        failure = super().failure_in(answer, headers)
        reason = answer.get("finish_reason") if isinstance(answer, dict) else None
        if failure is None and isinstance(reason, str) and reason in FAILED:
            return Failure("server", f"{FAILED[reason]}: {reason}", retried=True, congestion=True)
        return failure

    def _warn(self, text: str) -> None:
        """Log what the API warns of, such as a model that is retired soon: each warning once."""
        text = self._redactor().redact(clean_words(text))
        if text and text not in self._warnings and len(self._warnings) < _MAX_WARNINGS:
            self._warnings.add(text)
            logging.getLogger(f"stillhouse.llm.{self.model_name}").warning("Cohere warns: %s", text)


def _asking(body: dict[str, Any], chat: list[ChatItem]) -> dict[str, Any]:
    """A body that asks for JSON, or the model may write blanks until its context is full."""
    if asks_for_json(chat):
        return body
    messages = body["messages"]
    if messages and messages[0]["role"] == "system" and isinstance(messages[0].get("content"), str):
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{_INSTRUCTION}"}
        return {**body, "messages": [first, *messages[1:]]}
    return {**body, "messages": [{"role": "system", "content": _INSTRUCTION}, *messages]}
