"""How the next token of each sequence of a batch is chosen, on the device and for all of them at once.

mlx-lm calls the processors of each sequence and then, where the sequences share a sampler, that sampler with
all of them. So a processor here says only whose turn it is, and the sampler does the work: what it is given
are the model's own log-probabilities, which is what is reported of them, and a sequence's text does not
depend on its neighbours, for each brings one number of its own source of chance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from stillhouse.errors import GenerationError
from stillhouse.local import Matcher, Sampling

__all__ = ["BatchSampler", "Chooser"]

# The largest 32-bit number below 1: a number just below 1 must not become 1.
_BELOW_ONE = 1 - 2**-24

# Beyond this many candidates, sorting all tokens is no slower.
_FEW = 1024


class Chooser:
    """What the choice of one sequence's tokens depends on.

    Args:
        prompt: its tokens.
        sampling: the settings.
        chance: gives a number in [0, 1) when it is called.
        matcher: holds the sequence to a form.
        words: how many words the form fills; see `GuideCompiler.words`.
        ends: the tokens that end an answer.

    Attributes:
        error: what the form ended with, if it did.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        chance: Callable[[], float],
        matcher: Matcher | None,
        words: int,
        ends: frozenset[int],
    ) -> None:
        self.prompt = prompt
        self.sampling = sampling
        self.chance = chance
        self.matcher = matcher
        self.words = words
        self.error: GenerationError | None = None
        self.logits: Any = None  # of this step
        self.drawn: tuple[_Drawn, int] | None = None  # of the last step
        self.counts: Any = None  # of the tokens that were generated
        self.occurred: Any = None  # whether a token is in the prompt or was generated
        self.bias: Any = None
        self._ends = ends
        self._accepted = 0
        self._complete: int | None = None

    @property
    def is_plain_greedy(self) -> bool:
        """Whether it takes the model's most probable token always, whatever was before."""
        return self.matcher is None and self.sampling.is_greedy and self.sampling.is_plain

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

    def catch_up(self) -> None:
        """Let the form go on by the token that was drawn last."""
        if self.matcher is not None and self.drawn is not None:
            drawn, place = self.drawn
            self.accept(drawn.tokens[place], self._accepted + 1)

    def fill(self, words: Any) -> None:
        """Write which tokens the form allows next; none of them is forbidden where there is no form."""
        if self.matcher is not None:
            try:
                self.matcher.fill(words[: self.words])
                return
            except GenerationError as error:
                self.error, self.matcher = error, None
        words[:] = -1


class _Drawn:
    """The tokens of a step, taken to this side when somebody wants to know them."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self._tokens: list[int] | None = None

    @property
    def tokens(self) -> list[int]:
        if self._tokens is None:
            self._tokens = self.array.tolist()
        return self._tokens


class BatchSampler:
    """The sampler that the sequences of a batch share.

    Args:
        mx: `mlx.core`.
        vocabulary_size: the width of the logits.
    """

    def __init__(self, mx: Any, vocabulary_size: int) -> None:
        self._mx = mx
        self._size = vocabulary_size
        self._bits = mx.arange(32, dtype=mx.uint32)
        self._turn: deque[Chooser] = deque()

    def processor(self, chooser: Chooser) -> Callable[[Any, Any], Any]:
        """Return the one processor of a sequence."""

        def process(_: Any, logits: Any) -> Any:
            self._turn.append(chooser)
            chooser.logits = logits.astype(self._mx.float32)
            return chooser.logits

        return process

    def __call__(self, logprobs: Any) -> Any:
        """Return the next token of each sequence.

        Args:
            logprobs: `[sequences, vocabulary]`.
        """
        mx = self._mx
        if len(self._turn) < logprobs.shape[0]:
            raise RuntimeError("this version of mlx-lm samples in a way that stillhouse-mlx does not know")
        choosers = [self._turn.popleft() for _ in range(logprobs.shape[0])]
        scores = self._scores(choosers, logprobs)
        groups: dict[str, list[int]] = {}
        for place, chooser in enumerate(choosers):
            groups.setdefault(_way(chooser.sampling), []).append(place)
        parts = []
        for way, places in groups.items():
            some = scores if len(groups) == 1 else scores[mx.array(places)]
            parts.append(self._choose(way, some, [choosers[place] for place in places]))
        if len(parts) == 1:
            tokens = parts[0]
        else:
            order = numpy.argsort([place for places in groups.values() for place in places])
            tokens = mx.concatenate(parts)[mx.array(order)]
        drawn = _Drawn(tokens)
        for place, chooser in enumerate(choosers):
            chooser.drawn = (drawn, place)
            chooser.logits = None
        return tokens

    def _scores(self, choosers: list[Chooser], logprobs: Any) -> Any:
        """Logits with bias, penalties and forms, up to a constant for each sequence."""
        mx = self._mx
        scores = logprobs
        if not all(chooser.sampling.is_plain for chooser in choosers):
            scores = mx.concatenate(
                [
                    logprobs[place : place + 1]
                    if chooser.sampling.is_plain
                    else self._adjusted(chooser, chooser.logits)
                    for place, chooser in enumerate(choosers)
                ]
            )
        if any(chooser.matcher is not None for chooser in choosers):
            # The device computes the logits while the forms are asked on this side.
            mx.async_eval(scores)
            width = max(chooser.words for chooser in choosers)
            words = numpy.empty((len(choosers), width), dtype=numpy.int32)
            for chooser, row in zip(choosers, words, strict=True):
                chooser.catch_up()
                chooser.fill(row)
            bits = (mx.array(words.view(numpy.uint32))[:, :, None] >> self._bits) & 1
            allowed = bits.reshape(len(choosers), -1)[:, : self._size]
            scores = mx.where(allowed.astype(mx.bool_), scores, -mx.inf)
        return scores

    def _adjusted(self, chooser: Chooser, logits: Any) -> Any:
        mx = self._mx
        settings = chooser.sampling
        if chooser.bias is None:
            bias = numpy.zeros(self._size, dtype=numpy.float32)
            for token, value in settings.bias.items():
                bias[token] = value
            occurred = numpy.zeros(self._size, dtype=numpy.float32)
            occurred[list(chooser.prompt)] = 1
            chooser.bias, chooser.occurred = mx.array(bias), mx.array(occurred)
            chooser.counts = mx.zeros_like(chooser.bias)
        elif chooser.drawn is not None:
            drawn, place = chooser.drawn
            last = drawn.array[place : place + 1]
            chooser.counts = chooser.counts.at[last].add(1)
            chooser.occurred = chooser.occurred.at[last].add(1)
        logits = logits + chooser.bias
        if settings.repetition_penalty != 1:
            factor = settings.repetition_penalty
            lowered = mx.where(logits > 0, logits / factor, logits * factor)
            logits = mx.where(chooser.occurred > 0, lowered, logits)
        counts = chooser.counts
        return logits - settings.frequency_penalty * counts - settings.presence_penalty * (counts > 0)

    def _choose(self, way: str, scores: Any, choosers: list[Chooser]) -> Any:
        mx = self._mx
        if way == "greedy":
            return mx.argmax(scores, axis=-1)
        settings = [chooser.sampling for chooser in choosers]
        chances = mx.array([[min(chooser.chance(), _BELOW_ONE)] for chooser in choosers], dtype=mx.float32)
        scores = scores / mx.array([[one.temperature] for one in settings], dtype=mx.float32)
        if way == "free":
            return self._first_above(mx.softmax(scores, axis=-1, precise=True), chances)
        most = max(one.top_k or self._size for one in settings)
        if most <= min(_FEW, self._size - 1):
            few = mx.argpartition(-scores, most - 1, axis=-1)[:, :most]
            few = mx.sort(few, axis=-1)  # of equal scores, the first token comes first
            sorted_few = mx.argsort(-mx.take_along_axis(scores, few, axis=-1), axis=-1)
            order = mx.take_along_axis(few, sorted_few, axis=-1)
        else:
            order = mx.argsort(-scores, axis=-1)
        probable = mx.softmax(mx.take_along_axis(scores, order, axis=-1), axis=-1, precise=True)
        place = self._first_above(self._filtered(probable, settings), chances)
        return mx.take_along_axis(order, place[:, None], axis=-1)[:, 0]

    def _filtered(self, probable: Any, settings: list[Sampling]) -> Any:
        """Probabilities, from the greatest to the least, without those that are left out."""
        mx = self._mx
        places = mx.arange(probable.shape[-1])[None]
        keep = places < mx.array([[one.top_k or self._size] for one in settings])
        probable = mx.where(keep, probable, 0)
        probable = probable / probable.sum(axis=-1, keepdims=True)
        before = mx.cumsum(probable, axis=-1) - probable
        top_p = mx.array([[one.top_p if one.top_p < 1 else 2.0] for one in settings], dtype=mx.float32)
        min_p = mx.array([[one.min_p] for one in settings], dtype=mx.float32)
        keep = (before < top_p) & (probable >= min_p * probable[:, :1])
        return mx.where(keep | (places == 0), probable, 0)

    def _first_above(self, probable: Any, chances: Any) -> Any:
        """The first places whose cumulative probability exceeds the chance."""
        mx = self._mx
        cumulative = mx.cumsum(probable, axis=-1)
        hit = (cumulative > chances * probable.sum(axis=-1, keepdims=True)) & (probable > 0)
        found = mx.argmax(hit.astype(mx.int32), axis=-1)
        return mx.where(hit.any(axis=-1), found, mx.argmax(probable, axis=-1))


def _way(settings: Sampling) -> str:
    """By what computation a token is chosen. It depends on nothing but the sequence's own settings."""
    if settings.is_greedy:
        return "greedy"
    return "free" if not settings.top_k and settings.top_p >= 1 and settings.min_p <= 0 else "filtered"
