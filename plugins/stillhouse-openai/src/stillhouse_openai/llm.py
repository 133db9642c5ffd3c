"""`OpenAILLM`: the models of OpenAI."""

from __future__ import annotations

import os
from typing import Any, ClassVar, Literal

from pydantic import Field

from stillhouse import GenerateOutput, RuntimeParameter, UnsupportedError
from stillhouse_openai.batches import FileBatchLLM
from stillhouse_openai.responses import has_only_responses, responses_body, responses_output

__all__ = ["OpenAILLM"]


class OpenAILLM(FileBatchLLM):
    """Models of OpenAI, and of any server that speaks its chat completions API.

    A chat goes to `chat/completions`, or to `responses` where `api` says so; a raw prompt goes to
    `completions`. The answers have one shape, whichever API they come from. No model is refused for its
    name: the server knows which it has. The variables of the environment are those of OpenAI's SDK.
    """

    default_base_url: ClassVar[str | None] = "https://api.openai.com/v1"
    base_url_variable: ClassVar[str | None] = "OPENAI_BASE_URL"
    api_key_variable: ClassVar[str | None] = "OPENAI_API_KEY"

    api: Literal["auto", "chat", "responses"] = Field(
        default="auto",
        description="The API that chats go to; auto is responses for models that have no other.",
    )
    organization: RuntimeParameter[str] | None = Field(
        default=None,
        description="The organization to bill, if the key belongs to several; OPENAI_ORG_ID if None.",
    )
    project: RuntimeParameter[str] | None = Field(
        default=None, description="The project to bill; OPENAI_PROJECT_ID if None."
    )

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

    def path_of(self, body: dict[str, Any]) -> str:
        return "responses" if self.uses_responses and "messages" in body else super().path_of(body)

    def body_for(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return responses_body(body) if path == "responses" else super().body_for(path, body)

    def output_from(self, path: str, answer: Any) -> GenerateOutput:
        return responses_output(answer) if path == "responses" else super().output_from(path, answer)

    def auth_headers(self, api_key: str) -> dict[str, str]:
        headers = super().auth_headers(api_key)
        organization = self.organization or os.environ.get("OPENAI_ORG_ID")
        project = self.project or os.environ.get("OPENAI_PROJECT_ID")
        if organization:
            headers["openai-organization"] = organization
        if project:
            headers["openai-project"] = project
        return headers
