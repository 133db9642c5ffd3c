"""`Transport`: the connections of one LLM, and a request with its limits and retries.

The loop of attempts is one function because every request runs through it: a call more costs more.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import IO, Any

import aiohttp
from yarl import URL

from stillhouse._execution.stopping import current_stop
from stillhouse._settings.redaction import Redactor
from stillhouse._settings.secrets import is_secret
from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.http.transport.attempt import MAX_BODY_BYTES, Client
from stillhouse.http.transport.authorization import (
    Authorization,
    authorizing,
    check_header,
    waits_for_itself,
)
from stillhouse.http.transport.feeding import Feed
from stillhouse.http.transport.files import Upload
from stillhouse.http.transport.hooks import Hooks
from stillhouse.http.transport.judgement import given_up, redacted, seconds_to_wait, slow_down
from stillhouse.http.transport.permits import RequestLimits
from stillhouse.http.transport.proxies import proxy_for
from stillhouse.http.transport.reading import Wire
from stillhouse.offline.failures import Failure, backoff_seconds

__all__ = ["Transport"]

CONNECT_SECONDS = 30.0

KEPT_CREDENTIALS = 4
"""How many of the credentials that `authorize` gave, one after the other, are masked in errors."""


class Transport:
    """The connections of one LLM to one host. It is created and used on one event loop.

    Args:
        base_url: the host; a proxy that the environment names for it is used.
        headers: sent with every request; they hold the credentials, and are not shown anywhere.
        limits: how fast requests are sent.
        timeout: seconds that one attempt may take.
        retry_timeout: seconds after the first failure after which a request is given up.
        hooks: what the backend says about answers.
        authorization: what authorises one attempt besides `headers`.
        secrets: the values that are masked in whatever a server says.
        ssl_context: how certificates are verified; `None` uses aiohttp's default.

    Raises:
        ConfigurationError: the environment names a proxy that cannot be used, or a header has
            characters that no header has.
    """

    def __init__(
        self,
        base_url: URL,
        headers: Mapping[str, str],
        limits: RequestLimits,
        *,
        timeout: float,
        retry_timeout: float,
        hooks: Hooks,
        authorization: Authorization | None = None,
        secrets: Collection[str] = (),
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.limits = limits
        self.urls: dict[str, URL] = {}  # by path
        self._fresh: deque[list[str]] = deque(maxlen=KEPT_CREDENTIALS)
        self._authorization = authorization
        self._explained = hooks.explained
        self._retry_timeout = retry_timeout
        self._loop = asyncio.get_running_loop()
        self._headers = {"content-type": "application/json", "accept": "application/json", **headers}
        for name, value in self._headers.items():
            check_header(name, value)
        proxy = proxy_for(base_url)
        login = "" if proxy is None else proxy.authorization
        self._secrets = [*secrets, login]
        self.redactor = Redactor(self._secrets)
        session = self._session = aiohttp.ClientSession(
            # The limits bound the connections; a bound of the pool's own would only queue.
            connector=aiohttp.TCPConnector(limit=0, ssl=True if ssl_context is None else ssl_context),
            # aiohttp sends the headers of a session to a proxy too.
            headers=self._headers if proxy is None else None,
            auto_decompress=True,
            cookie_jar=aiohttp.DummyCookieJar(),
            # Attempts have a time limit of their own: a timer for each of them costs too much.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(timeout, CONNECT_SECONDS)),
        )
        self._own_headers: Mapping[str, str] | None = None
        if proxy is not None:
            _, _, extra = proxy.arguments(encrypted=base_url.scheme == "https")
            self._own_headers = {**self._headers, **extra}
        self._client = Client(
            self._session,
            limits,
            timeout,
            hooks,
            proxy,
            encrypted=base_url.scheme == "https",
            redact=self.redactor.redact,
        )

        # It holds nothing of the LLM, which may be collected while the session is open.
        self.close_session = session.close

    async def close(self) -> None:
        """Close the connections."""
        self.limits.close()
        self._client.close()
        await self._session.close()

    async def send(
        self,
        method: str,
        url: URL,
        data: bytes | Upload | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        tokens: int = 0,
        wire: Wire = "json",
        max_bytes: int = MAX_BODY_BYTES,
        is_checked: bool = True,
        save_to: IO[bytes] | None = None,
        once: bool = False,
        feed: Feed | None = None,
    ) -> Any:
        """Make a request, with limits and retries, and return the answer.

        Args:
            method: such as `GET`.
            url: the address, sent as it is.
            data: the body.
            headers: to send besides those of every request.
            tokens: how many tokens it is estimated to use.
            wire: how the body of the answer is read.
            max_bytes: how large it may be.
            is_checked: whether the backend looks at an answer with a good status.
            save_to: a file that the answer is written to, of any type and size; `None` is returned then.
            once: do not repeat it when it may have been carried out.
            feed: what watches an answer that comes as a stream. Once it gave a piece, nothing is repeated.

        Raises:
            UnclearError: it was made `once`, and may have been carried out.
            GenerationError: it failed after all retries.
        """
        limits, client, stop = self.limits, self._client, current_stop.get()
        attempt, deadline = 0, 0.0
        if self._authorization is not None and authorizing.get() is self._authorization:
            raise waits_for_itself()
        while True:
            permit = limits.try_acquire(tokens)
            if permit is None:
                with stop.interrupting():
                    permit = await limits.acquire(tokens)
            attempt += 1
            added = headers
            try:
                if self._authorization is not None or self._own_headers is not None:
                    added = await self._attempt_headers(method, url, headers, data)
                if stop.requested:
                    stop.check()
                if save_to is None:
                    result = await client.attempt(method, url, data, added, wire, max_bytes, is_checked, feed)
                else:
                    result = await client.save(url, added, save_to)
                if not isinstance(result, Failure):
                    limits.on_success()
                    return result
                slow_down(limits, permit, result, self._retry_timeout)
            finally:
                limits.release(permit)
            result = self._redacted(result, added)
            if feed is not None and feed.has_given:
                result = replace(result, retried=False)
            now = self._loop.time()
            deadline = deadline or now + self._retry_timeout
            delay = seconds_to_wait(result, backoff_seconds(attempt), now, deadline, once=once)
            if delay is None:
                if result.unknown_model and self._explained is not None:
                    result = await self._explained(result)
                raise given_up(result, attempt, self._retry_timeout, once=once)
            limits.seconds_waited += delay
            with stop.interrupting():
                await asyncio.sleep(delay)

    async def _attempt_headers(
        self, method: str, url: URL, headers: Mapping[str, str] | None, data: bytes | Upload | None
    ) -> Mapping[str, str]:
        """Return the headers of one attempt besides those of the session."""
        added = {**(headers or {})}
        if self._authorization is not None:
            every = {**self._headers, **added}
            if isinstance(data, Upload):
                every |= data.headers
            try:
                added |= await self._authorization.headers(method, url, every, data)
            except GenerationError as error:
                self.redactor.redact_error(error)
                raise
            if self._authorization.sign is None:  # a signature is of one request, and no secret
                self._learn(added)
            for name, value in added.items():
                try:
                    check_header(name, value)
                except ConfigurationError as error:  # it would be so for every request
                    raise GenerationError(
                        error.message, kind="authentication", attempts=0, hint=error.hint, stops_run=True
                    ) from None
        return added if self._own_headers is None else {**self._own_headers, **added}

    def _learn(self, added: Mapping[str, str]) -> None:
        """Mask fresh credentials wherever they are quoted, and the last ones: requests with them are out."""
        fresh = [value for name, value in added.items() if is_secret(name, value)]
        if not self._fresh or fresh != self._fresh[-1]:
            self._fresh.append(fresh)
            known = [value for values in self._fresh for value in values]
            self.redactor.become(Redactor([*self._secrets, *known]))

    def _redacted(self, failure: Failure, headers: Mapping[str, str] | None) -> Failure:
        """Mask the secrets in a server's message: some servers quote the key that they reject."""
        redactor = self.redactor
        if headers and self._authorization is not None:
            fresh = [value for name, value in headers.items() if self._headers.get(name) != value]
            redactor = redactor.with_secrets(fresh)
        return redacted(failure, redactor.redact)
