"""From the answers of `generateContent` to a `GenerateOutput`.

Nothing in an answer is taken to be of the right type.
"""

from __future__ import annotations

from typing import Any

from stillhouse import GenerateOutput, GenerationError, prepare_output
from stillhouse.http import counted, finish_reason, logprobs_of, statistics_of, string_of, tool_call, total_of
from stillhouse.outputs import count_of
from stillhouse.typing import Logprob

__all__ = ["content_output"]

_FINISH_REASONS = {
    "max_tokens": "length",
    "function_call": "tool_calls",  # of servers that are like Google's
    **dict.fromkeys(
        (
            "safety", "recitation", "language", "blocklist", "prohibited_content", "spii", "model_armor",
            "image_safety", "image_prohibited_content", "image_recitation", "image_other",
        ),
        "content_filter",
    ),
}  # fmt: skip
"""The API's words in those that the other backends use; any other word is kept."""

_KEPT = {"groundingMetadata": "grounding_metadata", "citationMetadata": "citation_metadata"}
"""What else of a candidate is kept, and as what."""


def content_output(answer: Any) -> GenerateOutput:
    """Return the output of an answer, with a generation for each candidate.

    A prompt that was blocked has no candidate, and one generation that is `None`.

    Raises:
        GenerationError: the answer has neither. Its `outputs` has the tokens that the server counted.
    """
    usage = answer.get("usageMetadata") if isinstance(answer, dict) else None
    statistics = _statistics(usage if isinstance(usage, dict) else {})
    try:
        output = _output(answer)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise GenerationError(
            f"the answer has another shape than the API's: {type(error).__name__}: {error}"[:500],
            kind="server",
            outputs=counted(statistics),
            hint="check that base_url is the address of an API of this kind",
        ) from None
    output["statistics"] = statistics
    return output


def _output(answer: Any) -> GenerateOutput:
    candidates = answer.get("candidates")
    if not candidates:
        feedback = answer.get("promptFeedback")
        reason = string_of(feedback.get("blockReason")) if isinstance(feedback, dict) else None
        if reason is None:
            raise ValueError("it has no candidates, and does not say that the prompt was blocked")
        return prepare_output(
            [None], finish_reasons=["content_filter"], stop_reasons=[reason], stop_details=[feedback]
        )
    if len(candidates) > 1:
        candidates = sorted(candidates, key=lambda candidate: count_of(candidate.get("index")) or 0)
    read = [_candidate(candidate, string_of(answer.get("responseId"))) for candidate in candidates]
    names = dict.fromkeys(name for entries in read for name in entries)
    lists = {name: [entries.get(name) for entries in read] for name in names}
    return prepare_output(lists.pop("generations"), **lists)


def _candidate(candidate: dict[str, Any], response_id: str | None) -> dict[str, Any]:
    """Return what belongs to one generation, under the names of an output."""
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for part in parts or ():
        text = part.get("text")
        if isinstance(text, str):
            (thoughts if part.get("thought") else texts).append(text)
        if isinstance(part.get("functionCall"), dict):
            calls.append(_tool_call(part, f"{response_id or 'call'}-{len(calls)}"))
    word = candidate.get("finishReason")
    reason = finish_reason(word, _FINISH_REASONS)
    if calls and reason == "stop":
        reason = "tool_calls"
    entries: dict[str, Any] = {
        "generations": None if reason == "content_filter" else "".join(texts) or None,
        "finish_reasons": reason,
        "stop_reasons": string_of(word),
    }
    if thoughts:
        entries["reasoning"] = "".join(thoughts)
    if calls:
        entries["tool_calls"] = calls
    if string_of(candidate.get("finishMessage")):
        entries["stop_details"] = {"finishMessage": candidate["finishMessage"]}
    if (logprobs := _logprobs(candidate.get("logprobsResult"))) is not None:
        entries["logprobs"] = logprobs
    for key, name in _KEPT.items():
        if isinstance(candidate.get(key), dict):
            entries[name] = candidate[key]
    return entries


def _tool_call(part: dict[str, Any], id: str) -> dict[str, Any]:
    """Return a call as a chat takes it back, its signature where Google's OpenAI-compatible API has it.

    Older models give no id; chats in OpenAI's form need one to say which call a result is of.
    """
    function = part["functionCall"]
    call = tool_call(function.get("id") or id, function.get("name"), function.get("args"))
    if string_of(part.get("thoughtSignature")):
        call["extra_content"] = {"google": {"thought_signature": part["thoughtSignature"]}}
    return call


def _logprobs(result: Any) -> list[list[Logprob]] | None:
    chosen = result.get("chosenCandidates") if isinstance(result, dict) else None
    if not isinstance(chosen, list):
        return None
    top = result.get("topCandidates")
    tops = top if isinstance(top, list) else []
    positions = []
    for place, item in enumerate(chosen):
        likeliest = tops[place] if place < len(tops) else None
        listed = likeliest.get("candidates") if isinstance(likeliest, dict) else None
        others = [_token(other) for other in listed] if isinstance(listed, list) else []
        positions.append(logprobs_of(*_token(item), others))
    return positions


def _token(item: Any) -> tuple[Any, Any]:
    return (item.get("token"), item.get("logProbability")) if isinstance(item, dict) else (None, None)


def _statistics(usage: dict[str, Any]) -> dict[str, list[int]]:
    """Return what the server counted: the prompt has its cached tokens in it, the answer not its thoughts."""
    made, thoughts = count_of(usage.get("candidatesTokenCount")), count_of(usage.get("thoughtsTokenCount"))
    return statistics_of(
        input_tokens=total_of(usage.get("promptTokenCount"), usage.get("toolUsePromptTokenCount")),
        output_tokens=None if made is None and thoughts is None else (made or 0) + (thoughts or 0),
        cached_tokens=usage.get("cachedContentTokenCount"),
        reasoning_tokens=thoughts,
    )
