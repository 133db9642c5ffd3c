"""How an engine chooses the next token: the settings of a generation, and its own random numbers."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stillhouse.errors import ConfigurationError
from stillhouse.local.outputs import seed_of

__all__ = ["Sampling", "bias_of", "uniforms"]


# A larger one would be infinite in 32 bits, and two of them no numbers; it outweighs every logit.
MAX_BIAS = 1e30


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. The order is: bias, penalties, temperature, top_k, top_p, min_p.

    Attributes:
        temperature: the sampling temperature; 0 always takes the most probable token.
        top_k: sample from this number of most probable tokens; 0 for all.
        top_p: sample from the most probable tokens with this total probability; 1 for all.
        min_p: sample only from tokens with at least this share of the highest probability.
        frequency_penalty: subtracted from a token's logit for each time it was generated.
        presence_penalty: subtracted from the logit of every token that was generated.
        repetition_penalty: for tokens of the prompt and the answer, divides logits above 0 and multiplies
            logits below 0.
        bias: values to add to logits, by token.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    bias: Mapping[int, float] = field(default_factory=dict)

    @property
    def is_greedy(self) -> bool:
        """Whether the most probable token is always taken."""
        return self.temperature == 0 or self.top_k == 1

    @property
    def is_plain(self) -> bool:
        """Whether the model's logits are used unchanged, without bias and penalties."""
        return (
            not self.bias
            and not self.frequency_penalty
            and not self.presence_penalty
            and self.repetition_penalty == 1
        )


def uniforms(seed: int | None, generation: int = 0) -> random.Random:
    """Return the random numbers of one generation: `.random()` gives a number in [0, 1) for each token.

    With its own random numbers, a generation does not depend on the other generations of a batch. The next
    token is the first one, in an order that the engine chooses, whose cumulative probability exceeds the
    number.

    Args:
        seed: the seed of the input's first generation; `None` for a random one.
        generation: the number of the generation within its input.
    """
    return random.Random(None if seed is None else seed_of(seed, generation))  # noqa: S311


def bias_of(
    logit_bias: Mapping[int | str, float] | None, tokenizer: Any, vocabulary_size: int
) -> dict[int, float]:
    """Convert `logit_bias` to values by token id.

    Args:
        logit_bias: values by token id, or by a text, which means each of its tokens. An id may be a text, as
            in JSON.
        tokenizer: a tokenizer of the library `transformers`.
        vocabulary_size: number of tokens in the vocabulary.

    Raises:
        ConfigurationError: a token does not exist, or a value is not a number.
    """
    bias: dict[int, float] = {}
    for key, value in (logit_bias or {}).items():
        if math.isnan(float(value)):
            raise ConfigurationError(
                f"logit_bias of {key!r} is no number (NaN)",
                hint="give a number, such as -100",
            )
        number = int(key) if isinstance(key, int) or key.lstrip("-").isdecimal() else None
        tokens = tokenizer.encode(key, add_special_tokens=False) if number is None else [number]
        for token in tokens:
            if not 0 <= token < vocabulary_size:
                raise ConfigurationError(
                    f"logit_bias names the token {token}, and the model has {vocabulary_size}",
                    hint="give the number of a token, or its text",
                )
            bias[token] = min(float(value), MAX_BIAS)
    return bias
