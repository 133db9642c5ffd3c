"""Which proxy the environment names, and that a proxy learns nothing that is the API's."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest
from yarl import URL

from stillhouse import ConfigurationError
from stillhouse.http.transport.proxies import Proxy, proxy_for

from .raw_server import serving

HTTPS = URL("https://api.example.com/v1")
HTTP = URL("http://api.example.com/v1")
LOGIN = "Basic " + base64.b64encode(b"u:p@ss").decode()


def found(url: URL, environ: Mapping[str, str]) -> tuple[str, str, str] | None:
    proxy = proxy_for(url, environ)
    return None if proxy is None else (str(proxy.url), proxy.variable, proxy.authorization)


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        (HTTPS, {}, None),
        (HTTPS, {"HTTPS_PROXY": "http://p:1"}, ("http://p:1", "HTTPS_PROXY", "")),
        (
            HTTPS,
            {"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:2"},
            ("http://b:2", "https_proxy", ""),
        ),
        (HTTPS, {"HTTPS_PROXY": "http://a:1", "https_proxy": ""}, ("http://a:1", "HTTPS_PROXY", "")),
        (HTTPS, {"HTTP_PROXY": "http://p:1"}, None),
        (HTTP, {"HTTPS_PROXY": "http://p:1"}, None),
        (HTTP, {"HTTP_PROXY": "http://p:1"}, ("http://p:1", "HTTP_PROXY", "")),
        (HTTP, {"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, None),
        (HTTP, {"http_proxy": "http://p:1", "REQUEST_METHOD": "GET"}, ("http://p:1", "http_proxy", "")),
        (HTTPS, {"HTTPS_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, ("http://p:1", "HTTPS_PROXY", "")),
        (HTTP, {"ALL_PROXY": "http://p:1"}, ("http://p:1", "ALL_PROXY", "")),
        (HTTPS, {"all_proxy": "p:1"}, ("http://p:1", "all_proxy", "")),
        (HTTPS, {"ALL_PROXY": "http://a:1", "HTTPS_PROXY": "http://b:2"}, ("http://b:2", "HTTPS_PROXY", "")),
        (HTTP, {"HTTP_PROXY": "127.0.0.1:8902"}, ("http://127.0.0.1:8902", "HTTP_PROXY", "")),
        (HTTP, {"HTTP_PROXY": " HTTP://P:1/ "}, ("http://p:1", "HTTP_PROXY", "")),
        (HTTP, {"HTTP_PROXY": "p"}, ("http://p", "HTTP_PROXY", "")),
        (HTTP, {"HTTP_PROXY": "http://[::1]:1"}, ("http://[::1]:1", "HTTP_PROXY", "")),
        (HTTPS, {"HTTPS_PROXY": "http://u:p%40ss@p:1"}, ("http://p:1", "HTTPS_PROXY", LOGIN)),
        (HTTPS, {"HTTPS_PROXY": "u:p@ss@p:1"}, ("http://p:1", "HTTPS_PROXY", LOGIN)),
        (HTTPS, {"HTTPS_PROXY": "http://u@p:1"}, ("http://p:1", "HTTPS_PROXY", "Basic dTo=")),
    ],
)
def test_proxy_is_read_from_the_environment_as_by_curl(
    url: URL, environ: dict[str, str], expected: tuple[str, str, str] | None
) -> None:
    assert found(url, environ) == expected


@pytest.mark.parametrize(
    ("url", "exceptions", "direct"),
    [
        ("https://api.example.com/v1", "*", True),
        ("https://api.example.com/v1", "a.test,*", True),
        ("https://api.example.com/v1", "example.com", True),
        ("https://api.example.com/v1", ".example.com", True),
        ("https://api.example.com/v1", "*.example.com", True),
        ("https://api.example.com/v1", " a.test , API.Example.com. ", True),
        ("https://api.example.com/v1", "a.test api.example.com", True),
        ("https://api.example.com/v1", "api.example.com:443", True),
        ("https://api.example.com/v1", "api.example.com:80", False),
        ("https://api.example.com:8443/v1", "api.example.com:8443", True),
        ("https://notexample.com", "example.com", False),
        ("https://api.example.com.evil.test", "example.com", False),
        ("https://api.example.com/v1", "", False),
        ("https://api.example.com/v1", ".,,:443, /8", False),
        ("http://10.1.2.3:8000", "10.0.0.0/8", True),
        ("http://10.1.2.3:8000", "10.1.2.3", True),
        ("http://10.1.2.3:8000", "10.1.2.3:8000", True),
        ("http://10.1.2.3:8000", "10.1.2.3:80", False),
        ("http://110.1.2.3", "10.1.2.3,0.1.2.3,2.3", False),
        ("http://10.1.2.3", "192.168.0.0/16,nonsense/8,10.0.0.0/99", False),
        ("http://[fd00::1]:8000", "fd00::/8", True),
        ("http://[fd00::1]:8000", "[fd00::1]", True),
        ("http://[fd00::1]:8000", "[fd00::1]:8000", True),
        ("http://[fd00::1]:8000", "[fd00::1]:80", False),
        ("http://[fd00::1]:8000", "fd00:0::1", True),
        ("http://localhost:8000", "localhost,127.0.0.1", True),
    ],
)
def test_no_proxy_excepts_hosts_ports_addresses_and_ranges(url: str, exceptions: str, direct: bool) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        assert (proxy_for(URL(url), {"ALL_PROXY": "http://p:1", name: exceptions}) is None) == direct


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("socks5://user:pass-word@127.0.0.1:8905", "SOCKS"),
        ("socks5h://127.0.0.1:8905", "SOCKS"),
        ("SOCKS4://127.0.0.1", "SOCKS"),
        ("https://user:pass-word@p:1", "https"),
        ("ftp://p:1", "ftp"),
        ("http://", "no valid host and port"),
        ("http://user:pass-word@", "no valid host and port"),
        ("http://user:pass-word@:8080", "no valid host and port"),
        ("http://user:pass-word@p:http", "no valid host and port"),
        ("http://p:0", "no valid host and port"),
        ("http://p:99999", "no valid host and port"),
        ("http://user:pass/word@p:1", "no valid host and port"),
        ("user:pass-word@a b:1", "no valid host and port"),
        (":8080", "no valid host and port"),
    ],
)
@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "ALL_PROXY"])
def test_proxy_that_cannot_be_used_is_refused_by_the_name_of_its_variable(
    variable: str, value: str, said: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        proxy_for(HTTPS, {variable: value})
    assert f"variable {variable} " in caught.value.message
    assert said in caught.value.message
    assert "http://HOST:PORT" in caught.value.hint
    assert "pass" not in str(caught.value)
    assert "user" not in str(caught.value)


def test_excepted_host_needs_no_usable_proxy() -> None:
    assert proxy_for(HTTP, {"http_proxy": "socks5://p:1", "no_proxy": "example.com"}) is None


def test_login_of_a_proxy_is_not_shown() -> None:
    proxy = proxy_for(HTTPS, {"HTTPS_PROXY": "http://u:p%40ss@p:1"})
    assert proxy is not None
    assert "Basic" not in repr(proxy)
    assert "ss@" not in repr(proxy)


async def sent_to_proxy(url: URL, login: str, api: dict[str, str]) -> list[bytes]:
    """What a proxy that refuses everything reads, of a request made as the module says."""
    heads = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(head := await reader.readuntil(b"\r\n\r\n"))
        if head.startswith(b"POST"):
            await reader.readexactly(len(b"{}"))
        writer.write(b"HTTP/1.1 502 no\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with serving(talk) as port:
        proxy = proxy_for(url, {"ALL_PROXY": f"http://{login}127.0.0.1:{port}"})
        assert isinstance(proxy, Proxy)
        place, tunnel, extra = proxy.arguments(encrypted=url.scheme == "https")
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            for _ in range(2):
                with contextlib.suppress(aiohttp.ClientHttpProxyError):
                    sending = session.post(
                        url, data=b"{}", headers={**api, **extra}, proxy=place, proxy_headers=tunnel
                    )
                    async with sending as response:
                        await response.read()
    return heads


def lines(head: bytes, name: str) -> list[str]:
    return [line for line in head.decode().split("\r\n") if line.lower().startswith(name.lower() + ":")]


@pytest.mark.parametrize(
    "api",
    [
        {"authorization": "Bearer sk-secret-1"},
        {"x-api-key": "sk-secret-1", "anthropic-version": "2023-06-01"},
        {"api-key": "sk-secret-1"},
        {"x-goog-api-key": "sk-secret-1", "proxy-connection": "keep-alive"},
    ],
    ids=lambda api: next(iter(api)),
)
@pytest.mark.parametrize(("login", "expected"), [("", []), ("u:p%40ss@", [f"Proxy-Authorization: {LOGIN}"])])
def test_tunnel_request_holds_the_login_of_the_proxy_and_nothing_of_the_api(
    api: dict[str, str], login: str, expected: list[str]
) -> None:
    heads = asyncio.run(sent_to_proxy(HTTPS, login, api))
    assert len(heads) == 2
    for head in heads:
        assert head.startswith(b"CONNECT api.example.com:443 HTTP/1.1\r\n")
        assert b"secret" not in head
        assert not any(lines(head, name) for name in api)
        assert lines(head, "proxy-authorization") == expected


@pytest.mark.parametrize(("login", "expected"), [("", []), ("u:p%40ss@", [f"Proxy-Authorization: {LOGIN}"])])
def test_request_over_plain_http_holds_the_key_once_and_the_login_of_the_proxy(
    login: str, expected: list[str]
) -> None:
    for head in asyncio.run(sent_to_proxy(HTTP, login, {"authorization": "Bearer sk-secret-1"})):
        assert head.startswith(b"POST http://api.example.com/v1 HTTP/1.1\r\n")
        assert head.count(b"sk-secret-1") == 1
        assert lines(head, "proxy-authorization") == expected


def test_default_headers_of_a_session_would_go_to_the_proxy() -> None:
    """Why the recipe has no headers for the session: if aiohttp stops this, the recipe may be simpler."""

    heads: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))

    async def ask() -> None:
        async with serving(talk) as port, aiohttp.ClientSession(headers={"x-api-key": "k"}) as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get(HTTPS, proxy=f"http://127.0.0.1:{port}")

    asyncio.run(ask())
    assert b"x-api-key: k" in heads[0]


def test_unused_arguments() -> None:
    proxy: Any = proxy_for(HTTPS, {"ALL_PROXY": "p:1"})
    assert proxy.arguments(encrypted=True) == (URL("http://p:1"), None, {})
    assert proxy.arguments(encrypted=False) == (URL("http://p:1"), None, {})
    assert proxy.place == "p:1"
