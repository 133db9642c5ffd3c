"""Which names of fields, keys and headers mean that the value is a secret: the one table of them.

The registry rejects a class that holds such a field as plain text, and `dump` omits such a key.
"""

from __future__ import annotations

import functools
import re

__all__ = ["is_secret_name"]

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
