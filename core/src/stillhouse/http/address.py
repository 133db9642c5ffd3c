"""Where an API is: the address that a user gives, and the paths below it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stillhouse.errors import ConfigurationError

if TYPE_CHECKING:
    from yarl import URL

__all__ = ["base_url_of", "url_below"]

# Everything that may not stand in a path as it is; an escape that is one stays.
_UNSAFE = re.compile(r"[^A-Za-z0-9\-._~!$&'()*+,;=:@/%]+|%(?![0-9A-Fa-f]{2})")

_MAX_SHOWN = 200


def base_url_of(given: str, default_path: str, hint: str) -> URL:
    """Return the address of an API; its query is kept, and is sent with every request.

    Args:
        given: as a user wrote it.
        default_path: the path of an address without one.
        hint: how to set it.

    Raises:
        ConfigurationError: it is not an address; the message does not quote a login or a query.
    """
    from yarl import URL

    text = given.strip()
    try:
        url = URL(text)
        usable = url.scheme in ("http", "https") and bool(url.host) and url.port is not None
        usable = usable and not re.search(r"[\s\x00-\x1f\x7f]", url.host or "")
        parts = urlsplit(text)
        path = _quoted(parts.path).rstrip("/")
        if not path and default_path:
            path = f"/{default_path}"
        url = _built(url, path or "/", _quoted(parts.query, keep="?"))
    except ValueError:
        usable = False
    if not usable:
        # Where an @ is, there is no telling where the login ends: a password may have any character in it.
        shown = "" if "@" in text else f" {re.split('[?#]', text, maxsplit=1)[0][:_MAX_SHOWN]!r}"
        raise ConfigurationError(
            f"the base_url{shown} is not an address", hint=f"write it as https://host/v1; {hint}"
        )
    return url


def url_below(base_url: URL, path: str) -> URL:
    """Return the address of a path below another, with its query.

    What is percent-encoded in the path stays so, and what must be is: the address is signed, and sent,
    as it is.

    Raises:
        ConfigurationError: the path leads out of the address.
    """
    if any(part in (".", "..") for part in path.replace("%2e", ".").replace("%2E", ".").split("/")):
        raise ConfigurationError(f"the path {path!r} leads out of the API", hint="write it without dots")
    below = f"{base_url.raw_path.rstrip('/')}/{_quoted(path.lstrip('/'))}"
    return _built(base_url, below, base_url.raw_query_string)


def _built(url: URL, path: str, query: str) -> URL:
    """Return the address of the same host with this path and query, which are sent as they are."""
    return type(url).build(
        scheme=url.scheme, authority=url.raw_authority, path=path, query_string=query, encoded=True
    )


def _quoted(text: str, keep: str = "") -> str:
    def escaped(found: re.Match[str]) -> str:
        return "".join(char if char in keep else _escape(char) for char in found[0])

    return _UNSAFE.sub(escaped, text)


def _escape(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "replace"))
