"""`GroqLLM`: open models on Groq."""

from __future__ import annotations

from typing import ClassVar

from pydantic import PrivateAttr

from stillhouse import Capability
from stillhouse_openai.compatible import CompatibleLLM

__all__ = ["GroqLLM"]


class GroqLLM(CompatibleLLM):
    """Open models on Groq. It makes one generation per request, and has chats only.

    The variables of the environment are those of Groq's SDK, whose base URL is the host alone.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "images", "json_schema", "seed", "tools"}
    )

    default_base_url: ClassVar[str | None] = "https://api.groq.com/openai/v1"
    base_url_variable: ClassVar[str | None] = "GROQ_BASE_URL"
    base_path: ClassVar[str] = "openai/v1"
    api_key_variable: ClassVar[str | None] = "GROQ_API_KEY"

    _num_generations_param_supported: bool = PrivateAttr(default=False)
