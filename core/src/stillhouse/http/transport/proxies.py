"""`proxy_for`: the proxy that the environment names for an address."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.request import getproxies, proxy_bypass

if TYPE_CHECKING:
    from yarl import URL

__all__ = ["proxy_for"]


def proxy_for(url: URL) -> str | None:
    """Return the proxy that the environment names for this host, as every tool reads it."""
    host = url.host or ""
    return None if proxy_bypass(host) else getproxies().get(url.scheme)
