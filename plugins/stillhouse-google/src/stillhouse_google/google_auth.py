"""`GoogleToken`: tokens of google-auth, renewed before they expire, without blocking the loop."""

from __future__ import annotations

import asyncio
import importlib
from datetime import UTC, datetime
from typing import Any

from stillhouse import ConfigurationError, GenerationError

__all__ = ["GoogleToken", "default_token"]

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)

_EARLY_SECONDS = 300.0
"""How long before a token expires it is renewed."""

_AGAIN_SECONDS = 20.0
"""How long a token is kept at least that the server will not renew yet, or cannot."""


def default_token() -> tuple[GoogleToken, str]:
    """Return the token of the credentials that this machine has for Google Cloud, and their project.

    Raises:
        ConfigurationError: google-auth is not installed, or finds none.
    """
    try:
        auth, transport = importlib.import_module("google.auth"), _import_transport()
    except ImportError as error:
        raise ConfigurationError(
            f"the credentials of this machine for Google Cloud require {error.name}, which is not installed",
            hint='stillhouse install "stillhouse-google[auth]", or set access_token_provider or api_key',
        ) from None
    try:
        credentials, project = auth.default(scopes=_SCOPES)
    except auth.exceptions.GoogleAuthError as error:
        raise ConfigurationError(
            f"no Google Cloud credentials were found: {str(error).partition('.')[0]}",
            hint="gcloud auth application-default login, or name a file in GOOGLE_APPLICATION_CREDENTIALS",
        ) from None
    return GoogleToken(credentials, transport), project or ""


class GoogleToken:
    """The token of some credentials.

    Args:
        credentials: of google-auth.
        transport: its module for requests.
    """

    def __init__(self, credentials: Any, transport: Any) -> None:
        self._credentials = credentials
        self._transport = transport

    async def renew(self) -> tuple[dict[str, str], float]:
        """Return the headers with the token, and for how many seconds they are good.

        Raises:
            GenerationError: there is no token to be had.
        """
        exceptions = importlib.import_module("google.auth.exceptions")
        if self._seconds_left() <= _EARLY_SECONDS:
            try:
                await asyncio.to_thread(self._credentials.refresh, self._transport.Request())
            except exceptions.GoogleAuthError as error:
                if self._seconds_left() <= 0:
                    is_passing = isinstance(error, exceptions.TransportError) or error.retryable
                    raise GenerationError(
                        f"Google gave no access token: {error}",
                        kind="connection" if is_passing else "authentication",
                        attempts=0,
                        hint="try it by itself: gcloud auth application-default print-access-token",
                    ) from error
        headers: dict[str, str] = {}
        self._credentials.apply(headers)  # with the project that pays, if they name one
        return headers, max(self._seconds_left() - _EARLY_SECONDS, _AGAIN_SECONDS)

    def _seconds_left(self) -> float:
        if not self._credentials.token:
            return 0.0
        expiry = self._credentials.expiry
        if expiry is None:
            return float("inf")
        return float((expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds())


def _import_transport() -> Any:
    return importlib.import_module("google.auth.transport.requests")
