"""An answer of `streamGenerateContent`: its pieces as they come, and the events as one answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stillhouse import GenerationError

__all__ = ["answer_of_events", "piece_of_event"]

_LISTS = ("chosenCandidates", "topCandidates")


def piece_of_event(event: Any) -> str | None:
    """Return the text that an event adds.

    Raises:
        AttributeError, LookupError, TypeError: it adds none.
    """
    parts = event["candidates"][0]["content"]["parts"]
    return "".join(part["text"] for part in parts if "text" in part and not part.get("thought"))


def answer_of_events(events: Sequence[Any]) -> dict[str, Any]:
    """Join the events of a stream into the answer of `generateContent`.

    Each of them is such an answer with a part of the content. An error among them is the answer.

    Raises:
        ValueError: it is a stream of another API.
        GenerationError: the stream ended before its answer did.
    """
    answer: dict[str, Any] = {}
    candidate: dict[str, Any] = {}
    for event in events:
        if not isinstance(event, dict):
            continue
        if event.get("error"):
            return event
        answer |= {name: value for name, value in event.items() if value is not None}
        candidates = event.get("candidates")
        if isinstance(candidates, list) and candidates and isinstance(candidates[0], dict):
            _add(candidate, candidates[0])
    feedback = answer.get("promptFeedback")
    if not candidate and isinstance(feedback, dict) and feedback.get("blockReason"):
        return answer
    if not answer.keys() & {"candidates", "promptFeedback", "usageMetadata"}:
        raise ValueError("no event has candidates")
    if not candidate.get("finishReason"):
        raise GenerationError("the stream ended before its answer did", kind="connection", hint="ask again")
    return {**answer, "candidates": [candidate]}


def _add(whole: dict[str, Any], piece: dict[str, Any]) -> None:
    """Add a piece of a candidate: its parts and log probabilities follow those that came before."""
    for name, value in piece.items():
        lists = {"content": ("parts",), "logprobsResult": _LISTS}.get(name)
        if lists is not None and isinstance(value, dict):
            own = whole.setdefault(name, {key: [] for key in lists})
            for key, item in value.items():
                if key not in lists:
                    own[key] = item
                elif isinstance(item, list):
                    own[key].extend(item)
        elif value is not None:
            whole[name] = value
