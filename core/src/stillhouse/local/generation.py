"""A generation requested from an engine that returns logits, so that Stillhouse chooses the next token."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stillhouse.local.guides import Guide, GuideCompiler, Matcher
from stillhouse.local.sampling import Sampling, bias_of, uniforms
from stillhouse.local.stops import StopTexts

__all__ = ["Generation", "SamplingDefaults"]


@dataclass(frozen=True)
class Generation:
    """One generation of an input.

    Attributes:
        prompt: the tokens of the prompt, at least one.
        limit: maximum number of tokens to generate, at least 1.
        sampling: how the next token is chosen.
        stops: the texts that end the generation.
        guide: the form of the answer.
        compiler: the compiler of the guide, if there is a guide.
        candidates: number of candidates for each position, including the generated token; `None` for no
            log-probabilities.
        seed: the seed of the input's first generation; `None` for a random one.
        number: the number of the generation within its input.
    """

    prompt: Sequence[int]
    limit: int
    sampling: Sampling
    stops: StopTexts
    guide: Guide | None = None
    compiler: GuideCompiler | None = None
    candidates: int | None = None
    seed: int | None = None
    number: int = 0

    def chance(self) -> random.Random:
        """Return the generation's own random numbers, from the beginning."""
        return uniforms(self.seed, self.number)

    def matcher(self) -> Matcher | None:
        """Return a matcher that enforces the form of the answer, from the beginning.

        Raises:
            UnsupportedError: the form cannot be enforced.
        """
        if self.guide is None or self.compiler is None:
            return None
        return self.compiler.matcher(self.guide)


@dataclass(frozen=True)
class SamplingDefaults:
    """The defaults of a model, from its `generation_config.json`, for parameters that a call leaves out.

    Attributes:
        do_sample: whether the next token is sampled; otherwise the most probable token is taken.
        temperature, top_k, top_p, min_p, repetition_penalty: the model's defaults; `None` if it has none.
        max_new_tokens: the model's maximum number of generated tokens.
    """

    do_sample: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> SamplingDefaults:
        """Read the defaults from a `generation_config.json`. Entries of a wrong type are ignored."""
        numbers: dict[str, Any] = {}
        for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_new_tokens"):
            value = config.get(name)
            whole = name in ("top_k", "max_new_tokens")
            if (
                isinstance(value, int if whole else int | float)
                and not isinstance(value, bool)
                and value >= 0
            ):
                numbers[name] = value
        return cls(do_sample=config.get("do_sample") is True, **numbers)

    def sampling(self, parameters: Mapping[str, Any], tokenizer: Any, vocabulary_size: int) -> Sampling:
        """Return how the next token is chosen.

        A model that does not sample by default always takes the most probable token, unless the call has a
        parameter for sampling.

        Args:
            parameters: generation parameters by name; `None` means the model's default.
            tokenizer: a tokenizer of the library `transformers`, for `logit_bias`.
            vocabulary_size: number of tokens in the vocabulary.

        Raises:
            ConfigurationError: `logit_bias` names a token that does not exist.
        """
        given = {name: value for name, value in parameters.items() if value is not None}
        samples = self.do_sample or bool({"temperature", "top_k", "top_p", "min_p"} & given.keys())

        def value(name: str, otherwise: float) -> Any:
            if name in given:
                return given[name]
            own = getattr(self, name, None) if self.do_sample or name == "repetition_penalty" else None
            return otherwise if own is None else own

        return Sampling(
            temperature=value("temperature", 1.0) if samples else 0.0,
            top_k=value("top_k", 0),
            top_p=value("top_p", 1.0),
            min_p=value("min_p", 0.0),
            frequency_penalty=value("frequency_penalty", 0.0),
            presence_penalty=value("presence_penalty", 0.0),
            repetition_penalty=value("repetition_penalty", 1.0) or 1.0,
            bias=bias_of(given.get("logit_bias"), tokenizer, vocabulary_size),
        )
