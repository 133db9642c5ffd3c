"""One request, made as often as it takes: the session, the limits, the retries."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import IO, Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from yarl import URL

from stillhouse._settings.serialization import is_secret
from stillhouse.errors import GenerationError
from stillhouse.http.transport.failures import answered, failure_of, request_id_of
from stillhouse.http.transport.limits import Limits
from stillhouse.http.transport.quotas import QuotaHeaders, left_of
from stillhouse.http.transport.uploads import BLOCK, Upload
from stillhouse.offline.failures import Failure, UnclearError, backoff_seconds

__all__ = ["LARGEST_BODY", "Transport"]

logger = logging.getLogger("stillhouse.http")

LARGEST_BODY = 64 * 2**20
"""Bytes of a response above which it is refused, for memory is not the server's to use up."""

SHORTEST_SECRET = 8
"""Characters of a secret below which it is a word that a message may hold by itself."""

SLOWEST_UPLOAD = 50_000
"""Bytes of a file a second below which sending it is given up."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})

Classify = Callable[[int, Mapping[str, str], bytes], Failure]
Authorize = Callable[[], Awaitable[Mapping[str, str]]]


class Transport:
    """The connections of one LLM to one host. It is made and used on one event loop.

    Args:
        base_url: the host; a proxy that the environment names for it is used.
        headers: sent with every request; they hold the credentials, and are shown nowhere.
        limits: how fast the host is asked.
        timeout: seconds that one attempt may take.
        retry_timeout: seconds from the first attempt after which a request is given up.
        classify: which failure a response with an error status is.
        quotas: the headers of an answer that say what is left of a quota.
        credentials: headers, in lower case, whose values are secrets whatever their names are like.
        authorize: the headers of one attempt besides `headers`, for credentials that expire.
        ssl_context: how certificates are verified; `None` is aiohttp's way.
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
        self._classify = classify
        self._quotas = tuple(quotas)
        self._credentials = credentials
        self._authorize = authorize
        self._headers = headers
        self.urls: dict[str, URL] = {}  # by path
        self._retry_timeout = retry_timeout
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, 30.0))
        # A large file comes as long as something comes.
        self._file_timeout = aiohttp.ClientTimeout(sock_connect=min(timeout, 30.0), sock_read=timeout)
        self._loop = asyncio.get_running_loop()
        self._session = aiohttp.ClientSession(
            # The limits bound the connections; a bound of the pool's own would only queue.
            connector=aiohttp.TCPConnector(limit=0, ssl=True if ssl_context is None else ssl_context),
            headers={"content-type": "application/json", "accept": "application/json", **headers},
            auto_decompress=True,
            cookie_jar=aiohttp.DummyCookieJar(),
            # aiohttp would look the environment's proxies up for every request, in a thread.
            proxy=_proxy_for(base_url),
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
        """Send a body as JSON and return the JSON that comes back.

        Args:
            url: where to.
            body: what to send.
            tokens: how many tokens it is estimated to use.
            used_tokens: how many a response says that it used.

        Raises:
            GenerationError: it failed, after as many attempts as made sense.
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
        """Make a request, as often as it takes, and return the JSON that comes back.

        Args:
            method: such as `GET`.
            url: where to.
            data: the body.
            tokens: how many tokens it is estimated to use.
            used_tokens: how many a response says that it used.
            save_to: a file that the response is written to, whatever it is and however large;
                `None` is returned then. It may be elsewhere: a redirect is followed, without
                the credentials.
            once: never make it again when it may have been carried out.

        Raises:
            UnclearError: it was made `once`, and may have been carried out.
            GenerationError: it failed, after as many attempts as made sense.
        """
        limits = self.limits
        attempt, deadline = 0, 0.0
        while True:
            permit = await limits.acquire(tokens)
            attempt += 1
            used: int | None = None
            try:
                extra = None if self._authorize is None else await self._authorize()
                result = await self._attempt(method, url, data, extra, save_to)
                if not isinstance(result, Failure):
                    limits.succeeded()
                    if used_tokens is not None:
                        # An answer of another shape is for the backend to refuse, who reads it next.
                        with contextlib.suppress(AttributeError, LookupError, TypeError):
                            used = used_tokens(result)
                    return result
                sent = {**self._headers, **(extra or {})}
                message = _without_secrets(result.message, sent, self._credentials)
                result = replace(result, message=message)
                # A wait that no request survives is not shared: it would only hold the others up.
                is_long = (result.retry_after or 0.0) >= self._retry_timeout
                pause = None if is_long else result.retry_after
                if result.kind == "rate_limit" and result.congestion:
                    limits.refused(permit, pause)
                elif result.congestion:
                    limits.overloaded(permit, pause)
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

    async def _attempt(
        self,
        method: str,
        url: URL,
        data: bytes | Upload | None,
        headers: Mapping[str, str] | None,
        save_to: IO[bytes] | None,
    ) -> Any:
        """The JSON of the answer, or the failure."""
        timeout = self._timeout if save_to is None else self._file_timeout
        body: Any = data
        if isinstance(data, Upload):
            body = data.blocks()
            # A stalled connection takes nothing, and says nothing.
            timeout = aiohttp.ClientTimeout(
                total=(self._timeout.total or 0.0) + data.size / SLOWEST_UPLOAD,
                sock_connect=self._timeout.sock_connect,
            )
            headers = {**data.headers, **(headers or {})}
        if save_to is not None:
            headers = {"accept": "*/*", **(headers or {})}
        try:
            sending = self._session.request(
                method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            )
            async with sending as response:
                status, headers = response.status, response.headers
                if save_to is not None and status < 300:
                    await _save(response, save_to)
                    return None
                if save_to is not None and status in _REDIRECTS and "location" in headers:
                    return await self._save_from(url.join(URL(headers["location"])), save_to)
                raw = await _read(response)
        except aiohttp.ClientConnectorCertificateError as error:
            return Failure(
                "connection",
                f"the certificate of {url.host} does not verify: {error.certificate_error}",
                hint="check base_url, or make the certificate's authority known to this machine",
            )
        except (aiohttp.ServerTimeoutError, TimeoutError):
            return Failure(
                "timeout", f"{url.host} did not answer in time", retried=True, congestion=True, unclear=True
            )
        except aiohttp.InvalidURL:
            return Failure("invalid_request", f"{url} is not a usable address", hint="check base_url")
        except aiohttp.ClientConnectorError as error:
            reason = error.os_error.strerror or error.os_error
            return Failure(
                "connection",
                f"{url.host}:{url.port} cannot be reached: {reason}",
                hint="check base_url, and whether the server runs; then make the same call again",
                retried=True,
                stops_run=True,  # once it was tried for as long as a request is tried
            )
        except (aiohttp.ClientError, OSError) as error:
            text = str(error) or type(error).__name__
            return Failure(
                "connection", f"the connection to {url.host} broke: {text}", retried=True, unclear=True
            )
        if raw is None:
            return Failure(
                "server",
                f"the answer has more than {LARGEST_BODY >> 20} MiB",
                hint="check base_url, or ask for fewer tokens",
                unclear=True,
                request_id=request_id_of(headers),
            )
        if status >= 300:
            return self._classify(status, headers, raw)
        for quota in self._quotas:
            told = left_of(headers, quota)
            if told is not None:
                self.limits.told(quota.remaining, *told, is_tokens=quota.unit == "tokens")
        answered.set(headers)
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s answered request %s", url.host, request_id_of(headers) or "without an id")
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            return _not_json(url, headers, raw)

    async def _save_from(self, url: URL, save_to: IO[bytes]) -> Failure | None:
        """Save a file from where the server says that it is, such as a store of files.

        Nothing of the session goes there, so no credentials either; the address has its own.
        """
        if url.scheme != "https" and url.host not in _LOCAL:
            return Failure("server", f"the file is at {url.host}, which is not encrypted")
        bare = aiohttp.ClientSession(
            connector=self._session.connector,
            connector_owner=False,
            timeout=self._file_timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=_proxy_for(url),
        )
        async with bare, bare.get(url, allow_redirects=False) as response:
            if response.status >= 300:
                return Failure("server", f"{url.host} answered with status {response.status}", retried=True)
            await _save(response, save_to)
        return None


def _proxy_for(url: URL) -> str | None:
    """The proxy that the environment names for this host, as every tool reads it."""
    host = url.host or ""
    return None if proxy_bypass(host) else getproxies().get(url.scheme)


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """The body, or `None` if it is too large."""
    length = response.content_length
    if length is not None and length <= LARGEST_BODY and "content-encoding" not in response.headers:
        return await response.read()
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > LARGEST_BODY:
            response.close()
            return None
        chunks.append(chunk)
    return b"".join(chunks)


async def _save(response: aiohttp.ClientResponse, file: IO[bytes]) -> None:
    """Write the body to a file, over whatever an earlier attempt left there."""
    file.seek(0)
    file.truncate()
    async for block in response.content.iter_chunked(BLOCK):
        try:
            file.write(block)
        except OSError as error:
            raise GenerationError(
                f"the answer cannot be kept: {error.strerror or error}",
                hint="make room in the folder for temporary files, and run the same again",
                stops_run=True,
            ) from None


def _not_json(url: URL, headers: Mapping[str, str], raw: bytes) -> Failure:
    identity = request_id_of(headers)
    if not raw.strip():
        return Failure(
            "server", "the answer is empty", retried=True, congestion=True, unclear=True, request_id=identity
        )
    if raw.lstrip()[:1] == b"<":
        return Failure(
            "invalid_request",
            f"{url.host} answered with a page instead of JSON",
            hint="check base_url: it is the address of the API, not of the website",
            stops_run=True,
            request_id=identity,
        )
    return Failure(
        "server",
        "the answer is not valid JSON",
        retried=True,
        congestion=True,
        unclear=True,
        request_id=identity,
    )


def _long_wait(failure: Failure, retry_timeout: float) -> Failure:
    """A refusal for longer than a request may wait, such as of a quota per day: a run ends with it."""
    return replace(
        failure,
        message=f"{failure.message} (it asks to wait {failure.retry_after:.0f} s)",
        hint=f"run the same command again after that, or raise retry_timeout, now {retry_timeout:.0f} s",
        stops_run=True,
    )


def _without_secrets(text: str, headers: Mapping[str, str], credentials: Collection[str]) -> str:
    """What a server says, in which some of them quote the key that they refuse."""
    for name, value in headers.items():
        secret = value.rpartition(" ")[2]
        is_one = name.lower() in credentials or is_secret(name, value)
        if is_one and len(secret) >= SHORTEST_SECRET:
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
