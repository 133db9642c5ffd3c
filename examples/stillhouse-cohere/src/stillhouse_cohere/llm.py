"""Cohere's chat API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import PrivateAttr
from stillhouse import (
    Capability,
    ChatItem,
    FormattedInput,
    GenerateOutput,
    GenerationError,
    StructuredOutput,
    UnsupportedError,
    prepare_output,
)
from stillhouse.http import StructuredHTTPLLM, ask_until_done
from stillhouse.structured import check_schema

KEYWORDS = "$ref additionalProperties anyOf const enum items pattern properties required type".split()
REASONS = {"COMPLETE": "stop", "STOP_SEQUENCE": "stop", "MAX_TOKENS": "length", "TOOL_CALL": "tool_calls"}


class CohereLLM(StructuredHTTPLLM):
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
        return {"response_format": {"type": "json_object", "schema": schema}}

    async def agenerate(
        self,
        input: FormattedInput,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        tools: list[dict[str, Any]] | None = None,
    ) -> GenerateOutput:
        """Generate once for one chat; `None` is the API's default.

        Args:
            input: the chat.
            max_new_tokens: how many tokens to generate at most.
            temperature: how evenly the tokens are drawn.
            seed: the seed of the draw.
            tools: the tools that the model may call.
        """
        chat, form = self.split(input)
        body = {"model": self.model, "messages": chat, **(form.fields if form else {})}
        given = {"max_tokens": max_new_tokens, "temperature": temperature, "seed": seed, "tools": tools}
        body |= {name: value for name, value in given.items() if value is not None}

        async def ask(missing: int, made: int, added: Sequence[ChatItem]) -> GenerateOutput:
            sent = {**body, "messages": [*chat, *added]}
            answer = await self.post(
                "v2/chat", sent, max_new_tokens=max_new_tokens, used_tokens=lambda it: sum(tokens(it))
            )
            return output_of(answer)

        return await ask_until_done(ask, 1, form)


def tokens(answer: Any) -> tuple[int, int]:
    """The tokens of the input and of the output."""
    usage = answer["usage"]["tokens"]
    return usage["input_tokens"], usage["output_tokens"]


def output_of(answer: Any) -> GenerateOutput:
    try:
        message, (given, made) = answer["message"], tokens(answer)
        text = "".join(part["text"] for part in message.get("content") or () if part["type"] == "text")
        reason = REASONS.get(answer["finish_reason"], answer["finish_reason"].lower())
        calls = message.get("tool_calls")
    except (AttributeError, KeyError, TypeError) as error:
        raise GenerationError(f"the answer has another shape: {error!r}", kind="server") from None
    return prepare_output(
        [text or None], [given], [made], finish_reasons=[reason], tool_calls=[calls] if calls else None
    )
