"""`Client`: one attempt of a request, and the answer or the `Failure` that it ends with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import isfinite
from typing import IO, Any

import aiohttp
import orjson
from yarl import URL

from stillhouse._execution.messages import are_shown
from stillhouse._lenient import loads
from stillhouse.errors import GenerationError
from stillhouse.http.transport.answers import failure_in
from stillhouse.http.transport.bodies import MAX_ERROR_BYTES
from stillhouse.http.transport.deadlines import Deadlines
from stillhouse.http.transport.exceptions import (
    broken_hook,
    failure_of_exception,
    not_json,
    timed_out,
    too_large,
    without_parts,
)
from stillhouse.http.transport.failures import answered, request_id_of
from stillhouse.http.transport.feeding import Feed
from stillhouse.http.transport.files import Upload, save_body, save_from
from stillhouse.http.transport.hooks import Hooks, checked
from stillhouse.http.transport.permits import RequestLimits
from stillhouse.http.transport.proxies import Proxy
from stillhouse.http.transport.quotas import left_of
from stillhouse.http.transport.reading import (
    Wire,
    json_of_events,
    json_of_lines,
    looks_like_events,
    parts_of,
    read_at_most,
    read_body,
)
from stillhouse.http.transport.shown import Exchanges
from stillhouse.offline.failures import Failure

__all__ = ["MAX_BODY_BYTES", "Client"]

logger = logging.getLogger("stillhouse.http")

MAX_BODY_BYTES = 64 * 2**20
"""Size of an answer above which it is refused where nothing else is said."""

MIN_UPLOAD_BYTES_PER_SECOND = 50_000
"""Speed below which sending a file is given up."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Client:
    """Makes attempts on an open session, one at a time or many at once.

    Args:
        session: the session, which the caller closes.
        limits: which the quotas in the headers of a response are reported to.
        timeout: seconds that one attempt may take.
        hooks: what the backend says about answers.
        proxy: the proxy that requests go through.
        encrypted: whether they go to an `https` address, so through a tunnel.
        redact: masks the secrets in a text.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        limits: RequestLimits,
        timeout: float,
        hooks: Hooks,
        proxy: Proxy | None = None,
        *,
        encrypted: bool = False,
        redact: Callable[[str], str] = str,
    ) -> None:
        self._session = session
        self._redact = redact
        self._limits = limits
        self._timeout = timeout
        self._deadlines = Deadlines(timeout)
        self._loop = asyncio.get_running_loop()
        self._hooks = hooks
        self._failure_in = hooks.failure_in
        self._quotas = tuple(hooks.quotas)
        self._quotas_in = hooks.quotas_in
        self._proxy = proxy
        self._via: URL | None = None
        self._proxy_headers: Mapping[str, str] | None = None
        if proxy is not None:
            self._via, self._proxy_headers, _ = proxy.arguments(encrypted=encrypted)
        self._has_answered = False
        self._exchanges = Exchanges(redact)

    def close(self) -> None:
        """Stop the timer; the session is the caller's."""
        self._deadlines.close()

    async def attempt(
        self,
        method: str,
        url: URL,
        data: bytes | Upload | None,
        headers: Mapping[str, str] | None,
        wire: Wire,
        max_bytes: int,
        is_checked: bool,
        feed: Feed | None = None,
    ) -> Any:
        """Make one attempt, and return the answer, or the failure.

        Args:
            method: such as `POST`.
            url: the address, sent as it is.
            data: the body.
            headers: to send besides those of the session.
            wire: how the body of the answer is read.
            max_bytes: how large it may be.
            is_checked: whether the backend looks at an answer with a good status.
            feed: what watches an answer that comes as a stream.
        """
        shown = self._exchanges.request(method, url, data) if are_shown() else ""
        seconds, body = self._timeout, data
        if isinstance(data, Upload):
            body = data.blocks()  # type: ignore[assignment]
            seconds += data.size / MIN_UPLOAD_BYTES_PER_SECOND
            headers = {**data.headers, **(headers or {})}
        deadlines, response, is_whole = self._deadlines, None, True
        task: Any = asyncio.current_task()
        deadlines.ends[task] = self._loop.time() + seconds
        if not deadlines.is_watching:
            deadlines.watch()
        try:
            response = await self._session.request(
                method,
                url,
                data=body,
                headers=headers,
                allow_redirects=False,
                proxy=self._via,
                proxy_headers=self._proxy_headers,
            )
            status, received = response.status, response.headers
            length = response.content_length
            is_small = length is not None and length <= max_bytes and status < 300
            if is_small and feed is None and "content-encoding" not in received:
                raw = await response.read()
            else:
                on_chunk = None if feed is None else feed.begin()
                raw, is_whole = await read_body(response, max_bytes, wire, on_chunk)
        except (asyncio.CancelledError, aiohttp.ClientError, OSError, ValueError) as error:
            if response is not None:
                response.close()
            if deadlines.has_ended(task):
                failure = timed_out(url, seconds, has_begun=response is not None)
            elif isinstance(error, asyncio.CancelledError):
                raise
            else:
                failure = failure_of_exception(error, url, self._proxy)
            if shown:
                self._exchanges.failure(shown, failure.message)
            return failure
        finally:
            del deadlines.ends[task]
        if shown:
            self._exchanges.answer(shown, status, raw)
        if status >= 300:
            return self._refused(status, received, raw)
        if not is_whole:
            return too_large(max_bytes, received)
        if not raw and status == 204 and wire == "json":  # there is nothing to be said, as of a deletion
            return None
        return self._answer(url, received, raw, wire, is_checked, feed)

    def _answer(
        self,
        url: URL,
        received: Mapping[str, str],
        raw: bytes,
        wire: Wire,
        is_checked: bool,
        feed: Feed | None,
    ) -> Any:
        """Return the answer in a body with a good status, or the failure that it is."""
        for quota in self._quotas:
            if quota.remaining in received:
                left = left_of(received, quota)
                if left is not None:
                    self._limits.update_quota(quota.remaining, *left, is_tokens=quota.unit == "tokens")
        answered.set(received)
        if logger.isEnabledFor(logging.DEBUG):
            identity = self._redact(request_id_of(received)) or "without an id"
            logger.debug("%s answered request %s", url.host, identity)
        answer: Any
        if wire == "json":
            try:
                answer = orjson.loads(raw)
            except orjson.JSONDecodeError:
                answer = self._not_json(url, received, raw, feed)
                if isinstance(answer, Failure):
                    return answer
        else:
            answer = parts_of(raw, wire)
            if not answer and is_checked:
                return self._without_parts(url, received, raw)
        self._has_answered = True
        if is_checked and self._failure_in is not None:
            try:
                failure = self._failure_in(answer, received)
            except GenerationError:
                raise
            except Exception as error:
                raise broken_hook("failure_in", error, self._failure_in) from error
            if failure is not None:
                return checked("failure_in", failure, self._failure_in)
        if self._quotas_in is not None:
            # An answer that tells of its quotas in another way tells nothing.
            with suppress(AttributeError, LookupError, TypeError, ValueError):
                for name, told in self._quotas_in(answer, received).items():
                    if told is not None and all(map(isfinite, told)):
                        self._limits.update_quota(name, *told, is_tokens="token" in name)
        return answer

    def _without_parts(self, url: URL, received: Mapping[str, str], raw: bytes) -> Failure:
        """Return the failure that an answer is in which nothing is that was asked for: it may be an error."""
        try:
            failure = failure_in(loads(raw), received, self._hooks.classify)
        except ValueError:
            failure = None
        return failure or without_parts(url, received, raw, is_first=not self._has_answered)

    async def save(self, url: URL, headers: Mapping[str, str] | None, file: IO[bytes]) -> Failure | None:
        """Save an answer of any type and size in a file; return the failure, if it is one.

        It may take any time, as long as bytes keep arriving. A redirect is followed, without the
        credentials.
        """
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=min(self._timeout, 30.0), sock_read=self._timeout
        )
        try:
            sending = self._session.get(
                url,
                headers={**(headers or {}), "accept": "*/*"},
                timeout=timeout,
                allow_redirects=False,
                proxy=self._via,
                proxy_headers=self._proxy_headers,
            )
            async with sending as response:
                status, received = response.status, response.headers
                if status < 300:
                    await save_body(response, file)
                    return None
                if status in _REDIRECTS and "location" in received:
                    place = url.join(URL(received["location"]))
                    return await save_from(place, file, self._session.connector, timeout)
                raw, _ = await read_at_most(response, MAX_ERROR_BYTES)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return failure_of_exception(error, url, self._proxy)
        return self._refused(status, received, raw)

    def _refused(self, status: int, headers: Mapping[str, str], raw: bytes) -> Failure:
        try:
            failure = self._hooks.classify(status, headers, raw)
        except GenerationError:
            raise
        except Exception as error:
            raise broken_hook("classify", error, self._hooks.classify) from error
        return checked("classify", failure, self._hooks.classify)

    def _not_json(self, url: URL, headers: Mapping[str, str], raw: bytes, feed: Feed | None) -> Any:
        """Return what can be read of an answer that is no JSON, or the failure; a stream may be asked for."""
        try:
            join, is_asked = self._hooks.answer_of_events, feed is not None
            if join is not None and feed is not None and callable(feed.wire):
                return join(list(feed.wire().add(raw)))
            if join is not None and looks_like_events(raw):
                return join(json_of_events(raw))
            with suppress(ValueError):
                return loads(raw)
            if join is not None:
                return join(json_of_lines(raw))
            return not_json(url, headers, raw, is_first=not self._has_answered, is_asked=is_asked)
        except ValueError:
            return not_json(url, headers, raw, is_first=not self._has_answered, is_asked=is_asked)
        except GenerationError as error:  # a stream that broke off
            retried = error.kind in ("connection", "server")
            return Failure(error.kind, error.message, hint=error.hint, retried=retried, unclear=True)
        except Exception as error:
            raise broken_hook("answer_of_events", error, join) from error
