"""An LLM that asks a server."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
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
from stillhouse.http import Failure, QuotaHeaders, StructuredHTTPLLM, ask_until_done, failure_of
from stillhouse.structured import check_schema

__all__ = ["SteadyHTTPLLM"]


class SteadyHTTPLLM(StructuredHTTPLLM):
    """Models behind an API of its own kind."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "json_schema"})
    default_base_url: ClassVar[str | None] = "https://steady.invalid"
    base_url_variable: ClassVar[str | None] = "STEADY_URL"
    base_path: ClassVar[str] = "v1"
    api_key_variable: ClassVar[str | None] = "STEADY_KEY"
    credential_headers: ClassVar[tuple[str, ...]] = ("x-steady-key",)
    quota_headers: ClassVar[tuple[QuotaHeaders, ...]] = ()

    _num_generations_param_supported: bool = PrivateAttr(default=False)

    def auth_headers(self, api_key: str) -> dict[str, str]:
        return {"x-steady-key": api_key} if api_key else {}

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        failure = failure_of(status, headers, body)
        if b"too many rivers" in body:
            return dataclasses.replace(failure, kind="server", retried=True, congestion=True)
        return failure

    @classmethod
    def form_fields(cls, structured_output: StructuredOutput) -> dict[str, Any]:
        if structured_output["format"] != "json":
            raise UnsupportedError("JSON alone", hint="ask for an object")
        known = {"additionalProperties", "enum", "properties", "required", "type"}
        check_schema(structured_output["schema"], known, cls.__name__)
        return {"form": structured_output["schema"]}

    async def agenerate(
        self, input: FormattedInput, max_new_tokens: int | None = None, temperature: float | None = None
    ) -> GenerateOutput:
        """Answer once.

        Args:
            input: the chat.
            max_new_tokens: how many tokens at most.
            temperature: how evenly they are drawn.
        """
        chat, form = self.split(input)
        body = {"model": self.model, "limit": max_new_tokens, "temperature": temperature}
        body |= form.fields if form else {}

        async def ask(missing: int, made: int, added: Sequence[ChatItem]) -> GenerateOutput:
            answer = await self.post(
                "ask",
                {**body, "chat": [*chat, *added]},
                max_new_tokens=max_new_tokens,
                used_tokens=lambda answer: answer["cost"],
            )
            try:
                return prepare_output(
                    [answer["text"]], [answer["cost"]], [answer["cost"]], finish_reasons=["stop"]
                )
            except (KeyError, TypeError) as error:
                raise GenerationError(f"another shape: {error!r}", kind="server") from None

        return await ask_until_done(ask, 1, form)
