"""From what the engine answers to a `GenerateOutput`."""

from __future__ import annotations

from typing import Any

from stillhouse import GenerateOutput, prepare_output
from stillhouse.local import Guide, merged
from stillhouse.typing import Logprob

__all__ = ["read_answer"]


def read_answer(
    answer: Any, guide: Guide | None, candidates: int | None, counts_cached: bool = False
) -> GenerateOutput:
    """The output, with all of its generations.

    Args:
        answer: a `RequestOutput` of vLLM, finished.
        guide: the form that each generation must have.
        candidates: how many candidates of each position are wanted, the generated token among them;
            `None` for no log-probabilities.
        counts_cached: whether to say how many tokens of the prompt came from the prefix cache, which
            depends on what was read before.

    Raises:
        GenerationError: a generation lacks the form; `outputs` holds the others.
    """
    generations = answer.outputs
    if guide is not None:
        for generation in generations:
            try:
                guide.check(generation.text, generation.finish_reason)
            except Exception:
                if len(generations) == 1:
                    raise
                return merged(
                    [_checked(answer, item, guide, candidates, counts_cached) for item in generations]
                )
    return _output(answer, generations, candidates, counts_cached)


def _checked(
    answer: Any, generation: Any, guide: Guide, candidates: int | None, counts_cached: bool
) -> GenerateOutput | BaseException:
    try:
        guide.check(generation.text, generation.finish_reason)
    except Exception as error:
        return error
    return _output(answer, [generation], candidates, counts_cached)


def _output(
    answer: Any, generations: list[Any], candidates: int | None, counts_cached: bool
) -> GenerateOutput:
    output = prepare_output(
        [generation.text or None for generation in generations],
        input_tokens=[len(answer.prompt_token_ids)],
        output_tokens=[len(generation.token_ids) for generation in generations],
        logprobs=None
        if candidates is None
        else [_positions(generation, candidates) for generation in generations],
        finish_reasons=[generation.finish_reason for generation in generations],
    )
    cached = getattr(answer, "num_cached_tokens", None)
    if counts_cached and cached is not None:
        output["statistics"]["cached_tokens"] = [cached]
    return output


def _positions(generation: Any, candidates: int) -> list[list[Logprob]]:
    tokens, positions = list(generation.token_ids), generation.logprobs
    # The token that ends an answer has no text.
    if generation.finish_reason == "stop" and not isinstance(generation.stop_reason, str):
        tokens = tokens[:-1]
    return [
        _position(position, token, candidates) for token, position in zip(tokens, positions, strict=False)
    ]


def _position(position: dict[int, Any], token: int, candidates: int) -> list[Logprob]:
    """The generated token, then the most probable others."""
    others = sorted((item for key, item in position.items() if key != token), key=lambda item: -item.logprob)
    return [
        Logprob(token=item.decoded_token or "", logprob=item.logprob)
        for item in (position[token], *others[: max(candidates - 1, 0)])
    ]
