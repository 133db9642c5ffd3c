"""`Client`: one attempt of a request, and the JSON or the `Failure` that it ends with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

import aiohttp
import orjson
from yarl import URL

from stillhouse.http.transport.failures import answered, request_id_of
from stillhouse.http.transport.files import Upload, save_body, save_from
from stillhouse.http.transport.limits import Limits
from stillhouse.http.transport.quotas import QuotaHeaders, left_of
from stillhouse.offline.failures import Failure

__all__ = ["MAX_BODY_BYTES", "Classify", "Client", "failure_of_exception"]

logger = logging.getLogger("stillhouse.http")

MAX_BODY_BYTES = 64 * 2**20
"""Size of a response above which it is refused: a server must not use up this machine's memory."""

MIN_UPLOAD_BYTES_PER_SECOND = 50_000
"""Speed below which sending a file is given up."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})

Classify = Callable[[int, Mapping[str, str], bytes], Failure]


class Client:
    """Makes attempts on an open session, one at a time or many at once.

    Args:
        session: the session, which the caller closes.
        limits: which the quotas in the headers of a response are reported to.
        timeout: of one attempt.
        file_timeout: of one attempt that saves a file.
        classify: which failure a response with an error status is.
        quotas: the headers of a response that say what is left of a quota.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        limits: Limits,
        timeout: aiohttp.ClientTimeout,
        file_timeout: aiohttp.ClientTimeout,
        classify: Classify,
        quotas: Sequence[QuotaHeaders],
    ) -> None:
        self._session = session
        self._limits = limits
        self._timeout = timeout
        self._file_timeout = file_timeout
        self._classify = classify
        self._quotas = quotas

    async def attempt(
        self,
        method: str,
        url: URL,
        data: bytes | Upload | None,
        headers: Mapping[str, str] | None,
        save_to: IO[bytes] | None,
    ) -> Any:
        """Make one attempt, and return the JSON of the response, or the failure."""
        timeout = self._timeout if save_to is None else self._file_timeout
        body: Any = data
        if isinstance(data, Upload):
            body, timeout = data.blocks(), _upload_timeout(data, self._timeout)
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
                    await save_body(response, save_to)
                    return None
                if save_to is not None and status in _REDIRECTS and "location" in headers:
                    place = url.join(URL(headers["location"]))
                    return await save_from(place, save_to, self._session.connector, self._file_timeout)
                raw = await _read(response)
        except (aiohttp.ClientError, OSError) as error:
            return failure_of_exception(error, url)
        if raw is None:
            return _too_large(headers)
        if status >= 300:
            return self._classify(status, headers, raw)
        for quota in self._quotas:
            left = left_of(headers, quota)
            if left is not None:
                self._limits.update_quota(quota.remaining, *left, is_tokens=quota.unit == "tokens")
        answered.set(headers)
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s answered request %s", url.host, request_id_of(headers) or "without an id")
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            return _not_json(url, headers, raw)


def _upload_timeout(upload: Upload, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientTimeout:
    """Return the timeout for sending a file: a stalled connection takes nothing and reports nothing."""
    return aiohttp.ClientTimeout(
        total=(timeout.total or 0.0) + upload.size / MIN_UPLOAD_BYTES_PER_SECOND,
        sock_connect=timeout.sock_connect,
    )


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """Read the body; `None` if it is too large."""
    length = response.content_length
    if length is not None and length <= MAX_BODY_BYTES and "content-encoding" not in response.headers:
        return await response.read()
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            response.close()
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def failure_of_exception(error: aiohttp.ClientError | OSError, url: URL) -> Failure:
    """Return the failure that an exception of an attempt at this address is."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return Failure(
            "connection",
            f"the certificate of {url.host} does not verify: {error.certificate_error}",
            hint="check base_url, or make the certificate's authority known to this machine",
        )
    if isinstance(error, (aiohttp.ServerTimeoutError, TimeoutError)):
        return Failure(
            "timeout", f"{url.host} did not answer in time", retried=True, congestion=True, unclear=True
        )
    if isinstance(error, aiohttp.InvalidURL):
        return Failure("invalid_request", f"{url} is not a usable address", hint="check base_url")
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = error.os_error.strerror or error.os_error
        return Failure(
            "connection",
            f"{url.host}:{url.port} cannot be reached: {reason}",
            hint="check base_url, and whether the server runs; then make the same call again",
            retried=True,
            stops_run=True,  # after it was retried for as long as a request is retried
        )
    text = str(error) or type(error).__name__
    return Failure("connection", f"the connection to {url.host} broke: {text}", retried=True, unclear=True)


def _too_large(headers: Mapping[str, str]) -> Failure:
    return Failure(
        "server",
        f"the answer has more than {MAX_BODY_BYTES >> 20} MiB",
        hint="check base_url, or ask for fewer tokens",
        unclear=True,
        request_id=request_id_of(headers),
    )


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
