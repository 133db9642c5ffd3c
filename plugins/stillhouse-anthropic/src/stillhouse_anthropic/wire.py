"""From the API's answers to a `GenerateOutput`. Nothing in an answer is taken to be of the right type."""

from __future__ import annotations

from typing import Any

from stillhouse import GenerateOutput, GenerationError, prepare_output
from stillhouse.http import counted, finish_reason, statistics_of, string_of, tool_call, total_of
from stillhouse.outputs import count_of

__all__ = ["message_output"]

HINT = "check that base_url is the address of an Anthropic API"

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
    stop_reason = string_of(answer.get("stop_reason"))
    text = "".join(block.get("text") or "" for block in content if block.get("type") == "text")
    output = prepare_output(
        [None if stop_reason == "refusal" else text or None],
        finish_reasons=[finish_reason(stop_reason, _FINISH_REASONS)],
        stop_reasons=[stop_reason],
    )
    output["statistics"] = _statistics(answer.get("usage"))
    extras: dict[str, Any] = {}
    thinking = [block for block in content if block.get("type") in ("thinking", "redacted_thinking")]
    if thinking:
        extras["reasoning"] = "".join(string_of(block.get("thinking")) or "" for block in thinking) or None
    calls = [
        tool_call(block.get("id"), block.get("name"), block.get("input"))
        for block in content
        if block.get("type") == "tool_use"
    ]
    if calls:
        extras["tool_calls"] = calls
        if thinking:  # the API requires them back, signatures and all, before the results of the calls
            extras["thinking_blocks"] = thinking
    extras["stop_sequences"] = string_of(answer.get("stop_sequence"))
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
    return counted(statistics)


def _statistics(usage: Any) -> dict[str, list[Any]]:
    """The API counts apart what it read from its cache and wrote to it; all of it is input."""
    if not isinstance(usage, dict):
        return {}
    read, written = usage.get("cache_read_input_tokens"), usage.get("cache_creation_input_tokens")
    details, kinds = usage.get("output_tokens_details"), usage.get("cache_creation")
    return statistics_of(
        input_tokens=total_of(usage.get("input_tokens"), read, written),
        output_tokens=usage.get("output_tokens"),
        cached_tokens=read,
        cache_creation_tokens=written,
        cache_creation_1h_tokens=_for_an_hour(kinds) if count_of(written) else None,
        reasoning_tokens=details.get("thinking_tokens") if isinstance(details, dict) else None,
    )


def _for_an_hour(kinds: Any) -> int | None:
    """What was written for an hour and not for five minutes, which costs more; nothing is said of none."""
    return (count_of(kinds.get("ephemeral_1h_input_tokens")) or None) if isinstance(kinds, dict) else None
