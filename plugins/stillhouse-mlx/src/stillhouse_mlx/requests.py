"""What is asked of the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stillhouse.local import Matcher, Sampling, StopTexts

__all__ = ["Request"]


@dataclass(frozen=True)
class Request:
    """One generation that is asked of the engine.

    Attributes:
        prompt: the tokens of the prompt, at least one.
        max_new_tokens: how many tokens to generate at most.
        sampling: how a token is chosen.
        chance: gives a number in [0, 1) when it is called.
        stops: the texts that end the answer.
        matcher: holds the answer to a form.
        words: see `GuideCompiler.words`.
        candidates: how many tokens to report the log-probability of at each position; `None` for none.
    """

    prompt: list[int]
    max_new_tokens: int
    sampling: Sampling
    chance: Callable[[], float]
    stops: StopTexts
    matcher: Matcher | None = None
    words: int = 0
    candidates: int | None = None
