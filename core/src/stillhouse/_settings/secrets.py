"""Secrets in settings: the one table of their names, and how they are masked.

The registry rejects a class that holds such a field as plain text, and `dump` omits such a key.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

__all__ = ["fields_of", "is_secret", "is_secret_header", "is_secret_name", "masked", "without_login"]

_SECRETS = frozenset({
    "authorization",
    "bearer",
    "cookie",
    "credential",
    "passphrase",
    "passwd",
    "password",
    "secret",
})  # fmt: skip
"""A name that ends with one of these words holds a secret."""

_SECRET_KEYS = frozenset({"access", "api", "functions", "private", "secret", "subscription"})
"""The kinds of `…_key` that are secrets. Others are not, such as `public_key` and `cache_key`."""

_SECRET_TOKENS = frozenset({
    "access",
    "ad",
    "api",
    "auth",
    "bearer",
    "hf",
    "id",
    "oauth",
    "private",
    "refresh",
    "security",
    "session",
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


# A name and a password in an address.
_LOGIN = re.compile(r"^([a-z][a-z0-9+.-]*://)[^/?#@\s]*:[^/?#@\s]*@", re.IGNORECASE)

_BEARER = re.compile(r"bearer\s+\S+", re.IGNORECASE)


def without_login(text: str) -> str:
    """Remove the name and the password from an address; return any other text as it is."""
    return _LOGIN.sub(r"\1", text)


def fields_of(value: Any) -> dict[str, Any] | None:
    """The fields of a model or a dataclass by name."""
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None


def is_secret_header(value: Any) -> bool:
    """Whether a value is a pair of a header's name and a secret."""
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and is_secret(*value)


def is_secret(key: str, value: Any) -> bool:
    """Whether a value is a secret in plain text, as its key says or the value itself."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(is_secret(key, item) for item in value)
    if not isinstance(value, (str, bytes)):
        return False
    if isinstance(value, str) and _BEARER.fullmatch(value):
        return True
    return is_secret_name(key)


def masked(key: str, value: Any) -> Any:
    """Return `value` for a repr, with what `dump` would leave out masked."""
    if is_secret(key, value):
        return "**********"
    if is_secret_header(value):
        return (value[0], "**********")
    if type(value) is str:
        return _LOGIN.sub(r"\1**********@", value)
    if isinstance(value, Mapping):
        return {name: masked(str(name), item) for name, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(masked("", item) for item in value)
    fields = None if getattr(type(value), "_masks_itself", False) else fields_of(value)
    if fields is not None:
        shown = ", ".join(f"{name}={masked(name, item)!r}" for name, item in fields.items())
        return _Shown(f"{type(value).__name__}({shown})")
    return value


class _Shown(str):
    """A text that is its own repr."""

    __slots__ = ()
    __repr__ = str.__str__


def is_secret_header_value(name, value):
    return is_secret(name, value)
