"""What is sent to a model and what it answers, for people: `show` gives it to a logger, without secrets.

For a backend on `stillhouse.http` these are the requests and the answers, for every other one the inputs with
their generation parameters, and the outputs. Whoever calls `show` asks `are_shown` first.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from stillhouse.errors import StillhouseError

__all__ = ["are_shown", "as_text", "printable", "show"]

logger = logging.getLogger("stillhouse.messages")
"""Gets each message in a line, at the level DEBUG."""

MAX_CHARACTERS = 2000
"""How much of a message is shown."""


def are_shown(llm: object = None) -> bool:
    """Whether anybody looks at the messages, and an LLM does not show them itself, as the transport does."""
    return logger.isEnabledFor(logging.DEBUG) and not getattr(llm, "_shows_messages", False)


def show(head: str, text: str | bytes, redact: Callable[[str], str]) -> None:
    """Show a message.

    Args:
        head: what it is; it has no secrets.
        text: the message, in any encoding.
        redact: masks the secrets in a text.
    """
    size = len(text)
    # Some more than is shown: a secret that the cut runs through is masked as well.
    part = text[: 2 * MAX_CHARACTERS]
    if isinstance(part, bytes):
        part = part.decode("utf-8", "replace")
    part = printable(" ".join(redact(part).split()))
    if size > MAX_CHARACTERS:
        part = f"{part[:MAX_CHARACTERS]} … ({size:,} {'bytes' if isinstance(text, bytes) else 'characters'})"
    logger.debug("%s %s", head, part)


def printable(text: str, kept: str = "") -> str:
    """Return a text that a terminal only shows: what it would do is replaced, but for what is in `kept`."""
    return "".join(letter if letter.isprintable() or letter in kept else "\ufffd" for letter in text)


def as_text(value: Any) -> str:
    """Return a value, such as an input, an output or an error, as JSON, as far as it can be."""
    if isinstance(value, StillhouseError):
        return f"{getattr(value, 'kind', type(value).__name__)}: {value.message}"
    try:
        return json.dumps(value, ensure_ascii=False, default=repr)
    except (TypeError, ValueError, RecursionError):
        return repr(value)
