"""What the engine says went wrong, as a `GenerationError` of a kind."""

from __future__ import annotations

import re
from typing import Any

from stillhouse.errors import GenerationError
from stillhouse.local import engine_failed, too_long

__all__ = ["failure"]

_VERBOSE = "set verbose to True to see the engine's messages"

# What is said of an input whose hidden states are asked for.
_TOO_LARGE = re.compile(r"input \((?P<tokens>\d+) tokens\) is too large .*batch size: (?P<limit>\d+)")

# What is said of a chat that the template refuses, around the template's own words.
_TEMPLATE_REFUSES = re.compile(
    r"(?s)(?:Jinja|template).*\bError: (?:Jinja Exception: )?(?P<words>[^\n]+)\s*\Z"
)


def failure(error: Any) -> GenerationError:
    """The `GenerationError` for an error of the engine: an exception, or what it answered.

    Args:
        error: an exception that the engine raised, which it does over a request that it cannot
            read, or the value under `error` of an answer.
    """
    if isinstance(error, Exception):
        return _refused(f"{error}")
    if not isinstance(error, dict):
        return engine_failed(error, _VERBOSE)
    message = str(error.get("message", error))
    if error.get("type") == "exceed_context_size_error":
        return too_long(error.get("n_prompt_tokens", "?"), error.get("n_ctx", "?"), "n_ctx")
    if too_large := _TOO_LARGE.search(message):
        return too_long(too_large["tokens"], too_large["limit"], "n_ctx")
    if error.get("type") == "invalid_request_error" or error.get("code") == 400:
        return _refused(message)
    return engine_failed(message, _VERBOSE)


def _refused(message: str) -> GenerationError:
    if refused := _TEMPLATE_REFUSES.search(message):
        return GenerationError(
            f"the model's chat template refuses this chat: {refused['words'].strip()}",
            kind="invalid_request",
            hint="correct the roles and their order, or give another template as chat_template",
        )
    return GenerationError(
        f"the engine refused the request: {message.strip().partition(chr(10))[0]}",
        kind="invalid_request",
        hint="correct the messages or the generation parameters",
    )
