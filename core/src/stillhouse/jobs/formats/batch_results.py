"""`BatchResults`: rows as the lines of the file of results that an offline batch of OpenAI gives."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from stillhouse.jobs.formats.columns import ResultColumns
from stillhouse.protocols import Row

__all__ = ["BatchResults"]

# What OpenAI calls the ends of an answer; there are no other words for them.
_FINISH_REASONS = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
}


class BatchResults(ResultColumns):
    """What a row is written as in a file of results: an object of its own, without the row's columns.

    The same row has the same line each time. Its column `custom_id` names it, else its number, from 1.
    """

    def __init__(self) -> None:
        super().__init__()

    def check(self, columns: Collection[str]) -> None:
        """No column of the input is in the way."""

    def record(self, row: Row, result: Mapping[str, Any], finished: float = 0.0) -> dict[str, Any]:
        return _line(row, result, finished)


def _line(row: Row, result: Mapping[str, Any], finished: float) -> dict[str, Any]:
    custom_id = row.columns.get("custom_id")
    mark = f"{row.index + 1}-{row.digest & 0xFFFF_FFFF_FFFF_FFFF:016x}"
    error = result["error"]
    return {
        "id": f"batch_req_{mark}",
        "custom_id": str(row.index + 1 if custom_id is None else custom_id),
        "response": None
        if error is not None
        else {"status_code": 200, "request_id": "", "body": _completion(mark, result, finished)},
        "error": error and {"code": error["kind"], "message": error["message"]},
    }


def _completion(mark: str, result: Mapping[str, Any], finished: float) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{mark}",
        "object": "chat.completion",
        "created": int(finished),
        "model": result["model_name"],
        "choices": [_choice(result, place) for place in range(len(result["generations"] or ()))],
        "usage": _usage(result["statistics"] or {}),
    }


def _choice(result: Mapping[str, Any], place: int) -> dict[str, Any]:
    text = _at(result, "generations", place)
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    calls, reasoning = _at(result, "tool_calls", place), _at(result, "reasoning", place)
    if calls:
        message["tool_calls"] = calls
    if reasoning is not None:
        message["reasoning_content"] = reasoning
    reason, logprobs = _at(result, "finish_reasons", place), _at(result, "logprobs", place)
    return {
        "index": place,
        "message": message,
        "logprobs": None if logprobs is None else {"content": list(map(_token, logprobs)), "refusal": None},
        "finish_reason": _FINISH_REASONS.get(reason, "tool_calls" if calls else "stop"),
    }


def _at(result: Mapping[str, Any], name: str, place: int) -> Any:
    entries = result.get(name)
    return entries[place] if isinstance(entries, list) and place < len(entries) else None


def _token(candidates: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a position of a generation, whose first candidate is the token that was taken."""
    found = [
        {"token": item["token"], "logprob": item["logprob"], "bytes": list(item["token"].encode())}
        for item in candidates
    ]
    taken = found[0] if found else {"token": "", "logprob": 0.0, "bytes": None}
    return {**taken, "top_logprobs": found}


def _usage(statistics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the tokens of all generations; `None` where nothing is known of them."""
    counts = {
        name: sum(count for count in statistics[key] if count is not None)
        for name, key in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
        if isinstance(statistics.get(key), list)
    }
    if not counts:
        return None
    prompt, completion = counts.get("prompt_tokens", 0), counts.get("completion_tokens", 0)
    usage: dict[str, Any] = {
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion
    }  # fmt: skip
    for group, name, key in (
        ("prompt_tokens_details", "cached_tokens", "cached_tokens"),
        ("completion_tokens_details", "reasoning_tokens", "reasoning_tokens"),
    ):
        if isinstance(statistics.get(key), list):
            usage[group] = {name: sum(count for count in statistics[key] if count is not None)}
    return usage
