"""A growing answer, token by token, and the output made from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

from stillhouse.local.generation import Generation
from stillhouse.local.stops import Detokenizer
from stillhouse.local.templates import Prompts
from stillhouse.outputs import prepare_output
from stillhouse.typing import GenerateOutput, Logprob, OnPiece

__all__ = ["Answer", "TokenTexts"]


class TokenTexts:
    """The texts of single tokens, for log-probabilities. Use it from one thread only.

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
        """Return the text of a token, also of a special token."""
        text = self._texts.get(token)
        if text is None:
            text = self._texts[token] = self._decoded([*self._before, token])[self._length :]
        return text

    def _decoded(self, tokens: list[int]) -> str:
        return str(
            self._tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )


class Answer:
    """The answer of a generation so far.

    Args:
        generation: the requested generation.
        prompts: converts tokens to text.
        tokenizer: a tokenizer of the library `transformers`.
        texts: the texts of single tokens; one object serves all answers of an engine.
        eos: the tokens that end an answer. They have no text and no log-probabilities.
        on_piece: takes the text as it grows, but for an end that may be the beginning of a stop text, or of
            a character; `None` where nobody waits for it.

    Attributes:
        tokens: the generated tokens, including the one that ended the answer.
    """

    def __init__(
        self,
        generation: Generation,
        prompts: Prompts,
        tokenizer: Any,
        texts: TokenTexts,
        eos: Collection[int],
        on_piece: OnPiece | None = None,
    ) -> None:
        self.tokens: list[int] = []
        self._generation = generation
        self._prompts = prompts
        self._texts = texts
        self._eos = eos
        self._text = ""
        self._cut: int | None = None  # where a stop text begins
        self._ended = False  # by a token that ends an answer
        self._add: Callable[[int], str] | None = None
        self._on_piece = on_piece
        self._given = 0  # how much of the text `on_piece` has got
        if generation.stops or generation.candidates is not None or on_piece is not None:
            self._add = Detokenizer(tokenizer).add
        self._starts: list[int] = []  # where in the text each position with log-probabilities begins
        self._logprobs: list[list[Logprob]] = []

    def add(self, token: int, candidates: Sequence[tuple[int, float]] | None = None) -> str | None:
        """Add a token to the answer.

        Args:
            token: the token.
            candidates: if requested, the candidates with their log-probabilities, the token itself first.
                Values that are not finite are left out.

        Returns:
            The reason why the answer ends here, `stop` or `length`; `None` if it continues.
        """
        self.tokens.append(token)
        if token in self._eos:
            self._ended = True
            return "stop"
        if self._add is not None:
            start = len(self._text)
            piece = self._add(token)
            self._text += piece
            if candidates is not None:
                self._starts.append(start)
                self._logprobs.append(self._position(token, piece, candidates))
            self._cut = self._generation.stops.cut(self._text, start) if piece else None
            if piece and self._on_piece is not None:
                self._give(self._on_piece)
            if self._cut is not None:
                return "stop"
        return "length" if len(self.tokens) >= self._generation.limit else None

    def _give(self, on_piece: OnPiece) -> None:
        held = self._generation.stops.held
        end = len(self._text) - held(self._text) if self._cut is None else self._cut
        if end > self._given:
            on_piece(self._text[self._given : end])
            self._given = end

    def _position(self, token: int, piece: str, candidates: Sequence[tuple[int, float]]) -> list[Logprob]:
        return [
            Logprob(token=piece if other == token else self._texts[other], logprob=logprob)
            for other, logprob in candidates
            if math.isfinite(logprob)
        ]

    def output(self, reason: str, cached: int | None = None) -> GenerateOutput:
        """Return the output, with one generation.

        Args:
            reason: the reason why the answer ended.
            cached: number of prompt tokens that were taken from a cache; `None` if unknown.
        """
        logprobs = self._logprobs
        if self._cut is None:
            text = self._prompts.text_of(self.tokens[:-1] if self._ended else self.tokens)
        else:
            text = self._text[: self._cut]
            logprobs = logprobs[: sum(start < self._cut for start in self._starts)]
        output = prepare_output(
            [text or None],
            input_tokens=[len(self._generation.prompt)],
            output_tokens=[len(self.tokens)],
            logprobs=None if self._generation.candidates is None else [logprobs],
            finish_reasons=[reason],
        )
        if cached is not None:
            output["statistics"]["cached_tokens"] = [cached]
        return output
