"""`HTTPLLM`: the base of every backend that asks a server."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PrivateAttr, SecretStr, field_validator

from stillhouse._settings.runtime import RuntimeParameter
from stillhouse._settings.secrets import is_secret
from stillhouse.async_llm import AsyncLLM
from stillhouse.errors import ConfigurationError
from stillhouse.http.transport.failures import failure_of
from stillhouse.http.transport.quotas import X_RATELIMIT, QuotaHeaders
from stillhouse.offline.failures import Failure

if TYPE_CHECKING:
    from yarl import URL

    from stillhouse.http.transport.files import Upload
    from stillhouse.http.transport.session import Transport

__all__ = ["HTTPLLM"]


class HTTPLLM(AsyncLLM):
    """A model behind an HTTP API that takes and gives JSON.

    A backend says where the API is and how it is authorised (the class variables, and
    `auth_headers`), and in `agenerate` turns an input into a body, calls `post`, and turns what
    comes back into a `GenerateOutput`. This class handles connections, retries, rate limits, timeouts
    and errors.
    """

    default_base_url: ClassVar[str | None] = None
    """Where the API is if neither the field nor the variable says so."""

    base_url_variable: ClassVar[str | None] = None
    """The environment variable for `base_url`."""

    base_path: ClassVar[str] = ""
    """The path that is added to a `base_url` without one, such as `v1`."""

    api_key_variable: ClassVar[str | None] = None
    """The environment variable for `api_key`; `None` where the API needs no key."""

    api_key_required: ClassVar[bool] = True
    """Whether loading without any credential is refused."""

    credential_headers: ClassVar[tuple[str, ...]] = ("authorization",)
    """Headers any of which authorises a request, in lower case; `default_headers` may have one too."""

    other_credentials: ClassVar[str] = ""
    """What may replace an API key, such as `azure_ad_token_provider`; the message about a missing key
    names it."""

    quota_headers: ClassVar[tuple[QuotaHeaders, ...]] = X_RATELIMIT
    """The headers of a response that say what is left of a quota."""

    model: str = Field(description="The model's name, as the API knows it.")
    base_url: RuntimeParameter[str] | None = Field(
        default=None, description="The address of the API; the environment's or the provider's if None."
    )
    api_key: RuntimeParameter[SecretStr] | None = Field(
        default=None, description="The API key; the environment's if None."
    )
    default_headers: RuntimeParameter[dict[str, str | SecretStr]] = Field(
        default_factory=dict, description="Headers to send with every request besides the API's own."
    )
    timeout: RuntimeParameter[float] = Field(
        default=120.0, gt=0, description="Seconds that one attempt may take."
    )
    retry_timeout: RuntimeParameter[float] = Field(
        default=180.0, ge=0, description="Seconds after its first failure until a request is given up."
    )
    requests_per_minute: RuntimeParameter[float] | None = Field(
        default=None, gt=0, description="The quota of requests, if you know it; None learns the pace."
    )
    tokens_per_minute: RuntimeParameter[float] | None = Field(
        default=None, gt=0, description="The quota of tokens, if you know it."
    )

    _transport: Transport | None = PrivateAttr(default=None)
    _base: URL = PrivateAttr()

    @field_validator("default_headers", mode="after")
    @classmethod
    def _hide_secrets(cls, value: dict[str, str | SecretStr] | None) -> dict[str, str | SecretStr]:
        return {
            name: SecretStr(text)
            if isinstance(text, str) and (name.lower() in cls.credential_headers or is_secret(name, text))
            else text
            for name, text in (value or {}).items()
        }

    @property
    def model_name(self) -> str:
        return self.model

    def load(self) -> None:
        super().load()
        self._base = self._find_base_url()
        headers = {**self.auth_headers(self._find_api_key())}
        for name, text in (self.default_headers or {}).items():
            headers[name.lower()] = text.get_secret_value() if isinstance(text, SecretStr) else text
        if self.api_key_required and not self.has_credential(headers):
            others = f", or {self.other_credentials}" if self.other_credentials else ""
            raise ConfigurationError(
                f"{type(self).__name__} needs an API key{others}",
                hint=f"set the environment variable {self.api_key_variable}, or api_key{others}",
            )
        if self._base.user is not None and "authorization" in headers:
            raise ConfigurationError(
                "base_url has a login in it, and there is an API key: only one of them can be sent",
                hint="leave out the one that the server does not want",
            )
        self._transport = self.run_on_loop(self._open(headers))

    def unload(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            self.run_on_loop(transport.close())
        super().unload()

    async def _open(self, headers: Mapping[str, str]) -> Transport:
        # aiohttp takes long to import, and listing or checking backends does not need it.
        from stillhouse.http.transport.limits import Limits
        from stillhouse.http.transport.session import Transport

        cls = type(self)
        return Transport(
            self._base,
            headers,
            Limits(self.max_concurrency or 1, self.requests_per_minute, self.tokens_per_minute),
            timeout=self.timeout or 120.0,
            retry_timeout=self.retry_timeout or 0.0,
            classify=self.classify,
            quotas=self.quota_headers,
            credentials=self.credential_headers,
            authorize=None if cls.authorize is HTTPLLM.authorize else self.authorize,
        )

    def has_credential(self, headers: Mapping[str, str]) -> bool:
        """Return whether requests with these headers are authorised; there may be more than one way.

        A backend that overrides `authorize` overrides it too, for credentials that are not known yet.
        """
        return any(headers.get(name) for name in self.credential_headers)

    def auth_headers(self, api_key: str) -> dict[str, str]:
        """Return the headers that authorise a request; a backend whose API has others overrides it.

        Args:
            api_key: the key of the field or the environment; an empty string if there is none.
        """
        return {"authorization": f"Bearer {api_key}"} if api_key else {}

    async def authorize(self) -> Mapping[str, str]:
        """Return the headers that authorise one attempt, for credentials that expire while the LLM is loaded.

        It is called for every attempt, on the LLM's loop, and only if a backend overrides it.
        """
        return {}

    def url_of(self, base_url: URL, path: str) -> URL:
        """Return the address of a path of the API; a backend overrides it if that is not simply below."""
        return base_url.joinpath(*path.split("/"))

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        """Return the failure that a response with an error status is; a backend may know better."""
        return failure_of(status, headers, body)

    async def post(
        self,
        path: str,
        body: Any,
        *,
        max_new_tokens: int | None = None,
        used_tokens: Callable[[Any], int | None] | None = None,
    ) -> Any:
        """Send a body to a path below `base_url`, and return the JSON of the response.

        Args:
            path: such as `chat/completions`.
            body: what to send; JSON types.
            max_new_tokens: how many tokens may be generated, for the estimate that
                `tokens_per_minute` needs.
            used_tokens: returns how many tokens a response says that it used, for the same. It need
                not check the shape of the response.

        Raises:
            GenerationError: it failed after all retries; `kind` says how.
        """
        transport = self._connected()
        url = transport.urls.get(path)
        if url is None:
            url = transport.urls[path] = self.url_of(self._base, path)
        tokens = 0
        if self.tokens_per_minute:
            tokens = len(str(body)) // 4 + (max_new_tokens or 0)
        return await transport.post(url, body, tokens=tokens, used_tokens=used_tokens)

    async def request(
        self,
        method: str,
        path: str,
        data: bytes | Upload | None = None,
        *,
        query: Mapping[str, str | int] | None = None,
        save_to: IO[bytes] | None = None,
        once: bool = False,
    ) -> Any:
        """Make any other request to a path below `base_url`, and return the JSON of the response.

        Args:
            method: such as `GET`.
            path: such as `batches`.
            data: the body: JSON, or a file.
            query: the parameters of the query.
            save_to: a file for a response of any size; `None` is returned then.
            once: do not repeat it when it may have been carried out.

        Raises:
            UnclearError: it was made `once`, and may have been carried out.
            GenerationError: it failed after all retries; `kind` says how.
        """
        transport = self._connected()
        url = self.url_of(self._base, path)
        if query:
            url = url.update_query(query)
        return await transport.request(method, url, data, save_to=save_to, once=once)

    def _connected(self) -> Transport:
        transport = self._transport  # once: pydantic looks private attributes up slowly
        if transport is None:
            self.require_loaded()
            raise AssertionError
        return transport

    @property
    def api_url(self) -> str:
        """The address of the API, without credentials; also while the LLM is not loaded.

        Raises:
            ConfigurationError: it is not known, or not an address.
        """
        url = self._find_base_url()
        return f"{url.origin()}{url.path}"

    def _find_base_url(self) -> URL:
        from yarl import URL

        variable = self.base_url_variable
        given = self.base_url or (os.environ.get(variable) if variable else None) or self.default_base_url
        hint = f"set base_url, or the environment variable {variable}" if variable else "set base_url"
        if not given:
            raise ConfigurationError(f"{type(self).__name__} does not know where the API is", hint=hint)
        try:
            url = URL(given.strip().rstrip("/"))
            usable = url.scheme in ("http", "https") and bool(url.host)
            if usable and self.base_path and url.path in ("", "/"):
                url = url.joinpath(*self.base_path.split("/"))
        except ValueError:
            usable = False
        if not usable:
            raise ConfigurationError(
                f"the base_url {given!r} is not an address", hint="write it as https://host/v1"
            )
        return url

    def _find_api_key(self) -> str:
        if self.api_key is not None:
            key = self.api_key.get_secret_value()
        else:
            key = os.environ.get(self.api_key_variable, "") if self.api_key_variable else ""
        key = key.strip()
        if not key.isascii() or not key.isprintable():
            raise ConfigurationError(
                "the API key has characters that no key has", hint="copy the key again, without anything else"
            )
        return key
