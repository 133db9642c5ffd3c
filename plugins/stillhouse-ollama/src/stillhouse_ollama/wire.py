"""From the API's answers to a `GenerateOutput`. Nothing in an answer is taken to be of the right type."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from stillhouse import GenerateOutput, GenerationError, prepare_output
from stillhouse.http import chat_logprobs, counted, finish_reason, statistics_of, string_of, tool_call

__all__ = ["output_of"]

HINT = "check that base_url is the address of an Ollama server"


def output_of(answer: Any, *, chat: bool) -> GenerateOutput:
    """The output of an answer, with one generation.

    Thoughts are not the answer: where a model did nothing but think, there is no generation.

    Args:
        answer: what the server sent, as JSON types.
        chat: whether it comes from `api/chat` or from `api/generate`.

    Raises:
        GenerationError: the answer has another shape. Its `outputs` has the tokens that the server counted.
    """
    message = answer.get("message") if chat and isinstance(answer, dict) else answer
    text = message.get("content" if chat else "response") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not (text is None or isinstance(text, str)):
        raise GenerationError(
            "the answer has another shape than the API's", kind="server", outputs=_counted(answer), hint=HINT
        )
    reason = finish_reason(answer.get("done_reason"), {})
    calls = _calls(message.get("tool_calls"))
    if calls and reason in (None, "stop"):  # the API says stop for these too
        reason = "tool_calls"
    output = prepare_output([text or None], finish_reasons=[reason])
    output["statistics"] = _statistics(answer)
    thoughts = string_of(message.get("thinking"))
    if thoughts:
        output["reasoning"] = [thoughts]
    if calls:
        output["tool_calls"] = [calls]
    logprobs = chat_logprobs(answer.get("logprobs"))
    if logprobs:
        output["logprobs"] = [logprobs]
    return output


def _statistics(answer: dict[str, Any]) -> dict[str, list[Any]]:
    """The counts that the server gives; it leaves out those that are 0, and some servers others too."""
    return statistics_of(
        input_tokens=answer.get("prompt_eval_count") or None, output_tokens=answer.get("eval_count") or None
    )


def _counted(answer: Any) -> list[GenerateOutput]:
    """An output without a generation: what the server counted was used."""
    statistics = _statistics(answer) if isinstance(answer, dict) else {}
    return counted(statistics)


def _calls(calls: Any) -> list[dict[str, Any]]:
    """The tool calls, with an id for each: older servers give none, and a chat needs them."""
    found = []
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            id = call.get("id") or f"call_{uuid4().hex}"
            found.append(tool_call(id, function.get("name"), function.get("arguments")))
    return found
