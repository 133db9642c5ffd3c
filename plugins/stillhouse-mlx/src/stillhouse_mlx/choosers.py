"""What the choice of a sequence's tokens depends on, and the tokens of a step for all sequences."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from stillhouse.errors import GenerationError
from stillhouse.local import Matcher, Sampling

__all__ = ["Chooser", "Drawn"]


class Drawn:
    """The tokens of a step, taken to this side when somebody wants to know them.

    Args:
        tokens: of each row.
        places: of each row that wants candidates, where it is in the arrays that follow.
        chosen: the log-probability of the token that was drawn, `[rows]`.
        candidates: the most probable tokens, `[rows, candidates]`.
        logprobs: theirs, `[rows, candidates]`.
    """

    def __init__(
        self,
        tokens: Any,
        places: dict[int, int] | None = None,
        chosen: Any = None,
        candidates: Any = None,
        logprobs: Any = None,
    ) -> None:
        self._tokens = tokens
        self._list: list[int] | None = None
        self._places = places or {}
        self._reported = (chosen, candidates, logprobs)
        self._lists: list[list[Any]] | None = None

    @property
    def tokens(self) -> list[int]:
        """The token of each row."""
        if self._list is None:
            self._list = self._tokens.tolist()
        return self._list

    def report(self, row: int, count: int) -> list[tuple[int, float]]:
        """Return the token of a row, then the most probable others, with their log-probabilities.

        Args:
            row: the row.
            count: how many to return, the token among them.
        """
        if self._lists is None:
            self._lists = [array.tolist() for array in self._reported]
        chosen, candidates, logprobs = (one[self._places[row]] for one in self._lists)
        token = self.tokens[row]
        others = sorted(zip(candidates, logprobs, strict=True), key=lambda pair: (-pair[1], pair[0]))
        rest = [pair for pair in others if pair[0] != token]
        return [(token, chosen), *rest[: max(count, 1) - 1]]


class Chooser:
    """What the choice of one sequence's tokens depends on.

    Args:
        prompt: its tokens.
        sampling: the settings.
        chance: gives a number in [0, 1) when it is called.
        matcher: holds the sequence to a form.
        words: how many words the form fills; see `GuideCompiler.words`.
        ends: the tokens that end an answer.
        candidates: how many candidates to report for each token; `None` for none.

    Attributes:
        error: what the form ended with, if it did.
        counts, occurred: how often each token was generated, and whether it is in the prompt or was
            generated; `None` at the beginning.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        chance: Callable[[], float],
        matcher: Matcher | None,
        words: int,
        ends: frozenset[int],
        candidates: int | None,
    ) -> None:
        self.prompt = prompt
        self.sampling = sampling
        self.chance = chance
        self.matcher = matcher
        self.words = words
        self.candidates = candidates
        self.error: GenerationError | None = None
        self.counts: Any = None
        self.occurred: Any = None
        self._ends = ends
        self._drawn: deque[tuple[Drawn, int]] = deque()  # that the generator has not handed out
        self._last: tuple[Drawn, int] | None = None
        self._count = 0  # how many tokens were drawn
        self._accepted = 0
        self._complete: int | None = None

    def drew(self, drawn: Drawn, row: int) -> None:
        """Remember the next token.

        Args:
            drawn: the tokens of the step.
            row: which of them it is.
        """
        self._last = (drawn, row)
        self._drawn.append(self._last)
        self._count += 1

    def report(self) -> list[tuple[int, float]] | None:
        """Return the candidates for the next token that the generator hands out, if they are wanted."""
        drawn, row = self._drawn.popleft()
        return None if self.candidates is None else drawn.report(row, self.candidates)

    def accept(self, token: int, number: int) -> None:
        """Let the form go on by a token of the sequence.

        Args:
            token: the token.
            number: how many there are with it. One that was accepted before is left out.
        """
        if self.matcher is None or number <= self._accepted:
            return
        self._accepted = number
        if token in self._ends:
            self.matcher = None
            return
        try:
            self.matcher.accept(token)
            if self.matcher.is_done:
                self._complete, self.matcher = number, None
        except GenerationError as error:
            self.error, self.matcher = error, None

    def is_complete(self, number: int) -> bool:
        """Whether the form is complete with so many tokens, and nothing may follow."""
        return self._complete is not None and number >= self._complete

    def fill(self, words: Any) -> None:
        """Write which tokens the form allows next; none of them is forbidden where there is no form."""
        if self.matcher is not None and self._last is not None:
            drawn, row = self._last
            self.accept(drawn.tokens[row], self._count)
        if self.matcher is not None:
            try:
                self.matcher.fill(words[: self.words])
                return
            except GenerationError as error:
                self.error, self.matcher = error, None
        words[:] = -1
