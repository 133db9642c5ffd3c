"""`proxy_for`: the proxy that the environment names for an address, and what to pass to aiohttp for it.

aiohttp merges the default headers of a session into the headers of the CONNECT request, which the proxy
reads in plain text, so the session of an API must not have any. The headers of the API go with each request:

    session = aiohttp.ClientSession(cookie_jar=…)  # no headers=, no proxy=, no proxy_auth=
    proxy = proxy_for(url)  # once
    place, tunnel, extra = proxy.arguments(encrypted=url.scheme == "https") if proxy else (None, None, {})
    session.request(method, url, headers={**api_headers, **extra}, proxy=place, proxy_headers=tunnel)

For `https` the proxy's login goes with CONNECT alone, which holds nothing else. For `http` there is no
CONNECT, and aiohttp sends `proxy_headers` nowhere: the login is one of the request's headers.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from stillhouse.errors import ConfigurationError

if TYPE_CHECKING:
    from yarl import URL

__all__ = ["Proxy", "proxy_for"]

_VARIABLES = {
    "http": ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"),
    "https": ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
}
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and where it was named.

    Attributes:
        url: its address, without a login.
        variable: the environment variable that names it.
        authorization: the value of `Proxy-Authorization`; empty without a login. It is not shown.
    """

    url: URL
    variable: str
    authorization: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that are for the proxy alone."""
        return {"Proxy-Authorization": self.authorization} if self.authorization else {}

    @property
    def place(self) -> str:
        """The host and the port, for a message."""
        return f"{self.url.host_subcomponent}:{self.url.port}"

    def arguments(self, *, encrypted: bool) -> tuple[URL, dict[str, str] | None, dict[str, str]]:
        """Return aiohttp's `proxy` and `proxy_headers` of a request, and what to add to its headers.

        Args:
            encrypted: whether the request goes to an `https` address, so through a tunnel.
        """
        return (self.url, self.headers or None, {}) if encrypted else (self.url, None, self.headers)


def proxy_for(url: URL, environ: Mapping[str, str] | None = None) -> Proxy | None:
    """Return the proxy that the environment names for this address, as curl reads it; `None` for no proxy.

    A variable in lower case wins over the same one in capitals, an empty one counts as not set, and
    `ALL_PROXY` is for every scheme that has no variable of its own. `HTTP_PROXY` in capitals is ignored where
    a web server set `REQUEST_METHOD`: there, a client sets it with a header `Proxy`. `NO_PROXY` has hosts,
    which include their subdomains, addresses and ranges of addresses, each with a port or without, or `*`.

    Args:
        url: where a request goes.
        environ: the environment; `None` reads that of the process.

    Raises:
        ConfigurationError: the variable names a proxy that cannot be used; nothing was sent.
    """
    environ = os.environ if environ is None else environ
    for variable in _VARIABLES.get(url.scheme, ()):
        value = environ.get(variable, "").strip()
        if value and not (variable == "HTTP_PROXY" and environ.get("REQUEST_METHOD")):
            exceptions = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
            return None if _is_exception(url, exceptions) else _proxy_of(variable, value)
    return None


def _proxy_of(variable: str, value: str) -> Proxy:
    """Return the proxy that a variable names. No message quotes the value, which may hold a login."""
    from yarl import URL  # it takes long to import, and listing backends does not need it

    hint = f"write {variable} as http://HOST:PORT, or add the server's host to NO_PROXY"
    match = _SCHEME.match(value)
    scheme = match.group(1).lower() if match else "http"
    if scheme != "http":
        spoken = "https" if scheme == "https" else "SOCKS" if scheme.startswith("socks") else scheme
        raise ConfigurationError(
            f"the environment variable {variable} names a proxy that speaks {spoken}: only http is supported",
            hint=hint,
        )
    rest = value[match.end() :] if match else value
    login, _, place = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")
    host, port = _host_and_port(place.lower())
    try:
        if not host or (port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)):
            raise ValueError
        url = URL.build(scheme="http", host=host, port=int(port or 80))
    except ValueError:
        raise ConfigurationError(
            f"the environment variable {variable} does not name a proxy: it has no valid host and port",
            hint=hint,
        ) from None
    authorization = ""
    if login:
        user, _, password = login.partition(":")
        pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
        authorization = "Basic " + base64.b64encode(pair).decode("ascii")
    return Proxy(url, variable, authorization)


def _host_and_port(text: str) -> tuple[str, str]:
    """Split `host:port`; a host that is an IPv6 address may be in brackets, and is given without them."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest.removeprefix(":")
    if text.count(":") > 1:  # an IPv6 address
        return text, ""
    host, _, port = text.partition(":")
    return host, port


def _is_exception(url: URL, exceptions: str) -> bool:
    host = (url.host or "").lower().rstrip(".")
    address = _address(host)
    for item in re.split(r"[\s,]+", exceptions.lower()):
        if item == "*":
            return True
        if "/" in item:
            if address is not None and _is_in_range(address, item):
                return True
            continue
        name, port = _host_and_port(item)
        if port and port != str(url.port or _DEFAULT_PORTS.get(url.scheme)):
            continue
        if address is not None:
            if _address(name) == address:
                return True
            continue
        name = name.removeprefix("*").strip(".")
        if name and (host == name or host.endswith("." + name)):
            return True
    return False


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_in_range(address: ipaddress.IPv4Address | ipaddress.IPv6Address, text: str) -> bool:
    try:
        return address in ipaddress.ip_network(text.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return False
