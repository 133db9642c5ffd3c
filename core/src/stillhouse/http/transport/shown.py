"""`Exchanges`: requests and their answers, shown to a person who asked for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from yarl import URL

from stillhouse._execution import messages
from stillhouse._settings.redaction import MASK
from stillhouse.http.transport.bodies import clean

__all__ = ["Exchanges"]


class Exchanges:
    """Numbers the requests, so that each answer is seen to belong to one.

    Headers are not shown, and of a query the names alone: both hold keys.

    Args:
        redact: masks the secrets in a text.
    """

    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact
        self._count = 0

    def request(self, method: str, url: URL, body: Any) -> str:
        """Show a request; return its number."""
        self._count += 1
        query = "&".join(f"{name}={MASK}" for name in url.query)
        place = clean(f"{url.scheme}://{url.host}:{url.port}{url.path}{f'?{query}' if query else ''}", 500)
        said = body if isinstance(body, bytes) else b"" if body is None else b"(a file)"
        messages.show(f"#{self._count} > {method} {self._redact(place)}", said, self._redact)
        return f"#{self._count}"

    def answer(self, number: str, status: int, body: bytes) -> None:
        """Show what a request was answered with."""
        messages.show(f"{number} < {status}", body, self._redact)

    def failure(self, number: str, message: str) -> None:
        """Show why a request got no answer."""
        messages.show(f"{number} < no answer:", message, self._redact)
