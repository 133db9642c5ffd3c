"""From the API's answers to a `GenerateOutput`."""

from __future__ import annotations

from typing import Any

import orjson

from stillhouse import GenerateOutput, GenerationError, prepare_output

__all__ = ["limited_tokens", "message_output"]

_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""The API's words in those that the other backends use; any other word is kept."""


def message_output(answer: Any) -> GenerateOutput:
    """The output of an answer of `messages`, with one generation.

    A refusal has no generation: the API says that what it wrote until then is to be thrown away.

    Raises:
        GenerationError: the answer has another shape, or is an error in spite of its status.
    """
    content = _content(answer)
    stop_reason = answer.get("stop_reason")
    text = "".join(block.get("text") or "" for block in content if block.get("type") == "text")
    output = prepare_output(
        [None if stop_reason == "refusal" else text or None],
        finish_reasons=[_FINISH_REASONS.get(stop_reason, stop_reason)],
        stop_reasons=[stop_reason],
    )
    output["statistics"] = _statistics(answer.get("usage"))
    extras: dict[str, Any] = {}
    thinking = [block for block in content if block.get("type") in ("thinking", "redacted_thinking")]
    if thinking:
        extras["reasoning"] = "".join(block.get("thinking") or "" for block in thinking) or None
    calls = [_tool_call(block) for block in content if block.get("type") == "tool_use"]
    if calls:
        extras["tool_calls"] = calls
        if thinking:  # the API requires them back, signatures and all, before the results of the calls
            extras["thinking_blocks"] = thinking
    if answer.get("stop_sequence"):
        extras["stop_sequences"] = answer["stop_sequence"]
    if isinstance(answer.get("stop_details"), dict):
        extras["stop_details"] = answer["stop_details"]
    for key, value in extras.items():
        if value is not None:
            output[key] = [value]  # type: ignore[literal-required]
    return output


def limited_tokens(answer: Any) -> int | None:
    """The tokens of an answer that count towards the quotas: what was read from the cache does not."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    if not isinstance(usage, dict):
        return None
    names = ("input_tokens", "cache_creation_input_tokens", "output_tokens")
    return sum(usage.get(name) or 0 for name in names)


def _content(answer: Any) -> list[dict[str, Any]]:
    if isinstance(answer, dict):
        content = answer.get("content")
        if isinstance(content, list) and all(isinstance(block, dict) for block in content):
            return content
        error = answer.get("error")
        if error:
            message = error.get("message") if isinstance(error, dict) else error
            raise GenerationError(f"the server answered with an error: {message}", kind="server")
    raise GenerationError(
        "the answer is not a message", kind="server", hint="check that base_url is that of an Anthropic API"
    )


def _statistics(usage: Any) -> dict[str, list[Any]]:
    """The API counts apart what it read from its cache and wrote to it; all of it is input."""
    if not isinstance(usage, dict):
        return {}
    fresh, read = usage.get("input_tokens"), usage.get("cache_read_input_tokens")
    written = usage.get("cache_creation_input_tokens")
    counts = {
        "input_tokens": None if fresh is None else fresh + (read or 0) + (written or 0),
        "output_tokens": usage.get("output_tokens"),
        "cached_tokens": read,
        "cache_creation_tokens": written,
        "reasoning_tokens": (usage.get("output_tokens_details") or {}).get("thinking_tokens"),
    }
    return {name: [count] for name, count in counts.items() if count is not None}


def _tool_call(block: dict[str, Any]) -> dict[str, Any]:
    """A call in the form that a chat takes it back in, whichever backend continues the chat."""
    arguments = orjson.dumps(block.get("input") or {}).decode()
    return {
        "id": block.get("id"),
        "type": "function",
        "function": {"name": block.get("name"), "arguments": arguments},
    }
