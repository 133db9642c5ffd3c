"""A generation that is asked of an engine which leaves the choice of the next token to us."""

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
        prompt: the tokens of the prompt, one at least.
        limit: how many tokens to generate at most, at least 1.
        sampling: how the next token is chosen.
        stops: the texts that end it.
        guide: the form that the answer must have.
        compiler: of the guide, if there is one.
        candidates: how many candidates to give for each position, the generated token among them; `None`
            for no log-probabilities.
        seed: of the input's first generation; `None` for chance.
        number: of the generation of its input.
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
        """Return the generation's own source of chance, from its beginning."""
        return uniforms(self.seed, self.number)

    def matcher(self) -> Matcher | None:
        """Return what holds the answer to its form, from its beginning.

        Raises:
            UnsupportedError: the form cannot be honoured.
        """
        if self.guide is None or self.compiler is None:
            return None
        return self.compiler.matcher(self.guide)


@dataclass(frozen=True)
class SamplingDefaults:
    """What the model's own `generation_config.json` says, for what a call leaves open.

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

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> SamplingDefaults:
        """Return what a `generation_config.json` says. An entry of another type says nothing."""
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

        A model that does not sample by itself takes the most probable token always, unless the call says
        how to sample.

        Args:
            parameters: generation parameters by their names; `None` leaves one to the model.
            tokenizer: of the library `transformers`, for `logit_bias`.
            vocabulary_size: how many tokens there are.

        Raises:
            ConfigurationError: `logit_bias` names a token that there is not.
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
