"""`OpenAILLM`: the models of OpenAI."""

from __future__ import annotations

import os
from typing import ClassVar

from pydantic import Field

from stillhouse import RuntimeParameter
from stillhouse_openai.compatible import CompatibleLLM

__all__ = ["OpenAILLM"]


class OpenAILLM(CompatibleLLM):
    """Models of OpenAI, and of any server that speaks its chat completions API.

    A chat goes to `chat/completions`, a raw prompt to `completions`. No model is refused for its
    name: the server knows which it has. The variables of the environment are those of OpenAI's SDK.
    """

    default_base_url: ClassVar[str | None] = "https://api.openai.com/v1"
    base_url_variable: ClassVar[str | None] = "OPENAI_BASE_URL"
    api_key_variable: ClassVar[str | None] = "OPENAI_API_KEY"

    organization: RuntimeParameter[str] | None = Field(
        default=None,
        description="The organization to bill, if the key belongs to several; OPENAI_ORG_ID if None.",
    )
    project: RuntimeParameter[str] | None = Field(
        default=None, description="The project to bill; OPENAI_PROJECT_ID if None."
    )

    def auth_headers(self, api_key: str) -> dict[str, str]:
        headers = super().auth_headers(api_key)
        organization = self.organization or os.environ.get("OPENAI_ORG_ID")
        project = self.project or os.environ.get("OPENAI_PROJECT_ID")
        if organization:
            headers["openai-organization"] = organization
        if project:
            headers["openai-project"] = project
        return headers
