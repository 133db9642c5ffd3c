"""From the API's answers to a `GenerateOutput`. Nothing in an answer is taken to be of the right type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stillhouse import GenerateOutput, GenerationError, prepare_output
from stillhouse.http import counted, finish_reason, statistics_of, string_of, tool_call, total_of

__all__ = ["converse_output"]

_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
"""The API's words in those that the other backends use; any other word is kept."""

_MAX_SAID = 500

_PASSED_ON = {
    "additionalModelResponseFields": "additional_model_response_fields",
    "trace": "trace",
}
"""What an answer may have besides, and what it is called in an output."""


def converse_output(answer: Any) -> GenerateOutput:
    """The output of an answer of `converse`, with one generation.

    What was filtered has no generation. The text that came in its place, a guardrail's or a masked one, is in
    `guardrail_outputs`.

    Raises:
        GenerationError: the answer has no message. Its `outputs` has the tokens that AWS counted.
    """
    message = answer.get("output") if isinstance(answer, dict) else None
    message = message.get("message") if isinstance(message, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    usage = answer.get("usage") if isinstance(answer, dict) else None
    statistics = _statistics(usage if isinstance(usage, dict) else {})
    try:
        if not isinstance(content, list):
            raise TypeError("it has no message")
        return _output(answer, [block for block in content if isinstance(block, dict)], statistics)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise GenerationError(
            f"the answer has another shape than the API's: {type(error).__name__}: {error}"[:_MAX_SAID],
            kind="server",
            outputs=counted(statistics),
            hint="check that base_url is the address of Bedrock's runtime",
        ) from None


def _output(
    answer: dict[str, Any], blocks: list[dict[str, Any]], statistics: dict[str, list[Any]]
) -> GenerateOutput:
    text = "".join(_texts(blocks))
    reason = finish_reason(answer.get("stopReason"), _FINISH_REASONS)
    calls = list(_calls(blocks))
    if calls and reason in (None, "stop"):  # some models end their turn with a call
        reason = "tool_calls"
    is_filtered = reason == "content_filter"
    output = prepare_output(
        [None if is_filtered else text or None],
        finish_reasons=[reason],
        stop_reasons=[string_of(answer.get("stopReason"))],
    )
    output["statistics"] = statistics
    extras: dict[str, Any] = _reasoning(blocks)
    if calls:
        extras["tool_calls"] = calls
    else:
        extras.pop("thinking_blocks", None)  # they are wanted back with the results of calls, and only then
    if is_filtered:
        extras["guardrail_outputs"] = text or None
    extras |= {ours: answer.get(name) or None for name, ours in _PASSED_ON.items()}
    for key, value in extras.items():
        if value is not None:
            output[key] = [value]  # type: ignore[literal-required]
    return output


def _texts(blocks: list[dict[str, Any]]) -> list[str]:
    """The texts of an answer; one with citations has them one block further in."""
    texts = []
    for block in blocks:
        cited = block.get("citationsContent")
        inner = cited.get("content") if isinstance(cited, dict) else None
        parts = inner if isinstance(inner, list) else [block]
        texts += [string_of(part.get("text")) or "" for part in parts if isinstance(part, dict)]
    return texts


def _reasoning(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """The thoughts as a text, and as the blocks that the model wants back, signed or encrypted.

    They are in Anthropic's form, so that its backend can continue the chat.
    """
    thoughts: list[str] = []
    wanted_back: list[dict[str, Any]] = []
    for block in blocks:
        content = block.get("reasoningContent")
        if not isinstance(content, dict):
            continue
        told = content.get("reasoningText")
        if isinstance(told, dict):
            text, signature = string_of(told.get("text")) or "", string_of(told.get("signature"))
            thoughts.append(text)
            if signature:
                wanted_back.append({"type": "thinking", "thinking": text, "signature": signature})
        elif string_of(content.get("redactedContent")):
            wanted_back.append({"type": "redacted_thinking", "data": content["redactedContent"]})
    return {"reasoning": "".join(thoughts) or None, "thinking_blocks": wanted_back or None}


def _calls(blocks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The calls that are to be answered; AWS answers those of its own tools itself."""
    for block in blocks:
        call = block.get("toolUse")
        if isinstance(call, dict) and call.get("type") != "server_tool_use":
            yield tool_call(call.get("toolUseId"), call.get("name"), call.get("input"))


def _statistics(usage: dict[str, Any]) -> dict[str, list[Any]]:
    """AWS counts apart what it read from its cache and wrote to it; all of it is input."""
    read, written = usage.get("cacheReadInputTokens"), usage.get("cacheWriteInputTokens")
    return statistics_of(
        input_tokens=total_of(usage.get("inputTokens"), read, written),
        output_tokens=usage.get("outputTokens"),
        cached_tokens=read,
        cache_creation_tokens=written,
    )
