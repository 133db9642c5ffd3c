"""Helpers that build an output from an answer. They accept values of any type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from stillhouse.outputs import count_of
from stillhouse.typing import GenerateOutput, Logprob

__all__ = [
    "chat_logprobs",
    "counted",
    "finish_reason",
    "logprobs_of",
    "statistics_of",
    "string_of",
    "tool_call",
    "total_of",
]


def string_of(value: Any) -> str | None:
    """Return a text that is not empty; anything else is `None`."""
    return value if isinstance(value, str) and value else None


def finish_reason(word: Any, table: Mapping[str, str]) -> str | None:
    """Return the finish reason of the contract for a provider's word.

    Args:
        word: the provider's word; any value that is not a text gives `None`.
        table: the contract's word for each of the provider's words, in lower case. Any other word is kept,
            in lower case.
    """
    if not isinstance(word, str) or not word:
        return None
    lower = word.lower()
    return table.get(lower, lower)


def total_of(first: Any, *others: Any) -> int | None:
    """Return the sum of counts; `None` if the first is unknown. Others that are unknown count as 0."""
    total = count_of(first)
    return None if total is None else total + sum(count_of(count) or 0 for count in others)


def statistics_of(**counts: Any) -> dict[str, list[Any]]:
    """Return the statistics of a request from the given counts; unknown counts are left out."""
    return {
        name: [known]
        for name, count in counts.items()
        if count is not None and (known := count_of(count)) is not None
    }


def counted(statistics: dict[str, list[Any]]) -> list[GenerateOutput]:
    """Return the `outputs` of the error for an unreadable answer, so that its usage counts as paid for.

    Args:
        statistics: the result of `statistics_of`; if it is empty, there is no output.
    """
    return [{"generations": [], "statistics": statistics}] if statistics else []


def tool_call(id: Any, name: Any, arguments: Any) -> dict[str, Any]:
    """Return a tool call in OpenAI's format, with which any backend can continue the chat.

    Args:
        id: the id of the call; it is converted to a text.
        name: the name of the function.
        arguments: JSON as text, or JSON types; no arguments are `{}`.
    """
    return {
        "id": id if id is None or isinstance(id, str) else str(id),
        "type": "function",
        "function": {
            "name": name,
            "arguments": arguments
            if isinstance(arguments, str)
            else orjson.dumps({} if arguments is None else arguments).decode(),
        },
    }


def chat_logprobs(positions: Any) -> list[list[Logprob]] | None:
    """Convert log probabilities in the format of OpenAI's chats, a list of `{token, logprob, top_logprobs}`.

    Each position has the generated token first, then the most likely others. An unreadable position has no
    candidates; a value that is not a list gives `None`.
    """
    if not isinstance(positions, list):
        return None
    read: list[list[Logprob]] = []
    for position in positions:
        if not isinstance(position, dict):
            read.append([])
            continue
        top = position.get("top_logprobs")
        listed = [
            (item.get("token"), item.get("logprob"))
            for item in (top if isinstance(top, list) else ())
            if isinstance(item, dict)
        ]
        read.append(logprobs_of(position.get("token"), position.get("logprob"), listed))
    return read


def logprobs_of(token: Any, value: Any, others: list[tuple[Any, Any]]) -> list[Logprob]:
    """Return the candidates of one position: the generated token, then the most likely others.

    Args:
        token: the generated token.
        value: its log probability.
        others: other tokens with their log probabilities, most likely first; the generated token may be one
            of them.
    """
    return [
        Logprob(token=name, logprob=number)
        for name, number in ((token, value), *(item for item in others if item[0] != token))
        if isinstance(name, str) and type(number) in (float, int)
    ]
