"""`AnyscaleLLM`: open models on Anyscale."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from stillhouse_openai.compatible import CompatibleLLM

__all__ = ["AnyscaleLLM"]


class AnyscaleLLM(CompatibleLLM):
    """Open models on Anyscale; `base_url` is the address of the endpoint or of your own service."""

    default_base_url: ClassVar[str | None] = "https://api.endpoints.anyscale.com/v1"
    base_url_variable: ClassVar[str | None] = "ANYSCALE_BASE_URL"
    base_path: ClassVar[str] = "v1"
    api_key_variable: ClassVar[str | None] = "ANYSCALE_API_KEY"

    max_tokens_name: str = Field(
        default="max_tokens", description="The server's name for max_new_tokens in chats."
    )
