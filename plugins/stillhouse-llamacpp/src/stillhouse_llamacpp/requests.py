"""From generation parameters to the body of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stillhouse.errors import ConfigurationError
from stillhouse_llamacpp.server import Route

__all__ = ["request_body"]

_NAMES = {"max_new_tokens": "max_tokens", "repetition_penalty": "repeat_penalty"}

# What the backend itself decides, by the field or argument to use instead.
_RESERVED = {
    "grammar": "structured_output",
    "json_schema": "structured_output",
    "messages": "the input",
    "n": "num_generations",
    "prompt": "the input",
    "response_format": "structured_output",
    "stream": "iter_outputs",
    "stream_options": "iter_outputs",
    "tools": "a backend with the capability tools",
}


def request_body(
    route: Route,
    parameters: Mapping[str, Any],
    logprobs: bool | None,
    top_logprobs: int | None,
    extra_body: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The body of a request, without its prompt, grammar and seed.

    Args:
        route: the engine's route, which have different names for log-probabilities.
        parameters: generation parameters by their names here; `None` is left out.
        logprobs: whether log-probabilities are wanted.
        top_logprobs: of how many candidates.
        extra_body: further fields, which win.

    Raises:
        ConfigurationError: `extra_body` has a field that something else decides.
    """
    for name in extra_body or ():
        if name in _RESERVED:
            raise ConfigurationError(f"extra_body may not set {name!r}", hint=f"use {_RESERVED[name]}")
    body: dict[str, Any] = {
        _NAMES.get(name, name): value for name, value in parameters.items() if value is not None
    }
    if "logit_bias" in body:
        body["logit_bias"] = {str(token): bias for token, bias in body["logit_bias"].items()}
    if logprobs:
        count = max(top_logprobs or 0, 1)
        body.update({"logprobs": True, "top_logprobs": count} if route == "chat" else {"logprobs": count})
    # A stream can be cancelled, at a token or while the prompt is read; it costs no throughput. But
    # of a chat it leaves out the log-probabilities of what was held back as the possible beginning
    # of a stop sequence.
    if not (logprobs and route == "chat" and body.get("stop")):
        body.update(stream=True, stream_options={"include_usage": True}, return_progress=True)
    body.update(extra_body or {})
    return body
