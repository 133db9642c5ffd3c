"""From the API's answers to a `GenerateOutput`. Nothing in an answer is taken to be of the right type."""

from __future__ import annotations

from typing import Any

import orjson

from stillhouse import GenerateOutput, GenerationError, prepare_output
from stillhouse.outputs import count_of

__all__ = ["message_output"]

HINT = "check that base_url is that of an Anthropic API"

_MAX_SAID = 500
"""How many characters of a server's message are shown."""

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
        GenerationError: the answer has another shape, or is an error in spite of its status. Its
            `outputs` has the tokens that the server counted.
    """
    content = _content(answer)
    try:
        return _output(answer, content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise GenerationError(
            f"the answer has another shape than the API's: {type(error).__name__}: {error}"[:_MAX_SAID],
            kind="server",
            outputs=_counted(answer),
            hint=HINT,
        ) from None


def _output(answer: dict[str, Any], content: list[dict[str, Any]]) -> GenerateOutput:
    stop_reason = _string(answer.get("stop_reason"))
    text = "".join(block.get("text") or "" for block in content if block.get("type") == "text")
    reason = stop_reason and _FINISH_REASONS.get(stop_reason, stop_reason.lower())
    output = prepare_output(
        [None if stop_reason == "refusal" else text or None],
        finish_reasons=[reason],
        stop_reasons=[stop_reason],
    )
    output["statistics"] = _statistics(answer.get("usage"))
    extras: dict[str, Any] = {}
    thinking = [block for block in content if block.get("type") in ("thinking", "redacted_thinking")]
    if thinking:
        extras["reasoning"] = "".join(_string(block.get("thinking")) or "" for block in thinking) or None
    calls = [_tool_call(block) for block in content if block.get("type") == "tool_use"]
    if calls:
        extras["tool_calls"] = calls
        if thinking:  # the API requires them back, signatures and all, before the results of the calls
            extras["thinking_blocks"] = thinking
    extras["stop_sequences"] = _string(answer.get("stop_sequence"))
    if isinstance(answer.get("stop_details"), dict):
        extras["stop_details"] = answer["stop_details"]
    for key, value in extras.items():
        if value is not None:
            output[key] = [value]  # type: ignore[literal-required]
    return output


def said(error: Any) -> str:
    """What an error of a server says, not longer than one wants to read."""
    message = error.get("message") or error if isinstance(error, dict) else error
    text = message if isinstance(message, str) else repr(message)
    return text if len(text) <= _MAX_SAID else f"{text[:_MAX_SAID]} …"


def _content(answer: Any) -> list[dict[str, Any]]:
    if isinstance(answer, dict):
        content = answer.get("content")
        if isinstance(content, list) and all(isinstance(block, dict) for block in content):
            return content
        if answer.get("error"):
            raise GenerationError(
                f"the server answered with an error: {said(answer['error'])}",
                kind="server",
                outputs=_counted(answer),
            )
    raise GenerationError("the answer is not a message", kind="server", outputs=_counted(answer), hint=HINT)


def _counted(answer: Any) -> list[GenerateOutput]:
    """An output without a generation: what the server counted is paid for."""
    statistics = _statistics(answer.get("usage")) if isinstance(answer, dict) else {}
    return [{"generations": [], "statistics": statistics}] if statistics else []


def _statistics(usage: Any) -> dict[str, list[Any]]:
    """The API counts apart what it read from its cache and wrote to it; all of it is input."""
    if not isinstance(usage, dict):
        return {}
    fresh, read = count_of(usage.get("input_tokens")), count_of(usage.get("cache_read_input_tokens"))
    written = count_of(usage.get("cache_creation_input_tokens"))
    details, kinds = usage.get("output_tokens_details"), usage.get("cache_creation")
    counts = {
        "input_tokens": None if fresh is None else fresh + (read or 0) + (written or 0),
        "output_tokens": count_of(usage.get("output_tokens")),
        "cached_tokens": read,
        "cache_creation_tokens": written,
        "cache_creation_1h_tokens": _for_an_hour(kinds) if written else None,
        "reasoning_tokens": count_of(details.get("thinking_tokens")) if isinstance(details, dict) else None,
    }
    return {name: [count] for name, count in counts.items() if count is not None}


def _for_an_hour(kinds: Any) -> int | None:
    """What was written for an hour and not for five minutes, which costs more; nothing is said of none."""
    return (count_of(kinds.get("ephemeral_1h_input_tokens")) or None) if isinstance(kinds, dict) else None


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _tool_call(block: dict[str, Any]) -> dict[str, Any]:
    """A call in the form that a chat takes it back in, whichever backend continues the chat."""
    id, given = block.get("id"), block.get("input")
    return {
        "id": id if id is None or isinstance(id, str) else str(id),
        "type": "function",
        "function": {
            "name": block.get("name"),
            "arguments": given if isinstance(given, str) else orjson.dumps(given or {}).decode(),
        },
    }
