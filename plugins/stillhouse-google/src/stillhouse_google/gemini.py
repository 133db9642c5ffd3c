"""`GeminiLLM`: the Gemini API of Google AI Studio."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PrivateAttr

from stillhouse import RuntimeParameter
from stillhouse.offline import path_segment
from stillhouse.outputs import count_of
from stillhouse_google.generate_content import GenerateContentLLM

if TYPE_CHECKING:
    from yarl import URL

    from stillhouse.typing import ModelInfo

__all__ = ["GeminiLLM"]

_VERSION = re.compile(r"/v\d[a-z0-9]*$")


class GeminiLLM(GenerateContentLLM):
    """Models of the Gemini API. Address, key and version are read where Google's SDK reads them."""

    default_base_url: ClassVar[str | None] = "https://generativelanguage.googleapis.com"
    base_url_variable: ClassVar[str | None] = "GOOGLE_GEMINI_BASE_URL"
    api_key_variable: ClassVar[str | None] = "GOOGLE_API_KEY"
    other_credentials: ClassVar[str] = "a key in GEMINI_API_KEY"
    models_path: ClassVar[str | None] = "models"

    api_version: RuntimeParameter[str] | None = Field(
        default=None,
        description="The version of the API, such as v1; GOOGLE_GENAI_API_VERSION, or v1beta, if None.",
    )

    _version: str = PrivateAttr(default="v1beta")

    def load(self) -> None:
        version = self.api_version or os.environ.get("GOOGLE_GENAI_API_VERSION", "")
        self._version = "v1beta" if version in ("", "beta") else version
        super().load()

    def auth_headers(self, api_key: str) -> dict[str, str]:
        """Return the header of the key, which never stands in an address."""
        key = api_key or os.environ.get("GEMINI_API_KEY", "").strip()
        return {"x-goog-api-key": key} if key else {}

    def url_of(self, base_url: URL, path: str) -> URL:
        """Return the address of a path, below that of the API's version; a base URL may end with one."""
        found = _VERSION.search(base_url.path)
        return super().url_of(base_url, path if found else f"{self._version}/{path}")

    @property
    def model_path(self) -> str:
        group, slash, name = self.model.partition("/")
        if slash and group in ("models", "tunedModels"):
            return f"{group}/{path_segment(name)}"
        return f"models/{path_segment(self.model)}"

    def models_in(self, answer: Any) -> Iterable[ModelInfo]:
        """Return the models of a page that can generate."""
        for item in answer["models"]:
            methods = item.get("supportedGenerationMethods")
            if isinstance(methods, list) and "generateContent" not in methods:
                continue
            model: ModelInfo = {"name": item["name"].removeprefix("models/")}
            if (count := count_of(item.get("inputTokenLimit"))) is not None:
                model["context_length"] = count
            if (count := count_of(item.get("outputTokenLimit"))) is not None:
                model["max_new_tokens"] = count
            yield model

    def models_page_after(self, answer: Any) -> Mapping[str, str | int] | None:
        token = answer.get("nextPageToken")
        return {"pageToken": token} if isinstance(token, str) and token else None
