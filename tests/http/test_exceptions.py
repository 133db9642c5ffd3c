"""Which failure an exception of an attempt is, and an answer that is no JSON."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import aiohttp
import pytest
import trustme
from yarl import URL

from stillhouse.http.transport.exceptions import failure_of_exception, not_json, too_large
from stillhouse.http.transport.proxies import proxy_for
from stillhouse.offline.failures import Failure

from .raw_server import Talk, serving

KEY = "sk-secret-1234"


async def in_clear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the greeting of an encrypted connection without encryption."""
    await reader.read(100)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await writer.drain()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read, and close the connection without a word."""
    await reader.read(100)


def answering(text: str) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text.encode())
        await writer.drain()

    return talk


def failure(
    url: str, talk: Talk = silent, *, by_proxy: str = "", context: ssl.SSLContext | None = None
) -> Failure:
    """What a request to an address becomes; PORT stands for that of a server that does as `talk` says."""

    async def attempt(port: str) -> Failure:
        target = URL(url.replace("PORT", port))
        place: Any = None
        tunnel: Any = None
        proxy = proxy_for(target, {"HTTPS_PROXY": by_proxy.replace("PORT", port)})
        if proxy is not None:
            place, tunnel, _ = proxy.arguments(encrypted=True)
        headers = {"authorization": f"Bearer {KEY}"}
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(target, headers=headers, proxy=place, proxy_headers=tunnel) as response,
            ):
                await response.read()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return failure_of_exception(error, target, proxy)
        raise AssertionError("it was answered")

    async def served() -> Failure:
        async with serving(talk, context) as port:
            return await attempt(str(port))

    found = asyncio.run(served())
    assert KEY not in repr(found)
    assert "pass-word" not in repr(found)
    return found


def stops(found: Failure) -> tuple[str, bool, bool, bool]:
    return found.kind, found.retried, found.stops_run, found.unclear


def test_certificate_that_does_not_verify_stops_the_run() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    found = failure("https://localhost:PORT/v1", context=context)
    assert stops(found) == ("connection", False, True, False)
    assert "certificate of localhost does not verify" in found.message


def test_encryption_with_a_server_without_it_names_the_address() -> None:
    found = failure("https://127.0.0.1:PORT/v1", in_clear)
    assert stops(found) == ("connection", True, True, False)
    assert "http://" in found.hint


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://no-such-host.invalid/v1"])
def test_host_that_cannot_be_reached_stops_the_run_after_retries(url: str) -> None:
    found = failure(url)
    assert stops(found) == ("connection", True, True, False)
    assert "cannot be reached" in found.message
    assert "base_url" in found.hint


def test_address_that_no_name_server_can_be_asked_for_stops_the_run() -> None:
    for url in ("http://a..b/v1", "http://" + "a" * 70 + ".test/v1", "ftp://h.test/x?key=sk-secret-1234"):
        found = failure(url)
        assert found.stops_run
        assert found.kind in ("connection", "invalid_request")
    error = UnicodeError("label empty or too long")
    assert stops(failure_of_exception(error, URL("http://u:pass-word@h.test/v1?key=1"))) == (
        "invalid_request", False, True, False,
    )  # fmt: skip


def test_address_is_shown_without_login_and_query() -> None:
    url = URL("http://user:pass-word@h.test/v1?key=sk-secret-1234")
    for error in (
        aiohttp.InvalidURL(url),
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientPayloadError("cut"),
        aiohttp.ContentTypeError(request_info(url), (), status=502, message="x", headers=None),
        TimeoutError(),
        aiohttp.ConnectionTimeoutError(f"Connection timeout to host {url}"),
    ):
        shown = repr(failure_of_exception(error, url))
        assert "pass-word" not in shown
        assert "sk-secret" not in shown


def request_info(url: URL) -> Any:
    return aiohttp.RequestInfo(url, "GET", {"authorization": KEY}, url)  # type: ignore[arg-type]


def test_broken_connection_is_retried() -> None:
    assert stops(failure("http://127.0.0.1:PORT/v1")) == ("connection", True, False, True)


def test_text_of_a_broken_connection_is_printable() -> None:
    error = aiohttp.ClientPayloadError("\x1b[2Jbad\x00" + "x" * 5000)
    message = failure_of_exception(error, URL("http://h.test")).message
    assert message.isprintable()
    assert len(message) < 300


def test_no_connection_in_time_was_not_sent_and_stops_the_run_after_retries() -> None:
    error = aiohttp.ConnectionTimeoutError("Connection timeout to host")
    assert stops(failure_of_exception(error, URL("http://h.test:5/v1"))) == ("connection", True, True, False)
    assert stops(failure_of_exception(TimeoutError(), URL("http://h.test"))) == ("timeout", True, False, True)


@pytest.mark.parametrize("proxy", ["http://user:pass-word@127.0.0.1:1", "http://no-such-host.invalid:8080"])
def test_proxy_that_cannot_be_reached_is_named_with_its_variable(proxy: str) -> None:
    found = failure("https://api.example.com/v1", by_proxy=proxy)
    assert stops(found) == ("connection", True, True, False)
    place = proxy.removeprefix("http://").rpartition("@")[2]
    assert f"the proxy {place}, which HTTPS_PROXY names, cannot be reached" in found.message
    assert "HTTPS_PROXY" in found.hint


@pytest.mark.parametrize(
    ("status", "kind", "retried"),
    [(407, "authentication", False), (403, "connection", False), (502, "connection", True)],
)
def test_answer_of_a_proxy_to_connect_names_it_and_its_variable(
    status: int, kind: str, retried: bool
) -> None:
    found = failure(
        "https://api.example.com/v1",
        answering(f"HTTP/1.1 {status} no\x1b[2J\r\nContent-Length: 0\r\n\r\n"),
        by_proxy="http://user:pass-word@127.0.0.1:PORT",
    )
    assert (found.kind, found.retried, found.stops_run) == (kind, retried, True)
    assert "which HTTPS_PROXY names" in found.message
    assert f"status {status}" in found.message
    assert found.message.isprintable()
    assert "HTTPS_PROXY" in found.hint


def test_failure_behind_a_proxy_is_the_servers() -> None:
    proxy = proxy_for(URL("https://h.test"), {"HTTPS_PROXY": "http://p.test:1"})
    found = failure_of_exception(aiohttp.ServerDisconnectedError(), URL("https://h.test"), proxy)
    assert "h.test" in found.message
    assert "p.test" not in found.message


@pytest.mark.parametrize(
    ("raw", "form", "said", "retried", "stops_run"),
    [
        (b"", "application/json", "empty", True, False),
        (b" \n\n ", "application/json", "empty", True, False),
        (b'{"text": "cut o', "application/json", "ends in the middle", True, False),
        (b'{"x": NaN}', "application/json", "not valid JSON", False, False),
        (b'{"x": 1}}', "", "not valid JSON", False, False),
        (b'{"x": 1} and more', "", "not valid JSON", False, False),
        (b'{"x": [1}\n\0\0', "", "not valid JSON", False, False),
        (b'{"x": 1, ' + b" " * 2**21, "", "ends in the middle", True, False),
        (b"<html></html>", "text/html", "a page", False, True),
        (b'data: {"choices":[]}\n\ndata: [DONE]\n\n', "text/event-stream", "stream of events", False, False),
        (b": OPENROUTER PROCESSING\n\ndata: {}", "", "stream of events", False, False),
        (b"\x82\xa5error", "application/msgpack; x=1", "application/msgpack", False, False),
        (b"fine", "text/plain\x1b[2J", "text/plain", False, False),
        (b"fine", "", "unknown form", False, False),
    ],
)
def test_answer_that_is_no_json_is_asked_for_again_only_if_it_broke(
    raw: bytes, form: str, said: str, retried: bool, stops_run: bool
) -> None:
    headers = {"content-type": form, "x-request-id": "r-1"}
    found = not_json(URL("https://h.test/v1"), headers, raw)
    assert said in found.message
    assert (found.retried, found.stops_run, found.request_id) == (retried, stops_run, "r-1")
    assert retried or found.hint
    assert found.message.isprintable()


def test_answer_that_is_too_large_says_how_large_it_may_be() -> None:
    found = too_large(64 * 2**20, {"request-id": "r-1"})
    assert "more than 64 MiB" in found.message
    assert (found.retried, found.request_id) == (False, "r-1")
    assert "0.25 MiB" in too_large(2**18, {}).message
