"""One generation: what has come of it so far, and the output that it makes."""

from __future__ import annotations

from typing import Any

import numpy

from stillhouse.local import Detokenizer, Prompts
from stillhouse.outputs import prepare_output
from stillhouse.typing import GenerateOutput, Logprob
from stillhouse_mlx.requests import Request
from stillhouse_mlx.sampling import Chooser

__all__ = ["Generation"]


class Generation:
    """A generation that is under way.

    Args:
        request: what is asked.
        prompts: has the tokenizer.
        tokenizer: of mlx-lm.
        cached: how many tokens of the prompt were not read again; `None` if nothing is kept of prompts.
    """

    def __init__(self, request: Request, prompts: Prompts, tokenizer: Any, cached: int | None) -> None:
        self._request = request
        self._prompts = prompts
        self._tokenizer = tokenizer
        self._cached = cached
        self._tokens: list[int] = []
        self._logprobs: list[list[Logprob]] = []
        self._detokenizer = Detokenizer(tokenizer) if request.stops else None
        self._text = ""
        self._starts: list[int] = []  # where the text of each token begins
        self._end: int | None = None  # where a stop text begins
        self.chooser = Chooser(
            request.prompt,
            request.sampling,
            request.chance,
            request.matcher,
            request.words,
            frozenset(tokenizer.eos_token_ids),
        )

    def add(self, token: int, logprobs: Any, finish_reason: str | None) -> str | None:
        """Take the next token, and say why the generation ends with it, or `None`.

        Args:
            token: the token.
            logprobs: the log-probabilities of all tokens at this position.
            finish_reason: why the engine ends it: `stop` at a token that ends an answer, or `length`.
        """
        self._tokens.append(token)
        if finish_reason != "stop":
            if self._request.candidates is not None:
                self._logprobs.append(self._position(token, numpy.asarray(logprobs)))
            if self._detokenizer is not None and self._is_stopped(token):
                return "stop"
        self.chooser.accept(token, len(self._tokens))
        return "stop" if self.chooser.is_complete(len(self._tokens)) else finish_reason

    def _is_stopped(self, token: int) -> bool:
        assert self._detokenizer is not None
        start = len(self._text)
        self._starts.append(start)
        self._text += self._detokenizer.add(token)
        self._end = self._request.stops.cut(self._text, start)
        return self._end is not None

    def _position(self, token: int, logprobs: Any) -> list[Logprob]:
        """The generated token, then the most probable others."""
        count = min(self._request.candidates or 1, len(logprobs))
        most = numpy.argpartition(logprobs, len(logprobs) - count)[-count:]
        most = most[numpy.lexsort((most, -logprobs[most]))]
        others = [int(other) for other in most if other != token][: count - 1]
        return [
            Logprob(token=self._tokenizer.decode([one]), logprob=float(logprobs[one]))
            for one in (token, *others)
        ]

    def output(self, finish_reason: str) -> GenerateOutput:
        """The output, with one generation.

        Args:
            finish_reason: why it ended.
        """
        logprobs = self._logprobs
        if self._end is None:
            text = self._prompts.text_of(self._tokens)
        else:
            text = self._text[: self._end]
            logprobs = [
                position for position, start in zip(logprobs, self._starts, strict=False) if start < self._end
            ]
        output = prepare_output(
            [text or None],
            input_tokens=[len(self._request.prompt)],
            output_tokens=[len(self._tokens)],
            logprobs=None if self._request.candidates is None else [logprobs],
            finish_reasons=[finish_reason],
        )
        if self._cached is not None:
            output["statistics"]["cached_tokens"] = [self._cached]
        return output
