"""One generation in a batch."""

from __future__ import annotations

from collections.abc import Callable

from stillhouse.local import Answer, Generation, Job, Matcher
from stillhouse.typing import GenerateOutput

__all__ = ["Row"]


class Row:
    """A generation in a batch.

    Args:
        job: whose request it is.
        answer: what has come of it, nothing yet.
        matcher: of the form that the answer must have.

    Attributes:
        job: whose request it is.
        request: the request.
        matcher: of the form that the answer must have, or `None`.
        uniform: gives the next number of the generation's own source of chance.
    """

    def __init__(self, job: Job[Generation, GenerateOutput], answer: Answer, matcher: Matcher | None) -> None:
        self.job = job
        self.request = job.request
        self.matcher = matcher
        self.uniform: Callable[[], float] = job.request.chance().random
        self._answer = answer

    def add(self, token: int, candidates: list[tuple[int, float]] | None = None) -> GenerateOutput | None:
        """Go on by a token.

        Args:
            token: the token.
            candidates: with their log-probabilities, the token itself first, if they are wanted.

        Returns:
            The output, if the generation has ended.

        Raises:
            GenerationError: the token is none that the form allows.
        """
        reason = self._answer.add(token, candidates)
        if self.matcher is not None and reason != "stop":
            self.matcher.accept(token)
            if self.matcher.is_done:
                reason = "stop"
        return None if reason is None else self._answer.output(reason)
