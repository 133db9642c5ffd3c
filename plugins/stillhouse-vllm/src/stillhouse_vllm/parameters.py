"""From generation parameters to what the engine takes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from stillhouse import ConfigurationError, GenerationError
from stillhouse.local import Guide, bias_of, seed_of
from stillhouse_vllm.engine import Engine
from stillhouse_vllm.library import library, words_of

__all__ = ["candidates_of", "guide_problem", "sampling_params"]

_NAMES = {"max_new_tokens": "max_tokens", "num_generations": "n"}

# Below this temperature the engine takes the most probable token always.
_NO_CHANCE = 1e-5

# What the backend itself decides, by the field or argument to use instead.
_RESERVED = {
    "detokenize": "the default",
    "logprobs": "top_logprobs",
    "n": "num_generations",
    "output_kind": "iter_outputs",
    "prompt_logprobs": "logprobs",
    "skip_clone": "the default",
    "structured_outputs": "structured_output",
}


def candidates_of(engine: Engine, logprobs: bool | None, top_logprobs: int | None) -> int | None:
    """How many candidates of each position are wanted; `None` for no log-probabilities.

    Raises:
        GenerationError: more than the engine gives.
    """
    if not (logprobs or (logprobs is None and top_logprobs is not None)):
        return None
    candidates = top_logprobs or 0
    if candidates > engine.max_logprobs >= 0:
        raise GenerationError(
            f"top_logprobs is {candidates}, but the engine returns at most {engine.max_logprobs}",
            kind="invalid_request",
            hint='lower it, or set engine_args to {"max_logprobs": …}',
            stops_run=True,
        )
    return candidates


def sampling_params(
    engine: Engine,
    given: Mapping[str, Any],
    guide: Guide | None,
    extra_body: Mapping[str, Any] | None,
    *,
    streams: bool = False,
) -> list[Any]:
    """The `SamplingParams` of a call: one for each request that it takes.

    The generations of an input are one request, except without chance, which the engine gives one of.

    Args:
        engine: whose defaults hold where nothing is given.
        given: generation parameters by their names here, `None` for those that are not given.
        guide: the form of the answer.
        extra_body: further fields, which win.
        streams: whether the engine answers in parts, as they come.

    Raises:
        ConfigurationError: `extra_body` has a field that something else decides, or `logit_bias` has a
            token that there is not.
        GenerationError: the engine refuses a value.
    """
    for name in extra_body or ():
        if name in _RESERVED:
            raise ConfigurationError(f"extra_body may not set {name!r}", hint=f"use {_RESERVED[name]}")
    fields: dict[str, Any] = {"max_tokens": None, **engine.defaults}
    fields.update((_NAMES.get(name, name), value) for name, value in given.items() if value is not None)
    if "stop" in fields:
        stops = fields["stop"]
        fields["stop"] = [stop for stop in ([stops] if isinstance(stops, str) else stops) if stop]
    if "seed" in fields:
        # The engine gives the next generation the next seed.
        fields["seed"] = seed_of(fields["seed"], 0)
    if "logit_bias" in fields:
        fields["logit_bias"] = bias_of(fields["logit_bias"], engine.tokenizer, engine.vocabulary_size)
    if guide is not None:
        fields["structured_outputs"] = engine.library.structure(grammar=guide.grammar)
    fields.update(extra_body or {})
    requests = 1
    if fields["n"] > 1 and fields.get("temperature", 1) < _NO_CHANCE:
        requests, fields["n"] = fields["n"], 1
    try:
        # They are their request's alone, so that the engine need not copy them.
        kind = engine.library.deltas if streams else engine.library.final
        make = functools.partial(engine.library.sampling, output_kind=kind, skip_clone=True)
        return [make(**fields) for _ in range(requests)]
    except Exception as error:
        raise GenerationError(
            f"the engine refuses the generation parameters: {words_of(error)}",
            kind="invalid_request",
            attempts=0,
            hint="correct the generation parameters",
            stops_run=True,
        ) from error


@functools.lru_cache(maxsize=256)
def guide_problem(grammar: str) -> str:
    """Why the engine's guides do not take a grammar; empty if they do."""
    return str(library().guides.LLMatcher.validate_grammar(grammar, None)).strip().partition("\n")[0][:300]
