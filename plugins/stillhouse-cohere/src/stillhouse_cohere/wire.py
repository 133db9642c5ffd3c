"""From the API's answers to a `GenerateOutput`. Nothing in an answer is taken to be of the right type."""

from __future__ import annotations

from typing import Any

from stillhouse import GenerateOutput, GenerationError, Logprob, prepare_output
from stillhouse.http import counted, finish_reason, logprobs_of, statistics_of, string_of, tool_call
from stillhouse_cohere.failures import FAILED

__all__ = ["chat_output"]

HINT = "check that base_url is the address of Cohere's API"

_FINISH_REASONS = {
    "complete": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_call": "tool_calls",
    "error_limit": "length",
    "error_toxic": "content_filter",
}
"""The API's words, and those of its version 1, in those of the contract; any other word is kept."""


def chat_output(answer: Any) -> GenerateOutput:
    """The output of an answer of `v2/chat`, with one generation.

    Raises:
        GenerationError: the answer has another shape, or is none. Its `outputs` has the tokens that the
            server counted.
    """
    message = answer.get("message") if isinstance(answer, dict) else None
    reason = answer.get("finish_reason") if isinstance(answer, dict) else None
    why = FAILED.get(reason) if isinstance(reason, str) else None
    if why is None and isinstance(message, dict):
        try:
            return _output(answer, message)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            why = f"the answer has another shape than the API's: {type(error).__name__}: {error}"[:500]
    raise GenerationError(
        why or "the answer has no message", kind="server", outputs=_counted(answer), hint=HINT
    )


def _output(answer: dict[str, Any], message: dict[str, Any]) -> GenerateOutput:
    text, thoughts = _contents(message.get("content"))
    reason = finish_reason(answer.get("finish_reason"), _FINISH_REASONS)
    calls = [_call(call) for call in message.get("tool_calls") or ()]
    if text is None and not calls and reason is None:
        raise TypeError("it has neither a text nor a finish reason")
    output = prepare_output([text], finish_reasons=[reason])
    output["statistics"] = _statistics(answer.get("usage"))
    logprobs = answer.get("logprobs")
    if isinstance(logprobs, list):
        output["logprobs"] = [[_position(chunk) for chunk in logprobs]]
    extras = {
        "reasoning": thoughts,
        "tool_calls": calls or None,
        "tool_plan": string_of(message.get("tool_plan")),
        "citations": message.get("citations") or None,
    }
    for key, value in extras.items():
        if value is not None:
            output[key] = [value]  # type: ignore[literal-required]
    return output


def _contents(content: Any) -> tuple[str | None, str | None]:
    """The text and the thoughts of a message."""
    if content is None or isinstance(content, str):
        return content or None, None
    texts: list[str] = []
    thoughts: list[str] = []
    for part in content:
        kind = part.get("type")
        if kind == "text":
            texts.append(part.get("text") or "")
        elif kind == "thinking":
            thoughts.append(part.get("thinking") or "")
    return "".join(texts) or None, "".join(thoughts) or None


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return tool_call(call.get("id"), function.get("name"), function.get("arguments"))


def _position(chunk: Any) -> list[Logprob]:
    """The one candidate of a chunk of text. Of several tokens, it is as likely as all of them together."""
    values = chunk.get("logprobs") if isinstance(chunk, dict) else None
    if not isinstance(values, list) or not values or any(type(item) not in (float, int) for item in values):
        return []
    return logprobs_of(chunk.get("text"), float(sum(values)), [])


def _counted(answer: Any) -> list[GenerateOutput]:
    """An output without a generation: what the server counted is paid for."""
    statistics = _statistics(answer.get("usage")) if isinstance(answer, dict) else {}
    return counted(statistics)


def _statistics(usage: Any) -> dict[str, list[Any]]:
    """The tokens that the model read and wrote, and apart from them those that are billed: they are fewer."""
    if not isinstance(usage, dict):
        return {}
    tokens, billed = usage.get("tokens"), usage.get("billed_units")
    tokens = tokens if isinstance(tokens, dict) else {}
    billed = billed if isinstance(billed, dict) else {}
    return statistics_of(
        input_tokens=tokens.get("input_tokens"),
        output_tokens=tokens.get("output_tokens"),
        cached_tokens=usage.get("cached_tokens"),
        billed_input_tokens=billed.get("input_tokens"),
        billed_output_tokens=billed.get("output_tokens"),
    )
