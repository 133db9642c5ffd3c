"""Cohere's chat API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypedDict, Unpack

from pydantic import PrivateAttr
from stillhouse import (
    Capability,
    FormattedInput,
    GenerateOutput,
    StructuredOutput,
    UnsupportedError,
    prepare_output,
)
from stillhouse.http import Failure, Request, StructuredHTTPLLM
from stillhouse.structured import check_schema

KEYWORDS = "$ref additionalProperties anyOf const enum items pattern properties required type".split()
REASONS = {"COMPLETE": "stop", "STOP_SEQUENCE": "stop", "MAX_TOKENS": "length", "TOOL_CALL": "tool_calls"}


class CohereParameters(TypedDict, total=False):
    """The generation parameters; `None` is the API's default."""

    max_new_tokens: int | None
    temperature: float | None
    seed: int | None
    tools: list[dict[str, Any]] | None


class MyCohereLLM(StructuredHTTPLLM):
    """Models of Cohere; one generation per request."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "json_schema", "seed", "tools"})

    default_base_url: ClassVar[str | None] = "https://api.cohere.com"
    base_url_variable: ClassVar[str | None] = "CO_API_URL"
    api_key_variable: ClassVar[str | None] = "CO_API_KEY"

    _num_generations_param_supported: bool = PrivateAttr(default=False)

    @classmethod
    def form_fields(cls, structured_output: StructuredOutput) -> dict[str, Any]:
        if structured_output["format"] != "json":
            raise UnsupportedError(f"{cls.__name__} has JSON alone", hint="ask for an object with an enum")
        schema = structured_output["schema"]
        check_schema(schema, KEYWORDS, cls.__name__)
        return {"response_format": {"type": "json_object", "json_schema": schema}}

    async def agenerate(self, input: FormattedInput, **arguments: Unpack[CohereParameters]) -> GenerateOutput:
        """Generate once for one chat; `None` is the API's default.

        Args:
            input: the chat.
            max_new_tokens: how many tokens to generate at most.
            temperature: how evenly the tokens are drawn.
            seed: the seed of the draw.
            tools: the tools that the model may call.
        """
        return await self.complete(input, 1, arguments)

    def request_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> Request:
        chat, form = self.split(input)
        body: dict[str, Any] = {"model": self.model, "messages": chat}
        for name, value in arguments.items():
            if value is not None:
                body["max_tokens" if name == "max_new_tokens" else name] = value
        if form is not None:
            body |= form.fields
        return Request("v2/chat", body, form)

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        message, tokens = answer["message"], answer["usage"]["tokens"]
        text = "".join(part["text"] for part in message.get("content") or () if part["type"] == "text")
        reason, calls = answer["finish_reason"], message.get("tool_calls")
        output = prepare_output([text or None], [tokens["input_tokens"]], [tokens["output_tokens"]])
        output["finish_reasons"] = [REASONS.get(reason, reason.lower())]
        if calls:
            output["tool_calls"] = [calls]
        return output

    def failure_in(self, answer: Any, headers: Mapping[str, str]) -> Failure | None:
        failed = super().failure_in(answer, headers)
        reason = answer.get("finish_reason") if isinstance(answer, dict) else None
        if failed is None and reason in ("ERROR", "TIMEOUT"):
            failed = Failure("server", f"the model failed: {reason}", retried=True, congestion=True)
        return failed
