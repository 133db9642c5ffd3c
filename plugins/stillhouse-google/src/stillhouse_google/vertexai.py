"""`VertexAILLM`: models on Vertex AI, Google Cloud's platform."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PrivateAttr, SecretStr

from stillhouse import ConfigurationError, GenerationError, RuntimeParameter
from stillhouse.offline import path_segment
from stillhouse_google.generate_content import GenerateContentLLM
from stillhouse_google.google_auth import GoogleToken, default_token

if TYPE_CHECKING:
    from stillhouse.typing import ModelInfo

__all__ = ["VertexAILLM"]

_MULTI_REGIONS = frozenset({"us", "eu"})

_TOKEN_SECONDS = 60.0
"""How long a token of a provider is used before the provider is asked again: it keeps its own until then."""


class VertexAILLM(GenerateContentLLM):
    """Gemini, and other models that support `generateContent`, on Vertex AI.

    It is authorised by `access_token_provider`, by `access_token`, by an API key, or by the credentials that
    google-auth finds on this machine. A key requires no project: that is Vertex AI's express mode.
    """

    base_url_variable: ClassVar[str | None] = "GOOGLE_VERTEX_BASE_URL"
    api_key_variable: ClassVar[str | None] = "GOOGLE_API_KEY"
    other_credentials: ClassVar[str] = "access_token, access_token_provider or the credentials of google-auth"
    default_api_version: ClassVar[str] = "v1beta1"
    models_path: ClassVar[str | tuple[str, ...] | None] = "publishers/google/models"

    project: RuntimeParameter[str] | None = Field(
        default=None,
        description="The project; GOOGLE_CLOUD_PROJECT, or the project of the credentials, if None.",
    )
    location: RuntimeParameter[str] | None = Field(
        default=None,
        description="A region, us, eu or global; GOOGLE_CLOUD_LOCATION, or global, if None.",
    )
    access_token: RuntimeParameter[SecretStr] | None = Field(
        default=None, description="An access token of Google Cloud, which is not renewed."
    )
    access_token_provider: Callable[[], str | Awaitable[str]] | None = Field(
        default=None,
        exclude=True,
        repr=False,
        description="A function that returns an access token, called when one is required; it is not saved.",
    )

    _google: GoogleToken | None = PrivateAttr(default=None)
    _google_project: str = PrivateAttr(default="")
    _token_headers: dict[str, str] = PrivateAttr(default_factory=dict)
    _token_until: float = PrivateAttr(default=0.0)
    _token_lock: asyncio.Lock = PrivateAttr(default_factory=asyncio.Lock)

    def load(self) -> None:
        self._google, self._google_project = None, ""
        self._token_until, self._token_lock = 0.0, asyncio.Lock()
        given = {name.lower() for name in self.default_headers or {}}
        has_login = not given.isdisjoint(self.credential_headers) or "@" in (self.configured_base_url() or "")
        if not (has_login or self._has_token or self.configured_api_key()):
            self._google, self._google_project = default_token()
        self.model_path  # noqa: B018  -- report now what is missing
        super().load()

    @property
    def _has_token(self) -> bool:
        return self.access_token_provider is not None or self.access_token is not None

    def configured_base_url(self) -> str | None:
        location = self._location
        if not re.fullmatch(r"[a-z0-9-]+", location):
            raise ConfigurationError(
                f"{location[:40]!r} is not a location", hint="set location, such as europe-west4 or global"
            )
        if location == "global":
            host = "aiplatform.googleapis.com"
        elif location in _MULTI_REGIONS:
            host = f"aiplatform.{location}.rep.googleapis.com"
        else:
            host = f"{location}-aiplatform.googleapis.com"
        return super().configured_base_url() or f"https://{host}"

    def configured_api_key(self) -> str:
        """Return the key; one in the environment does not win over a project or a location there."""
        if self._has_token or (self.api_key is None and (self._project or self._given_location)):
            return ""
        return super().configured_api_key()

    def _setting(self, given: str | None, variable: str) -> str:
        """Return a field, or else the environment's, which an API key that was given wins over."""
        is_express = self.api_key is not None and not self._has_token
        return given or ("" if is_express else os.environ.get(variable, ""))

    @property
    def _project(self) -> str:
        return self._setting(self.project, "GOOGLE_CLOUD_PROJECT") or self._google_project

    @property
    def _given_location(self) -> str:
        return self._setting(self.location, "GOOGLE_CLOUD_LOCATION")

    @property
    def _location(self) -> str:
        return self._given_location or "global"

    def auth_headers(self, api_key: str) -> dict[str, str]:
        if self.access_token_provider is not None:
            return {}
        if self.access_token is not None:
            return {"authorization": f"Bearer {self.access_token.get_secret_value().strip()}"}
        return {"x-goog-api-key": api_key} if api_key else {}

    def has_credential(self, headers: Mapping[str, str]) -> bool:
        return (
            self._google is not None
            or self.access_token_provider is not None
            or super().has_credential(headers)
        )

    async def authorize(self) -> Mapping[str, str]:
        provider, google = self.access_token_provider, self._google
        if provider is None and google is None:
            return {}
        if self.event_loop.time() >= self._token_until:
            async with self._token_lock:
                if self.event_loop.time() >= self._token_until:
                    if provider is not None:
                        headers, seconds = await _headers_of(provider), _TOKEN_SECONDS
                    elif google is not None:
                        headers, seconds = await google.renew()
                    self._token_headers, self._token_until = headers, self.event_loop.time() + seconds
        return self._token_headers

    @property
    def model_path(self) -> str:
        """The path of the model: of Google's, or of the publisher that the name has before a slash."""
        parts = self.model.strip("/").split("/")
        if parts[0] not in ("endpoints", "models", "projects", "publishers"):
            parts = ["publishers", *(["google"] if len(parts) == 1 else [parts.pop(0)]), "models", *parts]
        path = "/".join(map(path_segment, parts))
        return path if parts[0] == "projects" else f"{self._parent}{path}"

    @property
    def _parent(self) -> str:
        """The path of the project and the location; the express mode has none."""
        if self._project:
            return f"projects/{path_segment(self._project)}/locations/{self._location}/"
        if self.configured_api_key():
            return ""
        raise ConfigurationError(
            f"{type(self).__name__} requires a project",
            hint="set project, or the environment variable GOOGLE_CLOUD_PROJECT",
        )

    def models_in(self, answer: Any) -> Iterable[ModelInfo]:
        """Return the models of a page, as they are published by Google; not all of them generate."""
        for item in self.entries(answer, "publisherModels"):
            yield {"name": item["name"].rpartition("/")[2]}

    def resource_path(self, name: str) -> str:
        name = super().resource_path(name)
        return name if name.startswith("projects/") else f"{self._parent}{name}"


async def _headers_of(provider: Callable[[], str | Awaitable[str]]) -> dict[str, str]:
    try:
        token = await asyncio.to_thread(provider)
        if inspect.isawaitable(token):
            token = await token
        if not isinstance(token, str) or not token.strip():
            raise TypeError(f"it gave {type(token).__name__} instead of a token")
    except Exception as error:
        raise GenerationError(
            f"access_token_provider failed: {type(error).__name__}: {error}",
            kind="authentication",
            attempts=0,
            hint="call it by itself, and check the permissions of the identity",
        ) from error
    return {"authorization": f"Bearer {token.strip()}"}
