"""One generation under way: its answer so far, and what the choice of its next token depends on."""

from __future__ import annotations

from stillhouse.local import Answer, Generation
from stillhouse.typing import GenerateOutput
from stillhouse_mlx.choosers import Chooser

__all__ = ["Growing"]


class Growing:
    """A generation that is under way.

    Args:
        request: what is asked.
        answer: what has come of it, nothing yet.
        ends: the tokens that end an answer.

    Raises:
        UnsupportedError: the form cannot be honoured.
    """

    def __init__(self, request: Generation, answer: Answer, ends: frozenset[int]) -> None:
        self._answer = answer
        self.chooser = Chooser(
            request.prompt,
            request.sampling,
            request.chance().random,
            request.matcher(),
            0 if request.compiler is None else request.compiler.words,
            ends,
            request.candidates,
        )

    def add(self, token: int) -> str | None:
        """Take the next token, and say why the generation ends with it, or `None`."""
        reason = self._answer.add(token, self.chooser.report())
        if reason == "stop":
            return reason
        count = len(self._answer.tokens)
        self.chooser.accept(token, count)
        return "stop" if self.chooser.is_complete(count) else reason

    def output(self, reason: str) -> GenerateOutput:
        """The output, with one generation.

        How much of its prompt was read again is not said: that depends on what was asked before, and a row
        that is generated again is to be the same.

        Args:
            reason: why it ended.
        """
        return self._answer.output(reason)
