"""`ServerLLM`: where a server is and what authorises a request to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, PrivateAttr, SecretStr, field_validator

from stillhouse._settings.redaction import secret_values
from stillhouse._settings.runtime import RuntimeParameter
from stillhouse._settings.secrets import is_secret, is_secret_header_value, is_secret_query
from stillhouse._settings.stored_keys import stored_key
from stillhouse.async_llm import AsyncLLM
from stillhouse.errors import ConfigurationError
from stillhouse.http.address import base_url_of, url_below

if TYPE_CHECKING:
    from yarl import URL

__all__ = ["ServerLLM"]

MIN_UNKNOWN_CHARS = 16
"""Length from which on the value of a header that is not known is masked in errors."""


class ServerLLM(AsyncLLM):
    """A model on a server: its address, its key, and how a backend defines them.

    It is the part of `HTTPLLM` that sends nothing.
    """

    default_base_url: ClassVar[str | None] = None
    """The address of the API if neither the field nor the variable is set."""

    base_url_variable: ClassVar[str | None] = None
    """The environment variable for `base_url`."""

    base_path: ClassVar[str] = ""
    """The path that is added to a `base_url` without a path, such as `v1`."""

    api_key_variable: ClassVar[str | None] = None
    """The environment variable for `api_key`; `None` if the API needs no key."""

    api_key_required: ClassVar[bool] = True
    """Whether loading without any credential is refused."""

    credential_headers: ClassVar[tuple[str, ...]] = ("authorization",)
    """Headers any of which authorises a request, in lower case; `default_headers` may have one too."""

    other_credentials: ClassVar[str] = ""
    """What may replace an API key, such as `azure_ad_token_provider`; the message about a missing key
    names it."""

    model: str = Field(description="The name of the model in the API.")
    base_url: RuntimeParameter[str] | None = Field(
        default=None, description="The address of the API; from the environment, or the provider's, if None."
    )
    api_key: RuntimeParameter[SecretStr] | None = Field(
        default=None, description="The API key; from the environment or the keyring if None."
    )
    default_headers: RuntimeParameter[dict[str, str | SecretStr]] = Field(
        default_factory=dict, description="Headers to send with every request, in addition to the API's own."
    )

    _base: URL = PrivateAttr()
    _key: str | None = PrivateAttr(default=None)

    @field_validator("default_headers", mode="after")
    @classmethod
    def _hide_secrets(cls, value: dict[str, str | SecretStr] | None) -> dict[str, str | SecretStr]:
        return {
            name: SecretStr(text)
            if isinstance(text, str)
            and (name.lower() in cls.credential_headers or is_secret_header_value(name, text))
            else text
            for name, text in (value or {}).items()
        }

    @property
    def model_name(self) -> str:
        return self.model

    @property
    def resolved_key(self) -> str:
        """The API key from the field, the environment or the keyring; an empty string if there is none.

        Use it for an API that does not take the key in a header: put it into the query in `url_of`, or sign
        with it. It is masked in every error.
        """
        return self._find_api_key() if self._key is None else self._key

    def _prepare(self) -> dict[str, str]:
        """Resolve the address and the key, and return the headers of every request.

        Raises:
            ConfigurationError: something of it is missing, or contradicts something else.
        """
        self._base = self._find_base_url()
        self._key = self._find_api_key()
        headers = {**self.auth_headers(self._key)}
        for name, text in (self.default_headers or {}).items():
            headers[name.lower()] = text.get_secret_value() if isinstance(text, SecretStr) else text
        has_login = self._base.user is not None  # aiohttp sends it
        if self.api_key_required and not has_login and not self.has_credential(headers):
            others = f", or {self.other_credentials}" if self.other_credentials else ""
            raise ConfigurationError(
                f"{type(self).__name__} needs an API key{others}",
                hint=f"set the environment variable {self.api_key_variable}, or api_key{others}; "
                f"stillhouse keys set {self.api_key_variable} stores a key",
            )
        if has_login and "authorization" in headers:
            raise ConfigurationError(
                "base_url has a login in it, and there is an API key: only one of them can be sent",
                hint="leave out the one that the server does not want",
            )
        return headers

    def _secrets(self, headers: Mapping[str, str]) -> list[str]:
        """Return every secret that may reach a server, as it is sent."""
        found = [*secret_values(self), self.resolved_key]
        for name, value in headers.items():
            if name in self.credential_headers or is_secret(name, value):
                found.append(value)
            elif is_secret_header_value(name, value) and len(value) >= MIN_UNKNOWN_CHARS:
                found.append(value)  # it may be one; a short word would mask too much
        query = self._base.query.items()
        found += [self._base.user or "", self._base.password or ""]
        found += [value for name, value in query if is_secret_query(name)]
        return found

    def has_credential(self, headers: Mapping[str, str]) -> bool:
        """Return whether requests with these headers are authorised.

        A backend that overrides `authorize` or `sign` also overrides this method, because its credentials are
        not in the headers yet.
        """
        return bool(self.resolved_key) or any(headers.get(name) for name in self.credential_headers)

    def auth_headers(self, api_key: str) -> dict[str, str]:
        """Return the headers that authorise a request. The default is `Authorization: Bearer …`.

        Args:
            api_key: the key from the field, the environment or the keyring; an empty string if there is none.
        """
        return {"authorization": f"Bearer {api_key}"} if api_key else {}

    def url_of(self, base_url: URL, path: str) -> URL:
        """Return the address of a path of the API. By default, the path is appended to `base_url`.

        The query of `base_url` is kept. A backend may add `resolved_key` to the query.
        """
        return url_below(base_url, path)

    @property
    def api_url(self) -> str:
        """The address of the API, without credentials. The LLM need not be loaded.

        Raises:
            ConfigurationError: the address is unknown or not valid.
        """
        url = self._find_base_url()
        return f"{url.origin()}{url.path}"

    def configured_base_url(self) -> str | None:
        """Return the configured address of the API: from the field, the environment, or the class.

        A backend overrides it to read the address from other places, or to accept other forms. It may be
        called before the LLM is loaded, and must not open a connection.
        """
        variable = self.base_url_variable
        return self.base_url or (os.environ.get(variable) if variable else None) or self.default_base_url

    def configured_api_key(self) -> str:
        """Return the configured API key; an empty string if there is none.

        It comes from the field, the environment, or the system's keyring (`stillhouse keys set`). A backend
        overrides it to read the key from other places.
        """
        if self.api_key is not None:
            return self.api_key.get_secret_value()
        variable = self.api_key_variable
        return (os.environ.get(variable) or stored_key(variable)) if variable else ""

    def _find_base_url(self) -> URL:
        variable, given = self.base_url_variable, self.configured_base_url()
        hint = f"set base_url, or the environment variable {variable}" if variable else "set base_url"
        if not given:
            raise ConfigurationError(f"{type(self).__name__} does not know where the API is", hint=hint)
        return base_url_of(given, self.base_path, hint)

    def _find_api_key(self) -> str:
        key = self.configured_api_key().strip()
        if not key.isascii() or not key.isprintable():
            raise ConfigurationError(
                "the API key has characters that no key has", hint="copy the key again, without anything else"
            )
        return key
