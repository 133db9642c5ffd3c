"""`OpenAILLM`: the models of OpenAI."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Unpack

from pydantic import Field

from stillhouse import FormattedInput, GenerateOutput, RuntimeParameter, UnsupportedError
from stillhouse.http import Request
from stillhouse_openai.batches import FileBatchLLM
from stillhouse_openai.parameters import ServiceParameters
from stillhouse_openai.responses import has_only_responses, responses_body, responses_output

__all__ = ["OpenAILLM"]


class OpenAILLM(FileBatchLLM):
    """Models of OpenAI, and of any server that implements its chat completions API.

    A chat goes to `chat/completions`, or to `responses` if `api` says so; a raw prompt goes to
    `completions`. Answers of both APIs have the same shape. Any model name is accepted: the server knows
    which models it has. The environment variables are those of OpenAI's SDK.
    """

    default_base_url: ClassVar[str | None] = "https://api.openai.com/v1"
    base_url_variable: ClassVar[str | None] = "OPENAI_BASE_URL"
    api_key_variable: ClassVar[str | None] = "OPENAI_API_KEY"

    api: Literal["auto", "chat", "responses"] = Field(
        default="auto",
        description="The API for chats; auto uses responses for models that support no other.",
    )
    organization: RuntimeParameter[str] | None = Field(
        default=None,
        description="The organization to bill, if the key belongs to several; OPENAI_ORG_ID if None.",
    )
    project: RuntimeParameter[str] | None = Field(
        default=None, description="The project to bill; OPENAI_PROJECT_ID if None."
    )

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, **arguments: Unpack[ServiceParameters]
    ) -> GenerateOutput:
        """Generate like `CompatibleLLM`, with a further parameter.

        Args:
            service_tier: the service tier, such as `flex` or `priority`.
        """
        return await self.complete(input, num_generations, arguments)

    @property
    def uses_responses(self) -> bool:
        """Whether chats go to the responses API."""
        return self.api == "responses" or (self.api == "auto" and has_only_responses(self.model))

    def load(self) -> None:
        # The responses API makes one generation per request.
        self._num_generations_param_supported = not self.uses_responses
        super().load()

    def check_input(self, input: Any) -> None:
        super().check_input(input)
        if self.uses_responses and type(input) is not str:
            _, form = self.split(input)
            if form is not None and form.is_instructed:
                raise UnsupportedError(
                    "a structured output with a mode goes to chat/completions",
                    hint='remove mode, or set api to "chat"',
                )

    def request_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> Request:
        request = super().request_of(input, num_generations, arguments)
        if self.uses_responses and request.path == "chat/completions":
            request.path, request.body = "responses", responses_body(request.body)
        return request

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        if request.path == "responses":
            return responses_output(answer)
        return super().output_of(answer, request)

    def auth_headers(self, api_key: str) -> dict[str, str]:
        headers = super().auth_headers(api_key)
        organization = self.organization or os.environ.get("OPENAI_ORG_ID")
        project = self.project or os.environ.get("OPENAI_PROJECT_ID")
        if organization:
            headers["openai-organization"] = organization
        if project:
            headers["openai-project"] = project
        return headers
