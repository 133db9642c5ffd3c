"""Secrets in settings: the one table of their names, and how they are masked.

The registry rejects a class that holds such a field as plain text, and `dump` omits such a key. What a
header, a login or the query of an address holds is a secret whatever its name is, unless the name is known.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

__all__ = [
    "are_headers",
    "fields_of",
    "is_secret",
    "is_secret_header",
    "is_secret_header_value",
    "is_secret_name",
    "is_secret_query",
    "masked",
    "without_login",
]

_MASK = "**********"

_SECRETS = frozenset({
    "authorization",
    "bearer",
    "cookie",
    "credential",
    "jwt",
    "passcode",
    "passphrase",
    "passwd",
    "password",
    "pwd",
    "secret",
})  # fmt: skip
"""A name that ends with one of these words holds a secret."""

_SECRET_KEYS = frozenset({
    "access",
    "account",
    "admin",
    "api",
    "auth",
    "client",
    "encryption",
    "functions",
    "license",
    "master",
    "private",
    "secret",
    "service",
    "shared",
    "signing",
    "ssh",
    "storage",
    "subscription",
})  # fmt: skip
"""The kinds of `…_key` that are secrets. Others are not, such as `public_key` and `cache_key`."""

_SECRET_TOKENS = frozenset({
    "access",
    "account",
    "ad",
    "admin",
    "api",
    "app",
    "auth",
    "bearer",
    "bot",
    "client",
    "csrf",
    "deploy",
    "device",
    "gh",
    "github",
    "gitlab",
    "hf",
    "id",
    "identity",
    "jwt",
    "login",
    "oauth",
    "personal",
    "private",
    "project",
    "refresh",
    "sas",
    "security",
    "service",
    "session",
    "team",
    "user",
    "vault",
    "web",
    "xsrf",
})  # fmt: skip
"""The kinds of `…_token` that are secrets. Others are a tokenizer's, such as `eos_token`."""

# A word of snake_case, Header-Case, camelCase or HTTPCase.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

# `accesstoken` as one word; `apikey` also at the end of one.
_IN_ONE_WORD = re.compile(
    rf".*api(key|token)|({'|'.join(sorted(_SECRET_KEYS))})key|({'|'.join(sorted(_SECRET_TOKENS))})token"
)


@functools.lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """Check whether a field, a key or a header of this name holds a secret.

    Words are separated by anything but ASCII letters and digits, or as in camelCase; otherwise, case does not
    matter. A plural counts as its singular, except `tokens`, which are counted rather than kept.
    """
    words = [word.lower() for word in _WORD.findall(name)]
    if words[:1] == ["x"]:  # a header such as X-Token
        del words[0]
    if not words:
        return False
    last, singular = words[-1], words[-1].removesuffix("s")
    kind = words[-2] if len(words) > 1 else ""
    return (
        singular in _SECRETS
        or (singular == "key" and kind in _SECRET_KEYS)
        or (last == "token" and (not kind or kind in _SECRET_TOKENS))
        or _IN_ONE_WORD.fullmatch(singular) is not None
    )


_HARMLESS_HEADERS = frozenset({
    "anthropic-beta", "anthropic-version", "api-version", "cache-control", "connection", "date", "expect",
    "helicone-cache-enabled", "host", "http-referer", "idempotency-key", "keep-alive", "openai-beta",
    "openai-organization", "openai-project", "origin", "pragma", "prefer", "priority", "referer", "te",
    "traceparent", "tracestate", "user-agent", "via", "x-client-name", "x-client-version",
    "x-correlation-id", "x-goog-api-client", "x-goog-user-project", "x-hf-bill-to", "x-ms-client-request-id",
    "x-openrouter-title", "x-request-id", "x-title", "x-wait-for-model", "x-use-cache",
})  # fmt: skip
"""Headers in lower case whose values are shown, beside `accept…` and `content-…`."""

_HARMLESS_QUERIES = frozenset({
    "alt", "api-version", "api_version", "beta", "deployment", "format", "lang", "language", "limit",
    "location", "model", "order", "page", "project", "provider", "region", "stream", "timeout", "v",
    "version",
})  # fmt: skip
"""Names in the query of an address, in lower case, whose values are shown."""

# Keys of a JSON schema: in one, `headers` may be the name of a property.
_SCHEMA_KEYS = frozenset({
    "$ref", "allOf", "anyOf", "const", "description", "enum", "items", "oneOf", "properties", "title", "type",
})  # fmt: skip

# A login in an address. A name alone may be a token with http; elsewhere it is a name.
_LOGIN = re.compile(
    r"^((?:https?|wss?)://(?=[^/?#\s]*@)|[a-z][a-z0-9+.-]*://(?=[^/?#\s]*:[^/?#\s]*@))[^/?#\s]*@",
    re.IGNORECASE,
)
_QUERY = re.compile(r"([a-z][a-z0-9+.-]*)://[^\s?#]*\?([^\s#]+)(?:#\S*)?", re.IGNORECASE)

_BEARER = re.compile(r"bearer\s+\S+", re.IGNORECASE)


def without_login(text: str) -> str:
    """Remove what is secret in an address: its login, and the values of its query with their names.

    The values of known names in a query stay, such as that of `api-version`; any other text is returned as
    it is.
    """
    return _without_query(_LOGIN.sub(r"\1", text), "")


def is_secret_query(name: str) -> bool:
    """Check whether the value of this name in the query of an address is a secret: unless it is known."""
    return name.lower() not in _HARMLESS_QUERIES


def _without_query(text: str, mask: str) -> str:
    """Replace the secrets in the query of an address by a mask, or remove them with their names."""
    match = _QUERY.fullmatch(text) if "?" in text else None
    if match is None:
        return text
    is_web = match.group(1).lower() in ("http", "https", "ws", "wss")
    kept = []
    for part in match.group(2).split("&"):
        name, equals, _ = part.partition("=")
        plain = unquote_plus(name).lower()
        if plain in _HARMLESS_QUERIES or not (is_secret_name(plain[:100]) or is_web):
            kept.append(part)
        elif mask:
            kept.append(f"{name}={mask}" if equals else mask)
    start, end = match.span(2)
    query = "&".join(kept)
    return text[:start] + query + text[end:] if query else text[: start - 1] + text[end:]


def fields_of(value: Any) -> dict[str, Any] | None:
    """The fields of a model or a dataclass by name."""
    if _is_model(value):
        return {name: getattr(value, name) for name in type(value).model_fields}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None


def _is_model(value: Any) -> bool:
    """Check whether a value is a pydantic model; without pydantic, there is none."""
    if not hasattr(type(value), "model_fields"):
        return False
    from pydantic import BaseModel  # here: many modules need the names of secrets, and few of them pydantic

    return isinstance(value, BaseModel)


def are_headers(key: str, value: Any) -> bool:
    """Check whether a mapping or a list of pairs under this key holds headers, as `default_headers` does."""
    if not any(word.lower() in ("header", "headers") for word in _WORD.findall(key[-100:])):
        return False
    return not isinstance(value, Mapping) or _SCHEMA_KEYS.isdisjoint(value)


def is_secret_header_value(name: str, value: Any) -> bool:
    """Check whether a header's value is a secret in plain text: it is, unless the header is a known one.

    Args:
        name: the header's name; case does not matter.
        value: its value.
    """
    if is_secret(name, value):
        return True
    if isinstance(value, (list, tuple)):
        return any(is_secret_header_value(name, item) for item in value)
    if not isinstance(value, (str, bytes, int, float)) or isinstance(value, bool) or not value:
        return False
    lower = name.strip().lower()
    return lower not in _HARMLESS_HEADERS and not lower.startswith(("accept", "content-"))


def is_secret_header(value: Any, key: str = "") -> bool:
    """Check whether a value is a pair of a header's name and a secret; `key` is that of what holds it."""
    if not isinstance(value, tuple) or len(value) != 2 or not isinstance(value[0], str):
        return False
    return is_secret_header_value(*value) if are_headers(key, value) else is_secret(*value)


def is_secret(key: str, value: Any) -> bool:
    """Check whether a value is a secret in plain text, according to its key or to the value itself."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(is_secret(key, item) for item in value)
    if not isinstance(value, (str, bytes)):
        return False
    if isinstance(value, str) and _BEARER.fullmatch(value):
        return True
    return is_secret_name(key)


def masked(key: str, value: Any) -> Any:
    """Return `value` for a repr, with what `dump` would leave out masked; the names are shown."""
    if is_secret(key, value):
        return _MASK
    if is_secret_header(value, key):
        return (value[0], _MASK)
    if type(value) is str:
        return _without_query(_LOGIN.sub(rf"\1{_MASK}@", value), _MASK)
    if isinstance(value, Mapping):
        headers = are_headers(key, value)
        return {
            name: _MASK if headers and is_secret_header_value(str(name), item) else masked(str(name), item)
            for name, item in value.items()
        }
    if type(value) in (list, tuple):
        inner = key if are_headers(key, value) else ""
        return type(value)(masked(inner if isinstance(item, tuple) else "", item) for item in value)
    fields = None if getattr(type(value), "_masks_itself", False) else fields_of(value)
    if fields is not None:
        shown = ", ".join(f"{name}={masked(name, item)!r}" for name, item in fields.items())
        return _Shown(f"{type(value).__name__}({shown})")
    return value


class _Shown(str):
    """A text that is its own repr."""

    __slots__ = ()
    __repr__ = str.__str__
