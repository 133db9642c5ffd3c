"""How the next token of each sequence of a batch is chosen, on the device and for all of them at once.

A token is drawn by one uniform number of the sequence's own source of chance: it is the first, by its number
in the vocabulary, whose cumulative probability exceeds it. So a sequence's text does not depend on its
neighbours, and equally probable tokens have an order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from stillhouse.local import Sampling
from stillhouse_mlx.choosers import Chooser, Drawn
from stillhouse_mlx.rows import RowModel

__all__ = ["BatchSampler", "Drawing"]

# Beyond this many candidates, sorting all tokens is no slower.
_FEW = 1024

_ALL = 2**31 - 1

# What a temperature is between, so that 32 bits hold it and no infinity is divided by another.
_TEMPERATURES = 1e-30, 1e30


class BatchSampler:
    """The sampler that the sequences of a batch share.

    Args:
        mx: `mlx.core`.
        model: says whose the rows are.
        vocabulary_size: the width of the logits.
        exact: the type of numbers in which probabilities are added up.
    """

    def __init__(self, mx: Any, model: RowModel, vocabulary_size: int, exact: Any) -> None:
        self._mx = mx
        self._model = model
        self._size = vocabulary_size
        self._exact = exact
        self._bits = mx.arange(32, dtype=mx.uint32)
        self._plan: _Plan | None = None

    def __call__(self, logprobs: Any) -> Any:
        """Return the next token of each sequence.

        Args:
            logprobs: `[sequences, vocabulary]`.
        """
        choosers, scores = self._model.take_step()
        plan = self._plan
        if plan is None or plan.choosers != choosers:
            if plan is not None:
                plan.end()
            plan = self._plan = _Plan(self._mx, list(choosers), self._size, self._exact)
        scores = plan.adjusted(scores)
        if any(chooser.matcher is not None for chooser in choosers):
            scores = self._masked(choosers, scores)
        tokens = plan.draw(scores)
        plan.count(tokens)
        drawn = plan.drawn(tokens, logprobs)
        for row, chooser in enumerate(choosers):
            chooser.drew(drawn, row)
        return tokens

    def _masked(self, choosers: Sequence[Chooser], scores: Any) -> Any:
        """Scores of what the forms allow."""
        mx = self._mx
        # The device computes the logits while the forms are asked on this side.
        mx.async_eval(scores)
        width = max(chooser.words for chooser in choosers)
        words = numpy.empty((len(choosers), width), dtype=numpy.int32)
        for chooser, row in zip(choosers, words, strict=True):
            chooser.fill(row)
        bits = (mx.array(words.view(numpy.uint32))[:, :, None] >> self._bits) & 1
        allowed = bits.reshape(len(choosers), -1)[:, : self._size]
        return mx.where(allowed.astype(mx.bool_), scores, -mx.inf)


class _Plan:
    """What is done at each step as long as the rows are the same.

    Args:
        mx: `mlx.core`.
        choosers: of each row.
        size: the width of the logits.
        exact: the type of numbers in which probabilities are added up.

    Attributes:
        choosers: of each row.
    """

    def __init__(self, mx: Any, choosers: list[Chooser], size: int, exact: Any) -> None:
        self.choosers = choosers
        self._mx = mx
        kinds: dict[str, list[int]] = {}
        for row, chooser in enumerate(choosers):
            kinds.setdefault(_kind(chooser.sampling), []).append(row)
        self._groups = [
            (
                mx.array(rows) if len(kinds) > 1 else None,
                [choosers[row] for row in rows],
                Drawing(mx, kind, [choosers[row].sampling for row in rows], size, exact),
            )
            for kind, rows in kinds.items()
        ]
        order = numpy.argsort([row for rows in kinds.values() for row in rows])
        self._order = mx.array(order) if len(kinds) > 1 else None
        changed = [chooser for chooser in choosers if not chooser.sampling.is_plain]
        self._penalties = _Penalties(mx, choosers, size) if changed else None
        self._reported = [row for row, chooser in enumerate(choosers) if chooser.candidates is not None]
        wanted = max((choosers[row].candidates or 0 for row in self._reported), default=0)
        self._candidates = min(wanted, size)

    def adjusted(self, scores: Any) -> Any:
        """Scores with bias and penalties."""
        return scores if self._penalties is None else self._penalties.adjusted(scores)

    def draw(self, scores: Any) -> Any:
        """The token of each row."""
        parts = []
        for rows, choosers, drawing in self._groups:
            some = scores if rows is None else scores[rows]
            chances = [chooser.chance() for chooser in choosers] if drawing.takes_chances else []
            parts.append(drawing.draw(some, chances))
        return parts[0] if self._order is None else self._mx.concatenate(parts)[self._order]

    def count(self, tokens: Any) -> None:
        """Take note of the tokens that were drawn."""
        if self._penalties is not None:
            self._penalties.count(tokens)

    def drawn(self, tokens: Any, logprobs: Any) -> Drawn:
        """The step's tokens, with the candidates that are wanted."""
        mx = self._mx
        if not self._reported:
            return Drawn(tokens)
        places = {row: place for place, row in enumerate(self._reported)}
        own = tokens
        if len(places) < len(self.choosers):
            rows = mx.array(self._reported)
            logprobs, own = logprobs[rows], tokens[rows]
        chosen = mx.take_along_axis(logprobs, own[:, None], axis=-1)[:, 0]
        count = self._candidates
        if count < logprobs.shape[-1]:
            candidates = mx.argpartition(-logprobs, max(count - 1, 0), axis=-1)[:, :count]
        else:
            candidates = mx.broadcast_to(mx.arange(count), logprobs.shape)
        reported = chosen, candidates, mx.take_along_axis(logprobs, candidates, axis=-1)
        mx.async_eval(*reported)
        return Drawn(tokens, places, *reported)

    def end(self) -> None:
        """Hand what was counted back to the sequences."""
        if self._penalties is not None:
            self._penalties.end()


class _Penalties:
    """Bias and penalties of all rows; those of a row that has none change nothing.

    Args:
        mx: `mlx.core`.
        choosers: of each row.
        size: the width of the logits.
    """

    def __init__(self, mx: Any, choosers: Sequence[Chooser], size: int) -> None:
        self._mx = mx
        self._choosers = choosers
        self._rows = mx.arange(len(choosers))
        self._biased = any(chooser.sampling.bias for chooser in choosers)
        bias = numpy.zeros((len(choosers), size if self._biased else 1), dtype=numpy.float32)
        for chooser, row in zip(choosers, bias, strict=True):
            for token, value in chooser.sampling.bias.items():
                row[token] = value
            if chooser.counts is None:
                occurred = numpy.zeros(size, dtype=numpy.float32)
                occurred[list(chooser.prompt)] = 1
                chooser.occurred, chooser.counts = mx.array(occurred), mx.zeros(size)
        self._bias = mx.array(bias)
        self._counts = mx.stack([chooser.counts for chooser in choosers])
        self._occurred = mx.stack([chooser.occurred for chooser in choosers])
        self._repetition, self._frequency, self._presence = (
            mx.array([[getattr(chooser.sampling, name)] for chooser in choosers], dtype=mx.float32)
            for name in ("repetition_penalty", "frequency_penalty", "presence_penalty")
        )

    def adjusted(self, scores: Any) -> Any:
        """Scores with bias and penalties."""
        mx = self._mx
        scores = scores + self._bias
        lowered = mx.where(scores > 0, scores / self._repetition, scores * self._repetition)
        scores = mx.where(self._occurred > 0, lowered, scores)
        return scores - self._frequency * self._counts - self._presence * (self._counts > 0)

    def count(self, tokens: Any) -> None:
        """Take note of the tokens that were drawn."""
        self._counts = self._counts.at[self._rows, tokens].add(1)
        self._occurred = self._occurred.at[self._rows, tokens].add(1)

    def end(self) -> None:
        """Hand what was counted back to the sequences."""
        for row, chooser in enumerate(self._choosers):
            chooser.counts, chooser.occurred = self._counts[row], self._occurred[row]


def _kind(own: Sampling) -> str:
    """Rows whose tokens are found in the same way are drawn together. It is their own affair alone."""
    if own.is_greedy:
        return "greedy"
    if 0 < own.top_k <= _FEW:
        return "few"
    return "some" if own.top_k or own.top_p < 1 or own.min_p > 0 else "all"


class Drawing:
    """Draws the tokens of rows of one kind.

    Args:
        mx: `mlx.core`.
        kind: what is left of the vocabulary: `greedy` for the most probable token, `few`, `some` or
            `all`.
        settings: of each row.
        size: the width of the logits.
        exact: the type of numbers in which probabilities are added up.

    Attributes:
        takes_chances: whether it draws by chance.
    """

    def __init__(self, mx: Any, kind: str, settings: Sequence[Sampling], size: int, exact: Any) -> None:
        self._mx = mx
        self._kind = kind
        self._exact = exact
        self.takes_chances = kind != "greedy"
        low, high = _TEMPERATURES
        self._temperature, self._top_p, self._min_p = (
            mx.array([[value] for value in values], dtype=mx.float32)
            for values in (
                [min(max(own.temperature, low), high) for own in settings],
                [own.top_p if own.top_p < 1 else 2.0 for own in settings],
                [own.min_p for own in settings],
            )
        )
        limits = [min(own.top_k or _ALL, _ALL) for own in settings]
        self._top_k = mx.array([[limit] for limit in limits])
        self._most = min(max(limits), size)

    def draw(self, scores: Any, chances: Sequence[float]) -> Any:
        """Return the token of each row.

        Args:
            scores: `[rows, vocabulary]`, of 32 bits.
            chances: a number from 0 to below 1 for each row.
        """
        mx = self._mx
        if self._kind == "greedy":
            return mx.argmax(scores, axis=-1)
        # First the largest, so that a temperature near 0 leaves numbers.
        scaled = (scores - scores.max(axis=-1, keepdims=True)) / self._temperature
        if self._kind != "all":
            scaled = mx.where(self._kept(scaled), scaled, -mx.inf)
        sums = mx.cumsum(mx.softmax(scaled, axis=-1, precise=True).astype(self._exact), axis=-1)
        total = sums[:, -1:]
        numbers = mx.array(list(chances), dtype=self._exact)[:, None]
        places = (sums <= numbers * total).sum(axis=-1)
        # Rounding can make a number as large as the total. No probability of 0 may be picked then.
        return mx.minimum(places, (sums < total).sum(axis=-1))

    def _kept(self, scaled: Any) -> Any:
        """Whether each token is kept; of equally probable ones, the first in the vocabulary are."""
        mx = self._mx
        few = mx.topk(scaled, self._most, axis=-1) if self._most < scaled.shape[-1] else scaled
        values = mx.sort(few, axis=-1)[:, ::-1]
        values = mx.where(mx.arange(values.shape[-1]) < self._top_k, values, -mx.inf)
        weights = mx.softmax(values, axis=-1, precise=True)
        before = mx.cumsum(weights.astype(self._exact), axis=-1) - weights
        kept = (before < self._top_p) & (weights >= self._min_p * weights[:, :1]) & (weights > 0)
        count = mx.maximum(kept.sum(axis=-1, keepdims=True), 1)
        least = mx.take_along_axis(values, count - 1, axis=-1)
        equal = scaled == least
        above = scaled > least
        left = count - above.sum(axis=-1, keepdims=True)
        return above | (equal & (mx.cumsum(equal.astype(mx.int32), axis=-1) <= left))
