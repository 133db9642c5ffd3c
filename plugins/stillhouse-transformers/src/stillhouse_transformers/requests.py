"""What is asked of the engine: a generation, or the hidden states of a prompt."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stillhouse.local import Guide, GuideCompiler, Sampling, StopTexts, bias_of, uniforms

__all__ = ["Defaults", "Generation", "States", "sampling_of"]


@dataclass(frozen=True)
class Generation:
    """One generation of an input.

    Attributes:
        prompt: the tokens of the prompt, one at least.
        limit: how many tokens to generate at most, at least 1.
        sampling: how the next token is chosen.
        seed: of the input's first generation; `None` for chance.
        number: of the generation of its input.
        stops: the texts that end it.
        guide: the form that the answer must have.
        compiler: of the guide, if there is one.
        candidates: how many candidates to give for each position, the generated token among them;
            `None` for no log-probabilities.
    """

    prompt: Sequence[int]
    limit: int
    sampling: Sampling
    seed: int | None
    number: int
    stops: StopTexts
    guide: Guide | None
    compiler: GuideCompiler | None
    candidates: int | None

    def chance(self) -> random.Random:
        """Return the generation's own source of chance, from its beginning."""
        return uniforms(self.seed, self.number)


@dataclass(frozen=True)
class States:
    """The last hidden states of a prompt are wanted.

    Attributes:
        prompt: its tokens, one at least.
    """

    prompt: Sequence[int]


@dataclass(frozen=True)
class Defaults:
    """What the model's own `generation_config` says, for what a call leaves open.

    Attributes:
        do_sample: whether the next token is drawn, rather than the most probable one taken.
        temperature, top_k, top_p, min_p, repetition_penalty: as the model has them; `None` where it
            says nothing.
        max_new_tokens: how many tokens it generates at most.
    """

    do_sample: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None


def sampling_of(
    parameters: Mapping[str, Any],
    defaults: Defaults,
    tokenizer: Any,
    vocabulary_size: int,
) -> Sampling:
    """Return how the next token is chosen.

    A model whose `generation_config` does not sample takes the most probable token always, unless the
    call says how to sample.

    Args:
        parameters: generation parameters by their names; `None` leaves one to the model.
        defaults: the model's.
        tokenizer: of the library `transformers`.
        vocabulary_size: how many tokens there are.

    Raises:
        ConfigurationError: `logit_bias` names a token that there is not.
    """
    given = {name: value for name, value in parameters.items() if value is not None}
    samples = defaults.do_sample or bool({"temperature", "top_k", "top_p", "min_p"} & given.keys())

    def value(name: str, otherwise: float) -> Any:
        if name in given:
            return given[name]
        own = getattr(defaults, name, None) if defaults.do_sample or name == "repetition_penalty" else None
        return otherwise if own is None else own

    return Sampling(
        temperature=value("temperature", 1.0) if samples else 0.0,
        top_k=value("top_k", 0),
        top_p=value("top_p", 1.0),
        min_p=value("min_p", 0.0),
        frequency_penalty=value("frequency_penalty", 0.0),
        presence_penalty=value("presence_penalty", 0.0),
        repetition_penalty=value("repetition_penalty", 1.0),
        bias=bias_of(given.get("logit_bias"), tokenizer, vocabulary_size),
    )
