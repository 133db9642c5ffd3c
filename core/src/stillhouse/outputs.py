"""Building, merging and checking outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.typing import ChatItem, GenerateOutput, Logprob

__all__ = ["check_output", "compute_tokens", "merge_responses", "prepare_output"]


class Tokenizer(Protocol):
    """Whatever turns a text into a sequence of tokens."""

    def encode(self, text: str) -> Sequence[Any]: ...


def prepare_output(
    generations: Sequence[str | None],
    input_tokens: Sequence[int] | None = None,
    output_tokens: Sequence[int] | None = None,
    logprobs: Sequence[list[list[Logprob]] | None] | None = None,
    **per_generation: Sequence[Any] | None,
) -> GenerateOutput:
    """Build an output from its parts.

    Args:
        generations: the texts, `None` where there is none.
        input_tokens: tokens of the input: one entry per generation, or one for the request.
            `None` or an empty list means unknown and is left out; a zero is kept.
        output_tokens: tokens of the generations, likewise.
        logprobs: per generation, per position, the candidates. Left out when `None` or empty.
        per_generation: further lists with one entry per generation, such as `finish_reasons`;
            left out when `None`.
    """
    statistics: dict[str, list[Any]] = {}
    if input_tokens:
        statistics["input_tokens"] = list(input_tokens)
    if output_tokens:
        statistics["output_tokens"] = list(output_tokens)
    output: dict[str, Any] = {"generations": list(generations), "statistics": statistics}
    if logprobs:
        output["logprobs"] = list(logprobs)
    for key, entries in per_generation.items():
        if entries is not None:
            output[key] = list(entries)
    return cast(GenerateOutput, output)


def merge_responses(responses: Sequence[GenerateOutput], n: int = 1) -> list[GenerateOutput]:
    """Merge consecutive groups of `n` responses into one output each.

    Entry *i* of every list of the merged output belongs to generation *i*: a key that only some
    responses have, and a statistic that a response gives for the whole request rather than for
    each of its generations, is filled up with `None`. Sums over a statistic stay right.

    Args:
        responses: the responses, in order. The last group may be short; `[]` gives `[]`.
        n: how many responses make one output, at least 1.
    """
    if n < 1:
        raise ConfigurationError(f"n is {n}, but a group has at least one response")
    if n == 1:
        return list(responses)
    return [_merge(responses[start : start + n]) for start in range(0, len(responses), n)]


def _merge(group: Sequence[GenerateOutput]) -> GenerateOutput:
    lengths = [len(response["generations"]) for response in group]
    merged: dict[str, Any] = {
        "generations": [text for response in group for text in response["generations"]],
        "statistics": _concatenate([response.get("statistics") or {} for response in group], lengths),
    }
    extras = [
        {key: value for key, value in response.items() if key not in ("generations", "statistics")}
        for response in group
    ]
    merged.update(_concatenate(extras, lengths))
    return cast(GenerateOutput, merged)


def _concatenate(parts: Sequence[dict[str, Any]], lengths: Sequence[int]) -> dict[str, list[Any]]:
    """Concatenate the lists of all parts under each key, each padded to its part's length."""
    keys = dict.fromkeys(key for part in parts for key in part)
    joined: dict[str, list[Any]] = {}
    for key in keys:
        entries = joined[key] = []
        for part, length in zip(parts, lengths, strict=True):
            own = part.get(key) or []
            entries.extend(own)
            entries.extend([None] * (length - len(own)))
    return joined


def merge_results(results: Sequence[Any]) -> Any:
    """Merge the results of several calls for one input into one output.

    If one of them is an error, the first error, whose `outputs` has everything that was finished.
    """
    outputs: list[Any] = []
    first: BaseException | None = None
    for item in results:
        if not isinstance(item, BaseException):
            outputs.append(item)
            continue
        first = first or item
        if isinstance(item, GenerationError):  # it may hold generations, or report what was paid for
            outputs.extend(output for output in item.outputs if output is not None)
    if first is None:
        return merge_responses(results, len(results))[0]
    if isinstance(first, GenerationError):
        first.outputs = list(merge_responses(outputs, len(outputs))) if outputs else []
    return first


def compute_tokens(text_or_messages: str | Iterable[ChatItem], tokenizer: Tokenizer) -> int:
    """Count the tokens of a text, or of the contents of a chat; a chat template is not counted.

    Of a content that is a list of parts, the text parts count.
    """
    if isinstance(text_or_messages, str):
        return len(tokenizer.encode(text_or_messages))
    total = 0
    for message in text_or_messages:
        content = message.get("content")
        if isinstance(content, str):
            total += len(tokenizer.encode(content))
        else:
            total += sum(len(tokenizer.encode(part["text"])) for part in content or () if "text" in part)
    return total


def check_output(output: Any, num_generations: int, llm: str) -> None:
    """Hold a backend to the rule that `num_generations` generations come back.

    Raises:
        GenerationError: the backend `llm` broke the rule.
    """
    try:
        generations = output["generations"]
    except (KeyError, TypeError, IndexError):
        generations = None
    if not isinstance(generations, list):
        raise GenerationError(
            f"{llm} returned {type(output).__name__} instead of an output with a list of generations",
            hint="report it to the authors of the backend",
        )
    if len(generations) != num_generations:
        raise GenerationError(
            f"{llm} returned {len(generations)} generations where {num_generations} were asked for",
            hint="report it to the authors of the backend",
        )
