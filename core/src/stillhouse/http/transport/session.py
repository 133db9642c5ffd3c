"""`Transport`: the connections of one LLM, and a request with its limits and retries.

The loop of attempts is one long function because every request runs through it: a call more costs more.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import IO, Any

import aiohttp
import orjson
from yarl import URL

from stillhouse._settings.secrets import is_secret
from stillhouse.errors import GenerationError
from stillhouse.http.transport.attempt import Classify, Client
from stillhouse.http.transport.failures import failure_of
from stillhouse.http.transport.files import Upload
from stillhouse.http.transport.limits import Limits
from stillhouse.http.transport.proxies import proxy_for
from stillhouse.http.transport.quotas import QuotaHeaders
from stillhouse.offline.failures import Failure, UnclearError, backoff_seconds

__all__ = ["Transport"]

MIN_SECRET_CHARS = 8
"""Length of a secret below which it is a word that a message may contain by itself."""

Authorize = Callable[[], Awaitable[Mapping[str, str]]]


class Transport:
    """The connections of one LLM to one host. It is created and used on one event loop.

    Args:
        base_url: the host; a proxy that the environment names for it is used.
        headers: sent with every request; they hold the credentials, and are not shown anywhere.
        limits: how fast requests are sent.
        timeout: seconds that one attempt may take.
        retry_timeout: seconds after the first failure after which a request is given up.
        classify: which failure a response with an error status is.
        quotas: the headers of an answer that say what is left of a quota.
        credentials: headers, in lower case, whose values are secrets whatever their names look like.
        authorize: returns further headers for one attempt, for credentials that expire.
        ssl_context: how certificates are verified; `None` uses aiohttp's default.
    """

    def __init__(
        self,
        base_url: URL,
        headers: Mapping[str, str],
        limits: Limits,
        *,
        timeout: float,
        retry_timeout: float,
        classify: Classify = failure_of,
        quotas: Sequence[QuotaHeaders] = (),
        credentials: Collection[str] = (),
        authorize: Authorize | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.limits = limits
        self._credentials = credentials
        self._authorize = authorize
        self._headers = headers
        self.urls: dict[str, URL] = {}  # by path
        self._retry_timeout = retry_timeout
        self._loop = asyncio.get_running_loop()
        self._session = aiohttp.ClientSession(
            # The limits bound the connections; a bound of the pool's own would only queue.
            connector=aiohttp.TCPConnector(limit=0, ssl=True if ssl_context is None else ssl_context),
            headers={"content-type": "application/json", "accept": "application/json", **headers},
            auto_decompress=True,
            cookie_jar=aiohttp.DummyCookieJar(),
            # aiohttp would look the environment's proxies up for every request, in a thread.
            proxy=None if (found := proxy_for(base_url)) is None else found.url,
        )
        self._client = Client(
            self._session,
            limits,
            aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, 30.0)),
            # A large file may take any time, as long as bytes keep arriving.
            aiohttp.ClientTimeout(sock_connect=min(timeout, 30.0), sock_read=timeout),
            classify,
            tuple(quotas),
        )

    async def close(self) -> None:
        """Close the connections."""
        self.limits.close()
        await self._session.close()

    async def post(
        self,
        url: URL,
        body: Any,
        *,
        tokens: int = 0,
        used_tokens: Callable[[Any], int | None] | None = None,
    ) -> Any:
        """Send a body as JSON and return the JSON of the response.

        Args:
            url: the address.
            body: what to send.
            tokens: how many tokens it is estimated to use.
            used_tokens: returns how many tokens a response says that it used.

        Raises:
            GenerationError: it failed after all retries.
        """
        try:
            data = orjson.dumps(body)
        except TypeError as error:
            raise GenerationError(
                f"the request cannot be written as JSON: {error}",
                kind="invalid_request",
                attempts=0,
                hint="give text that is valid Unicode, and values that JSON knows",
            ) from None
        return await self.request("POST", url, data, tokens=tokens, used_tokens=used_tokens)

    async def request(
        self,
        method: str,
        url: URL,
        data: bytes | Upload | None = None,
        *,
        tokens: int = 0,
        used_tokens: Callable[[Any], int | None] | None = None,
        save_to: IO[bytes] | None = None,
        once: bool = False,
    ) -> Any:
        """Make a request, with limits and retries, and return the JSON of the response.

        Args:
            method: such as `GET`.
            url: the address.
            data: the body.
            tokens: how many tokens it is estimated to use.
            used_tokens: returns how many tokens a response says that it used.
            save_to: a file that the response is written to, of any type and size; `None` is returned
                then. A redirect is followed, without the credentials.
            once: do not repeat it when it may have been carried out.

        Raises:
            UnclearError: it was made `once`, and may have been carried out.
            GenerationError: it failed after all retries.
        """
        limits = self.limits
        attempt, deadline = 0, 0.0
        while True:
            permit = await limits.acquire(tokens)
            attempt += 1
            used: int | None = None
            try:
                extra = None if self._authorize is None else await self._authorize()
                result = await self._client.attempt(method, url, data, extra, save_to)
                if not isinstance(result, Failure):
                    limits.on_success()
                    if used_tokens is not None:
                        # The backend, which reads it next, rejects a response of another shape.
                        with contextlib.suppress(AttributeError, LookupError, TypeError):
                            used = used_tokens(result)
                    return result
                sent = {**self._headers, **(extra or {})}
                message = _without_secrets(result.message, sent, self._credentials)
                result = replace(result, message=message)
                # A wait longer than any request may take is not shared: it would only delay the others.
                is_long = (result.retry_after or 0.0) >= self._retry_timeout
                pause = None if is_long else result.retry_after
                if result.kind == "rate_limit" and result.congestion:
                    limits.on_rate_limit(permit, pause)
                elif result.congestion:
                    limits.on_overload(permit, pause)
            finally:
                limits.release(permit, used)
            if once and result.unclear:
                raise _given_up(result, attempt, UnclearError)
            now = self._loop.time()
            deadline = deadline or now + self._retry_timeout
            delay = max(result.retry_after or 0.0, backoff_seconds(attempt))
            if not result.retried or now + delay >= deadline:
                if result.retried and is_long and result.retry_after:
                    result = _long_wait(result, self._retry_timeout)
                raise _given_up(result, attempt)
            await asyncio.sleep(delay)


def _long_wait(failure: Failure, retry_timeout: float) -> Failure:
    """Return a failure that asks for a longer wait than allowed, such as of a daily quota: it ends a run."""
    return replace(
        failure,
        message=f"{failure.message} (it asks to wait {failure.retry_after:.0f} s)",
        hint=f"run the same command again after that, or raise retry_timeout, now {retry_timeout:.0f} s",
        stops_run=True,
    )


def _without_secrets(text: str, headers: Mapping[str, str], credentials: Collection[str]) -> str:
    """Mask the secrets in a server's message: some servers quote the key that they reject."""
    for name, value in headers.items():
        secret = value.rpartition(" ")[2]
        is_one = name.lower() in credentials or is_secret(name, value)
        if is_one and len(secret) >= MIN_SECRET_CHARS:
            text = text.replace(secret, "**********")
    return text


def _given_up(
    failure: Failure, attempts: int, error: type[GenerationError] = GenerationError
) -> GenerationError:
    return error(
        failure.message,
        kind=failure.kind,
        attempts=attempts,
        hint=failure.hint,
        request_id=failure.request_id,
        stops_run=failure.stops_run,
    )
