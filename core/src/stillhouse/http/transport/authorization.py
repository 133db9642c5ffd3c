"""`Authorization`: what authorises one attempt, and the check of what goes into a header."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from multidict import CIMultiDict
from yarl import URL

from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.http.transport.exceptions import broken_hook
from stillhouse.http.transport.files import Upload

__all__ = ["Authorization", "authorizing", "check_header", "waits_for_itself"]

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
"""See https://www.rfc-editor.org/rfc/rfc9110#name-tokens."""

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""All control characters but the tab."""

authorizing: ContextVar[Authorization | None] = ContextVar("authorizing", default=None)
"""Whose `authorize` is running: a request through the same LLM would wait for itself."""


@dataclass(frozen=True, slots=True)
class Authorization:
    """What authorises one attempt, besides the headers of the session.

    Attributes:
        authorize: returns headers, for credentials that expire; a coroutine function, or `None`.
        sign: returns headers for a method, an address, the headers and the exact body; or `None`.
    """

    authorize: Callable[[], Awaitable[Mapping[str, str]]] | None = None
    sign: Callable[[str, URL, Mapping[str, str], Any], Mapping[str, str]] | None = None

    async def headers(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | Upload | None
    ) -> dict[str, str]:
        """Return the headers of one attempt.

        Raises:
            GenerationError: the backend's own code failed; it stops the run.
        """
        added: dict[str, str] = {}
        name = "authorize"
        try:
            if self.authorize is not None:
                token = authorizing.set(self)
                try:
                    added |= await self.authorize()
                finally:
                    authorizing.reset(token)
            name = "sign"
            if self.sign is not None:
                merged: CIMultiDict[str] = CIMultiDict(headers)
                merged.update(added)
                added |= self.sign(method, url, merged, b"" if body is None else body)
        except GenerationError:
            raise
        except Exception as error:
            bug = broken_hook(name, error, self.authorize or self.sign)
            bug.kind, bug.attempts, bug.stops_run = "authentication", 0, True
            bug.hint = f"check the credentials; if they are right: {bug.hint}"
            raise bug from error
        return added


def check_header(name: str, value: str) -> None:
    """Reject a header that cannot be sent, without quoting it: it may be a secret."""
    if not isinstance(name, str) or _HEADER.fullmatch(name) is None:
        raise ConfigurationError(
            "the name of a header has characters that no name has, such as a space or a colon",
            hint="write the name and the value apart, as in {'x-name': 'value'}",
        )
    if not isinstance(value, str) or _CONTROL.search(value):
        raise ConfigurationError(
            f"the header {name} has characters that no header has, such as the end of a line",
            hint="copy its value again, without anything else",
        )


def waits_for_itself() -> GenerationError:
    return GenerationError(
        "the backend's authorize makes a request through the LLM, which would call authorize again",
        kind="authentication",
        attempts=0,
        hint="report it to the authors of the backend: authorize must ask with a client of its own",
        stops_run=True,
    )
