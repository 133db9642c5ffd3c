"""What the engine says went wrong, as a `GenerationError` of a kind."""

from __future__ import annotations

import re
from typing import Any

from stillhouse.errors import GenerationError

__all__ = ["failure"]

# What is said of an input whose hidden states are asked for.
_TOO_LARGE = re.compile(r"input \((?P<tokens>\d+) tokens\) is too large .*batch size: (?P<limit>\d+)")


def failure(error: Any) -> GenerationError:
    """The `GenerationError` for an error of the engine: an exception, or what it answered.

    Args:
        error: an exception that the engine raised, which it does over a request that it cannot
            read, or the value under `error` of an answer.
    """
    if isinstance(error, Exception):
        return _refused(f"{error}")
    if not isinstance(error, dict):
        return GenerationError(f"the engine failed: {error}", kind="server")
    message = str(error.get("message", error))
    if error.get("type") == "exceed_context_size_error":
        return _too_long(error.get("n_prompt_tokens"), error.get("n_ctx"))
    if too_large := _TOO_LARGE.search(message):
        return _too_long(too_large["tokens"], too_large["limit"])
    if error.get("type") == "invalid_request_error" or error.get("code") == 400:
        return _refused(message)
    return GenerationError(
        f"the engine failed: {message}",
        kind="server",
        hint="set verbose to True to see the engine's messages",
    )


def _refused(message: str) -> GenerationError:
    return GenerationError(
        f"the engine refused the request: {message.strip().partition(chr(10))[0]}",
        kind="invalid_request",
        hint="correct the messages or the generation parameters",
    )


def _too_long(tokens: Any, limit: Any) -> GenerationError:
    return GenerationError(
        f"the prompt has {tokens} tokens, and the context of a slot has room for {limit}",
        kind="context_length",
        hint="shorten the prompt, or raise n_ctx",
    )
