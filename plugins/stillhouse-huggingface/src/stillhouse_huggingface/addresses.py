"""Addresses: which of its forms an endpoint's was given in, and whose they are."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

__all__ = ["API", "HUB", "ROUTER", "api_of", "is_of_hugging_face", "root_of"]

ROUTER = "https://router.huggingface.co/v1"
"""Where the models of all inference providers are."""

API = "https://api.endpoints.huggingface.cloud/v2"
"""Where the state of an endpoint is."""

HUB = "https://huggingface.co/api"

_OWN_HOSTS = ("huggingface.co", "endpoints.huggingface.cloud")

_CHAT = "/chat/completions"
_BELOW = ("/completions", "/generate", "/models", "/info")


def api_of(address: str) -> str:
    """Return where OpenAI's API is at an address, given with or without `/v1` and a path of the API."""
    parts = urlsplit(address.strip())
    path = parts.path.rstrip("/")
    if path.endswith(_CHAT):  # what stands before it is the API, whatever it is called
        path = path.removesuffix(_CHAT)
    else:
        path = next((path.removesuffix(end) for end in _BELOW if path.endswith(end)), path)
        path = path if path.endswith("/v1") else f"{path.rstrip('/')}/v1"
    return urlunsplit(parts._replace(path=path))


def root_of(api: str) -> str:
    """Return the address of the server whose API is at an address: what TGI's own paths are below."""
    parts = urlsplit(api)
    return urlunsplit(parts._replace(path=parts.path.removesuffix("/v1")))


def is_of_hugging_face(address: str) -> bool:
    """Check for an address of Hugging Face itself, to which a token for it may be sent."""
    try:
        parts = urlsplit(address.strip())
        host = (parts.hostname or "").lower()
    except ValueError:
        return False
    is_own = any(host == own or host.endswith(f".{own}") for own in _OWN_HOSTS)
    return parts.scheme.lower() == "https" and is_own
