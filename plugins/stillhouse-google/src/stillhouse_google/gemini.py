"""`GeminiLLM`: the Gemini API of Google AI Studio."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from stillhouse.offline import path_segment
from stillhouse.outputs import count_of
from stillhouse_google.batches import BatchContentLLM

if TYPE_CHECKING:
    from stillhouse.typing import ModelInfo

__all__ = ["GeminiLLM"]


class GeminiLLM(BatchContentLLM):
    """Models of the Gemini API. Address, key and version come from the same variables as in Google's SDK."""

    default_base_url: ClassVar[str | None] = "https://generativelanguage.googleapis.com"
    base_url_variable: ClassVar[str | None] = "GOOGLE_GEMINI_BASE_URL"
    api_key_variable: ClassVar[str | None] = "GOOGLE_API_KEY"
    other_credentials: ClassVar[str] = "a key in GEMINI_API_KEY"
    models_path: ClassVar[str | tuple[str, ...] | None] = "models"
    default_api_version: ClassVar[str] = "v1beta"

    def configured_api_key(self) -> str:
        return super().configured_api_key() or os.environ.get("GEMINI_API_KEY", "")

    def auth_headers(self, api_key: str) -> dict[str, str]:
        """Return the header of the key, which never stands in an address."""
        return {"x-goog-api-key": api_key} if api_key else {}

    @property
    def model_path(self) -> str:
        group, slash, name = self.model.partition("/")
        if slash and group in ("models", "tunedModels"):
            return f"{group}/{path_segment(name)}"
        return f"models/{path_segment(self.model)}"

    def models_in(self, answer: Any) -> Iterable[ModelInfo]:
        """Return the models of a page that can generate."""
        for item in self.entries(answer, "models"):
            methods = item.get("supportedGenerationMethods")
            if isinstance(methods, list) and "generateContent" not in methods:
                continue
            model: ModelInfo = {"name": item["name"].removeprefix("models/")}
            if (count := count_of(item.get("inputTokenLimit"))) is not None:
                model["context_length"] = count
            if (count := count_of(item.get("outputTokenLimit"))) is not None:
                model["max_new_tokens"] = count
            yield model
