"""What a backend makes an output of. Nothing in an answer is taken to be of the right type."""

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
    """Return a provider's word for why a generation ended in the words of the contract.

    Args:
        word: the provider's word; what is no word is `None`.
        table: the contract's word for each of the provider's, which are in lower case. Any other word is
            kept, in lower case.
    """
    if not isinstance(word, str) or not word:
        return None
    lower = word.lower()
    return table.get(lower, lower)


def total_of(first: Any, *others: Any) -> int | None:
    """Return the sum of counts: unknown if the first is, while others that are unknown count nothing."""
    total = count_of(first)
    return None if total is None else total + sum(count_of(count) or 0 for count in others)


def statistics_of(**counts: Any) -> dict[str, list[Any]]:
    """Return the statistics of a request: those of the counts that are known, by their names."""
    return {
        name: [known]
        for name, count in counts.items()
        if count is not None and (known := count_of(count)) is not None
    }


def counted(statistics: dict[str, list[Any]]) -> list[GenerateOutput]:
    """Return the `outputs` of the error for an answer that cannot be read: what was counted is paid for.

    Args:
        statistics: as `statistics_of` makes them; none are no output.
    """
    return [{"generations": [], "statistics": statistics}] if statistics else []


def tool_call(id: Any, name: Any, arguments: Any) -> dict[str, Any]:
    """Return a tool call in the form that a chat takes it back in, whichever backend continues the chat.

    Args:
        id: of the call; an id that is no text becomes one.
        name: of the function.
        arguments: JSON as text, or JSON types; none are `{}`.
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
    """Return log probabilities in the form of OpenAI's chats, a list of `{token, logprob, top_logprobs}`.

    Each position has the generated token first, then the likeliest others. One that cannot be read has none;
    what is no list is `None`.
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
    """Return the candidates of one position: the generated token, then the likeliest others.

    Args:
        token: the generated token.
        value: its log probability.
        others: tokens with theirs, most likely first; the generated one may be among them.
    """
    return [
        Logprob(token=name, logprob=number)
        for name, number in ((token, value), *(item for item in others if item[0] != token))
        if isinstance(name, str) and type(number) in (float, int)
    ]
