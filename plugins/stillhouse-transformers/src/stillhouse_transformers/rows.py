"""One generation under way, and the output that it makes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from stillhouse.local import Detokenizer, Job, Matcher, Prompts
from stillhouse.outputs import prepare_output
from stillhouse.typing import GenerateOutput, Logprob
from stillhouse_transformers.requests import Generation

__all__ = ["Row", "TokenTexts"]


class TokenTexts:
    """The texts of single tokens, for log-probabilities.

    Args:
        tokenizer: of the library `transformers`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._texts: dict[int, str] = {}
        # After another token, for some tokenizers take the space off the first one.
        self._before = list(tokenizer.encode("a", add_special_tokens=False))[-1:]
        self._length = len(self._decoded(self._before))

    def __getitem__(self, token: int) -> str:
        """Return the text of a token, a special one's too."""
        text = self._texts.get(token)
        if text is None:
            text = self._texts[token] = self._decoded([*self._before, token])[self._length :]
        return text

    def _decoded(self, tokens: list[int]) -> str:
        return str(
            self._tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )


class Row:
    """A generation in a batch.

    Args:
        job: whose request it is.
        prompts: what makes text of tokens.
        tokenizer: of the library `transformers`.
        texts: the texts of single tokens.
        eos: the tokens that end an answer.
        matcher: of the form that the answer must have.

    Attributes:
        job: whose request it is.
        request: the request.
        matcher: of the form that the answer must have, or `None`.
    """

    def __init__(
        self,
        job: Job[Generation, GenerateOutput],
        prompts: Prompts,
        tokenizer: Any,
        texts: TokenTexts,
        eos: frozenset[int],
        matcher: Matcher | None,
    ) -> None:
        self.job = job
        self.request = request = job.request
        self.matcher = matcher
        self.uniform: Callable[[], float] = request.chance().random
        self._prompts = prompts
        self._texts = texts
        self._eos = eos
        self._tokens: list[int] = []
        self._text = ""
        self._add: Callable[[int], str] | None = None
        if request.stops or request.candidates is not None:
            self._add = Detokenizer(tokenizer).add
        self._starts: list[int] = []  # where in the text each position with log-probabilities begins
        self._logprobs: list[list[Logprob]] = []

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
        tokens = self._tokens
        tokens.append(token)
        if token in self._eos:
            return self._output("stop", tokens[:-1])
        if self._add is not None:
            start = len(self._text)
            piece = self._add(token)
            self._text += piece
            if candidates is not None:
                self._starts.append(start)
                self._logprobs.append(self._position(piece, candidates))
            if self.request.stops and (cut := self.request.stops.cut(self._text, start)) is not None:
                return self._output("stop", None, cut)
        if self.matcher is not None:
            self.matcher.accept(token)
            if self.matcher.is_done:
                return self._output("stop", tokens)
        return self._output("length", tokens) if len(tokens) >= self.request.limit else None

    def _position(self, piece: str, candidates: list[tuple[int, float]]) -> list[Logprob]:
        own, *others = candidates
        texts = self._texts
        position = [Logprob(token=piece, logprob=own[1])] if math.isfinite(own[1]) else []
        position += [
            Logprob(token=texts[token], logprob=logprob)
            for token, logprob in others
            if math.isfinite(logprob)
        ]
        return position

    def _output(self, reason: str, tokens: list[int] | None, cut: int | None = None) -> GenerateOutput:
        text = self._text[:cut] if tokens is None else self._prompts.text_of(tokens)
        logprobs = self._logprobs
        if cut is not None:
            logprobs = logprobs[: sum(start < cut for start in self._starts)]
        return prepare_output(
            [text or None],
            input_tokens=[len(self.request.prompt)],
            output_tokens=[len(self._tokens)],
            logprobs=None if self.request.candidates is None else [logprobs],
            finish_reasons=[reason],
        )
