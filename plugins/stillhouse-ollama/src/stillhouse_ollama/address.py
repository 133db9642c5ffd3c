"""From `OLLAMA_HOST`, or what is given in its place, to an address."""

from __future__ import annotations

__all__ = ["DEFAULT_ADDRESS", "address_of"]

DEFAULT_ADDRESS = "http://127.0.0.1:11434"

_PORTS = {"http": "80", "https": "443"}
_DEFAULT_PORT = "11434"

_ANY_HOST = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104
"""Where a server listens on every address; a client asks it on this machine."""

_ENDINGS = ("/api/chat", "/api/generate", "/api", "/v1")
"""The API's own paths, which some tools want in the address."""


def address_of(given: str) -> str:
    """Return the address of a server, given in any form in which Ollama takes `OLLAMA_HOST`.

    The scheme, the host and the port may each be missing. Without a scheme the port is 11434, else that of
    the scheme. Quotes and spaces around it are left out, as is the path of the API itself.
    """
    text = given.strip().strip("\"'").strip()
    if not text:
        return DEFAULT_ADDRESS
    scheme, sign, rest = text.partition("://")
    if not sign:
        scheme, rest = "http", text
        if rest.rstrip("/") == "ollama.com":
            scheme, sign = "https", "://"
    cut = min((place for place in map(rest.find, "/?#") if place >= 0), default=len(rest))
    login, at, place = rest[:cut].rpartition("@")
    host, port = _host_and_port(place)
    path, query_sign, query = rest[cut:].partition("?")
    path = path.rstrip("/")
    path = next((path.removesuffix(ending) for ending in _ENDINGS if path.endswith(ending)), path)
    port = port if port.strip("0") else _PORTS.get(scheme.lower(), "") if sign else _DEFAULT_PORT
    return f"{scheme}://{login}{at}{host}:{port}{path}{query_sign}{query}"


def _host_and_port(place: str) -> tuple[str, str]:
    if place.startswith("["):
        host, bracket, port = place.partition("]")
        host, port = host + bracket, port.removeprefix(":")
    elif place.count(":") > 1:  # IPv6 without brackets
        host, port = f"[{place}]", ""
    else:
        host, _, port = place.partition(":")
    return _ANY_HOST.get(host, host or "127.0.0.1"), port
