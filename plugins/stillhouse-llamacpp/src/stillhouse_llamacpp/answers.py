"""From what the engine answers to a `GenerateOutput`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stillhouse.outputs import prepare_output
from stillhouse.typing import GenerateOutput, Logprob

__all__ = ["read_answer", "text_of"]


def read_answer(pieces: Iterable[dict[str, Any]], candidates: int | None) -> GenerateOutput:
    """The output, with one generation, that the pieces of an answer make.

    Args:
        pieces: the pieces of a stream, or a whole answer as the only one.
        candidates: how many candidates of each position beside the generated token are wanted;
            `None` for no log-probabilities.
    """
    text: list[str] = []
    reasoning: list[str] = []
    positions: list[dict[str, Any]] = []
    finish_reason: str | None = None
    usage: dict[str, Any] = {}
    for piece in pieces:
        for choice in piece["choices"]:
            part = _part_of(choice)
            text.append(_text_in(part))
            reasoning.append(part.get("reasoning_content") or "")
            if choice.get("logprobs"):
                positions.extend(choice["logprobs"].get("content") or ())
            finish_reason = choice["finish_reason"] or finish_reason
        usage = piece.get("usage") or usage
    output = prepare_output(
        ["".join(text) or None],
        input_tokens=[usage["prompt_tokens"]] if "prompt_tokens" in usage else None,
        output_tokens=[usage["completion_tokens"]] if "completion_tokens" in usage else None,
        logprobs=None if candidates is None else [_logprobs(positions, candidates)],
        finish_reasons=[finish_reason],
        reasoning=["".join(reasoning)] if any(reasoning) else None,
    )
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    if cached is not None:
        output["statistics"]["cached_tokens"] = [cached]
    return output


def text_of(piece: Any) -> str:
    """Return the text that a piece of a stream adds to the answer; a piece of another shape adds none."""
    choices = piece.get("choices") if isinstance(piece, dict) else None
    return "".join(_text_in(_part_of(choice)) for choice in choices or ())


def _part_of(choice: dict[str, Any]) -> dict[str, Any]:
    part: dict[str, Any] = choice.get("delta") or choice.get("message") or choice
    return part


def _text_in(part: dict[str, Any]) -> str:
    return part.get("content") or part.get("text") or ""


def _logprobs(positions: list[dict[str, Any]], candidates: int) -> list[list[Logprob]]:
    # The token that ends an answer has no text, and one of the two routes leaves it out already.
    if positions and not positions[-1]["token"] and not positions[-1].get("bytes"):
        positions = positions[:-1]
    return [_position(position, candidates) for position in positions]


def _position(position: dict[str, Any], candidates: int) -> list[Logprob]:
    """The generated token, then the most probable others."""
    own = position.get("id")
    listed = position.get("top_logprobs") or ()
    token = next((item["token"] for item in listed if item.get("id") == own), position["token"])
    others = [item for item in listed if item.get("id") != own][: max(candidates - 1, 0)]
    return [
        Logprob(token=item["token"], logprob=item["logprob"])
        for item in ({"token": token, "logprob": position["logprob"]}, *others)
    ]
