"""One generation under way: its answer so far, and what the choice of its next token depends on."""

from __future__ import annotations

from typing import Any

import numpy

from stillhouse.local import Answer, Generation
from stillhouse.typing import GenerateOutput
from stillhouse_mlx.sampling import Chooser

__all__ = ["Growing"]


class Growing:
    """A generation that is under way.

    Args:
        request: what is asked.
        answer: what has come of it, nothing yet.
        ends: the tokens that end an answer.
        cached: how many tokens of the prompt were not read again; `None` if nothing is kept of prompts.

    Raises:
        UnsupportedError: the form cannot be honoured.
    """

    def __init__(self, request: Generation, answer: Answer, ends: frozenset[int], cached: int | None) -> None:
        self._candidates = request.candidates
        self._answer = answer
        self._cached = cached
        self.chooser = Chooser(
            request.prompt,
            request.sampling,
            request.chance().random,
            request.matcher(),
            0 if request.compiler is None else request.compiler.words,
            ends,
        )

    def add(self, token: int, logprobs: Any) -> str | None:
        """Take the next token, and say why the generation ends with it, or `None`.

        Args:
            token: the token.
            logprobs: the log-probabilities of all tokens at this position.
        """
        report = None if self._candidates is None else self._report(token, numpy.asarray(logprobs))
        reason = self._answer.add(token, report)
        if reason == "stop":
            return reason
        count = len(self._answer.tokens)
        self.chooser.accept(token, count)
        return "stop" if self.chooser.is_complete(count) else reason

    def _report(self, token: int, logprobs: Any) -> list[tuple[int, float]]:
        """The generated token, then the most probable others."""
        count = min(self._candidates or 1, len(logprobs))
        most = numpy.argpartition(logprobs, len(logprobs) - count)[-count:]
        most = most[numpy.lexsort((most, -logprobs[most]))]
        others = [int(other) for other in most if other != token][: count - 1]
        return [(one, float(logprobs[one])) for one in (token, *others)]

    def output(self, reason: str) -> GenerateOutput:
        """The output, with one generation.

        Args:
            reason: why it ended.
        """
        return self._answer.output(reason, self._cached)
