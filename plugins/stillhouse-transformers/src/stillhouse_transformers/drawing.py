"""Drawing the next token of every row of a batch, each with its own settings and its own number.

A token is drawn by one uniform number: it is the first, by its number in the vocabulary, whose cumulative
probability exceeds it. The order of the vocabulary, unlike that of the probabilities, does not change
with the last bit of a logit, which differs with the size of the batch. Of tokens with equal logits, of which
numbers of 16 bits make many, those with the lowest numbers are kept: which of them `topk` finds depends on
how many it is asked for, and so on the other rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stillhouse.local import Sampling

__all__ = ["Drawer"]

# To sort a whole vocabulary takes longer than a step of a small model. So many tokens nearly always hold
# all that top_p and min_p leave.
_CANDIDATES = 1024

_ALL = 2**31


class Drawer:
    """Draws tokens for the same rows, step after step.

    Args:
        settings: of each row, whose temperature is above 0.
        device: where the logits are.
    """

    def __init__(self, settings: Sequence[Sampling], device: Any) -> None:
        kinds: dict[str, list[int]] = {}
        for row, own in enumerate(settings):
            kinds.setdefault(_kind(own), []).append(row)
        self._groups = [
            (
                torch.tensor(rows, device=device) if len(rows) < len(settings) else None,
                rows,
                _Group([settings[row] for row in rows], kind, device),
            )
            for kind, rows in kinds.items()
        ]

    def draw(self, logits: Any, uniforms: Sequence[float]) -> Any:
        """Return the tokens drawn, `[rows, 1]`.

        Args:
            logits: `[rows, vocabulary]`, of 32 bits.
            uniforms: a number from 0 to below 1 for each row.
        """
        drawn = None
        for index, rows, group in self._groups:
            if index is None:
                return group.draw(logits, uniforms)
            if drawn is None:
                drawn = torch.empty((len(logits), 1), dtype=torch.long, device=logits.device)
            drawn[index] = group.draw(logits[index], [uniforms[row] for row in rows])
        return drawn


def _kind(own: Sampling) -> str:
    """Rows whose tokens are found in the same way are drawn together."""
    if 0 < own.top_k <= _CANDIDATES:
        return "few"
    return "some" if own.top_k or own.top_p < 1 or own.min_p > 0 else "all"


class _Group:
    """Rows of one kind."""

    def __init__(self, settings: Sequence[Sampling], kind: str, device: Any) -> None:
        numbers = torch.tensor(
            [[own.temperature, own.top_p, own.min_p] for own in settings], dtype=torch.float32, device=device
        )
        # What is 0 or infinite in 32 bits divides into numbers that are none.
        limits = torch.finfo(torch.float32)
        numbers[:, 0].clamp_(limits.tiny, limits.max)
        self._temperature, self._top_p, self._min_p = numbers.split(1, dim=1)
        self._top_k = torch.tensor([[own.top_k or _ALL] for own in settings], device=device)
        self._largest_k = max(own.top_k or _ALL for own in settings)
        self._has_k = any(own.top_k for own in settings)
        self._kind = kind
        # The GPUs of Apple have no numbers of 64 bits.
        self._exact = torch.float32 if torch.device(device).type == "mps" else torch.float64

    def draw(self, logits: Any, uniforms: Sequence[float]) -> Any:
        # First the largest, so that a temperature near 0 leaves numbers.
        top = logits.amax(-1, keepdim=True)
        scaled = (logits - top) / self._temperature
        # Of a broken row any token is drawn. It fails, and a place outside would fail its neighbours too.
        scaled.masked_fill_(~torch.isfinite(top), 0.0)
        size = logits.shape[-1]
        if self._kind == "all":
            return self._pick(torch.softmax(scaled, -1), uniforms)
        if self._kind == "few":
            # Some more than wanted, for those that are equal to the last one wanted.
            values, tokens = _largest(scaled, min(2 * self._largest_k + 32, size))
            if values.shape[-1] < size and not self._has_equals(values):
                values, tokens = _largest(scaled, size)
            weights, _ = self._kept(values)
        else:
            total = self._total(scaled)
            values, tokens = _largest(scaled, min(_CANDIDATES, size))
            weights, is_whole = self._kept(values, total)
            if not is_whole and values.shape[-1] < size:
                values, tokens = _largest(scaled, size)
                weights, _ = self._kept(values, total)
        tokens, order = tokens.sort(-1)
        return tokens.gather(-1, self._pick(weights.gather(-1, order), uniforms))

    def _has_equals(self, values: Any) -> bool:
        """Whether all tokens that are equal to the last one of a row's top_k are among the largest."""
        last = values.gather(-1, (self._top_k - 1).clamp(max=values.shape[-1] - 1))
        return bool(((last > values[:, -1:]) | (last == -torch.inf)).all())

    def _total(self, scaled: Any) -> Any:
        """The logarithm of the sum of what a row's top_k leaves of the whole vocabulary."""
        total = torch.logsumexp(scaled, -1, keepdim=True)
        if self._has_k:
            values = torch.sort(scaled, descending=True).values
            ranks = torch.arange(values.shape[-1], device=values.device)
            values = values.masked_fill(ranks >= self._top_k, -torch.inf)
            total = torch.logsumexp(values, -1, keepdim=True)
        return total

    def _kept(self, values: Any, total: Any = None) -> tuple[Any, bool]:
        """The probabilities of the kept tokens, 0 for the others, and whether all kept ones are among them.

        Args:
            values: the largest logits, as `_largest` sorts them.
            total: the logarithm of their sum; `None` if these are all that top_k leaves.
        """
        ranks = torch.arange(values.shape[-1], device=values.device)
        values = values.masked_fill(ranks >= self._top_k, -torch.inf)
        if total is None:
            total = torch.logsumexp(values, -1, keepdim=True)
        weights = torch.exp(values - total)
        before = weights.cumsum(-1) - weights
        kept = (before < self._top_p) & (weights >= self._min_p * weights[:, :1]) & (weights > 0)
        kept[:, 0] = True
        is_whole = not bool((kept & (values == values[:, -1:])).any())
        return weights.masked_fill(~kept, 0.0), is_whole

    def _pick(self, weights: Any, uniforms: Sequence[float]) -> Any:
        """The places, `[rows, 1]`, at which the cumulative weights exceed the rows' numbers."""
        sums = weights.cumsum(-1, dtype=self._exact)
        total = sums[:, -1:].contiguous()
        numbers = torch.tensor(uniforms, dtype=self._exact, device=sums.device)[:, None]
        places = torch.searchsorted(sums, numbers * total, right=True)
        # Rounding can make a number as large as the total. No weight of 0 may be picked then.
        return torch.minimum(places, torch.searchsorted(sums, total))


def _largest(logits: Any, count: int) -> tuple[Any, Any]:
    """The largest logits, sorted downwards, and their tokens: of equal ones the lowest number first."""
    if count == logits.shape[-1]:
        values, tokens = torch.sort(logits, dim=-1, descending=True, stable=True)
        return values, tokens
    values, tokens = torch.topk(logits, count, sorted=False)
    tokens, order = tokens.sort(-1)
    values, order = torch.sort(values.gather(-1, order), dim=-1, descending=True, stable=True)
    return values, tokens.gather(-1, order)
