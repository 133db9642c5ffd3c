"""A batch of generations that the library's own `generate` makes together.

What differs from row to row is in a logits processor and a stopping criterion: `generate` takes the most
probable token of what the processor leaves, and ends when the criterion says so of every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
import torch

from stillhouse.errors import GenerationError
from stillhouse.local import engine_failed, unloaded
from stillhouse_transformers.drawing import Drawer
from stillhouse_transformers.rows import Row

__all__ = ["Batch", "padded"]


def padded(prompts: Sequence[Sequence[int]], pad: int, device: Any, *, left: bool) -> tuple[Any, Any]:
    """Return the tokens of prompts, and a mask of what is not padding; both `[prompts, longest]`.

    Args:
        prompts: tokens.
        pad: the token to pad with. It may be any: the mask tells it from one in a prompt.
        device: where the tensors are to be.
        left: whether the padding comes before the prompt.
    """
    longest = max(map(len, prompts))
    tokens = numpy.full((len(prompts), longest), pad, dtype=numpy.int64)
    mask = numpy.zeros_like(tokens)
    for row, prompt in enumerate(prompts):
        place = slice(longest - len(prompt), None) if left else slice(len(prompt))
        tokens[row, place] = prompt
        mask[row, place] = 1
    return torch.from_numpy(tokens).to(device), torch.from_numpy(mask).to(device)


class Batch:
    """Rows that are generated together.

    Args:
        rows: the rows.
        tokens: the prompts, `[rows, length]`.
        mask: of `tokens`, 0 where there is padding.
        vocabulary_size: the width of the model's logits.
        words: how many words of 32 bits hold a bit for each token of a form.
    """

    def __init__(self, rows: Sequence[Row], tokens: Any, mask: Any, vocabulary_size: int, words: int) -> None:
        self._rows = list(rows)
        self._live = list(enumerate(self._rows))
        self._done = torch.zeros(len(self._rows), dtype=torch.bool)
        self._device = device = tokens.device
        self._largest: Any = None
        requests = [row.request for row in rows]
        self._edits = _Edits(rows, tokens, mask, vocabulary_size)
        self._forms = _Forms(rows, words, device)
        self._failed: dict[int, Exception] = {}
        drawn = [index for index, request in enumerate(requests) if not request.sampling.is_greedy]
        self._drawn = _index(drawn, len(rows), device)
        self._drawn_rows = [self._rows[index] for index in drawn]
        self._drawer = Drawer([requests[index].sampling for index in drawn], device) if drawn else None
        self._reported = [index for index, request in enumerate(requests) if request.candidates is not None]
        self._report = _index(self._reported, len(rows), device)
        self._candidates = max((requests[index].candidates or 0 for index in self._reported), default=0)
        self._raw: Any = None

    @property
    def limit(self) -> int:
        """How many tokens the longest answer may have."""
        return max(row.request.limit for row in self._rows)

    @property
    def unfinished(self) -> list[Any]:
        """The jobs of the rows that have not ended."""
        return [row.job for _, row in self._live]

    def process(self, _: Any, logits: Any) -> Any:
        """Leave of the logits of the next token, `[rows, vocabulary]`, what may be taken."""
        self._largest = logits.amax(-1)  # not finite if any of them is NaN
        if self._reported:
            self._raw = logits[self._report].clone()
        self._edits.apply(logits)
        self._failed = self._forms.apply(logits)
        if self._drawer is not None:
            uniforms = [row.uniform() for row in self._drawn_rows]
            tokens = self._drawer.draw(logits[self._drawn], uniforms)
            rows = torch.arange(len(logits), device=self._device)[self._drawn]
            logits[rows, tokens[:, 0]] = torch.inf
        return logits

    def stop(self, tokens: Any, *_: Any, **__: Any) -> Any:
        """Take the tokens that were generated, and say of each row whether it has ended."""
        last = tokens[:, -1]
        self._edits.add(last)
        listed = last.tolist()
        finite = torch.isfinite(self._largest).tolist()
        reports = self._reports(last) if self._reported else {}
        live = []
        for index, row in self._live:
            error = self._failed.get(index) or (None if finite[index] else _broken())
            if self._go_on(row, listed[index], error, reports.get(index)):
                live.append((index, row))
            else:
                self._done[index] = True
                self._forms.drop(index)
        self._live = live
        return self._done.to(self._device)

    def _go_on(
        self, row: Row, token: int, error: Exception | None, report: list[tuple[int, float]] | None
    ) -> bool:
        """Whether a row goes on. Whatever is wrong with one is not its neighbours' fault."""
        if row.job.cancelled:
            row.job.fail(unloaded())
            return False
        try:
            if error is not None:
                raise error
            output = row.add(token, report)
        except GenerationError as failure:
            row.job.fail(failure)
        except Exception as failure:
            row.job.fail(engine_failed(failure))
        else:
            if output is None:
                return True
            row.job.finish(output)
        return False

    def _reports(self, last: Any) -> dict[int, list[tuple[int, float]]]:
        """For each row that wants them, the candidates with their log-probabilities, its own token first."""
        raw, self._raw = self._raw, None
        total = torch.logsumexp(raw, -1, keepdim=True)
        own = last[self._report][:, None]
        own_values = (raw.gather(-1, own) - total)[:, 0].tolist()
        count = min(max(self._candidates, 1), raw.shape[-1])
        values, tokens = torch.topk(raw, count)
        listed = (values - total).tolist(), tokens.tolist()
        reports = {}
        for place, index in enumerate(self._reported):
            token = int(own[place, 0])
            wanted = max(self._rows[index].request.candidates or 0, 1) - 1
            others = [
                (other, value)
                for other, value in zip(listed[1][place], listed[0][place], strict=True)
                if other != token
            ]
            reports[index] = [(token, own_values[place]), *others[:wanted]]
        return reports


def _broken() -> GenerationError:
    return GenerationError(
        "the model's logits are no numbers (NaN, or infinite)",
        kind="server",
        hint="choose another dtype, bfloat16 or float32; if that does not help, the weights are broken",
    )


def _index(rows: Sequence[int], count: int, device: Any) -> Any:
    """What selects rows of a tensor; all of them without a copy."""
    return slice(None) if len(rows) == count else torch.tensor(rows, dtype=torch.long, device=device)


class _Edits:
    """Biases and penalties, of the rows that have some."""

    def __init__(self, rows: Sequence[Row], tokens: Any, mask: Any, vocabulary_size: int) -> None:
        samplings = [row.request.sampling for row in rows]
        device = tokens.device
        bias = [
            (index, token, value) for index, own in enumerate(samplings) for token, value in own.bias.items()
        ]
        self._bias: tuple[Any, Any] | None = None
        if bias:
            places, columns, values = zip(*bias, strict=True)
            self._bias = (
                (torch.tensor(places, device=device), torch.tensor(columns, device=device)),
                torch.tensor(values, dtype=torch.float32, device=device),
            )
        penalised = [
            index
            for index, own in enumerate(samplings)
            if own.frequency_penalty or own.presence_penalty or own.repetition_penalty != 1
        ]
        self._has_penalties = bool(penalised)
        if penalised:
            self._penalised = _index(penalised, len(rows), device)
            numbers = torch.tensor(
                [
                    [own.frequency_penalty, own.presence_penalty, own.repetition_penalty]
                    for own in (samplings[index] for index in penalised)
                ],
                dtype=torch.float32,
                device=device,
            )
            self._frequency, self._presence, self._repetition = numbers.split(1, dim=1)
            self._counts = torch.zeros((len(penalised), vocabulary_size), device=device)
            # A column more takes the padding.
            seen = torch.zeros((len(penalised), vocabulary_size + 1), dtype=torch.bool, device=device)
            own_tokens = tokens[self._penalised].masked_fill(mask[self._penalised] == 0, vocabulary_size)
            self._seen = seen.scatter_(1, own_tokens, True)[:, :vocabulary_size]

    def apply(self, logits: Any) -> None:
        if self._bias is not None:
            logits.index_put_(*self._bias, accumulate=True)
        if self._has_penalties:
            own = logits[self._penalised]
            repeated = torch.where(own > 0, own / self._repetition, own * self._repetition)
            own = torch.where(self._seen, repeated, own)
            own = own - self._frequency * self._counts - self._presence * (self._counts > 0)
            logits[self._penalised] = own

    def add(self, last: Any) -> None:
        if self._has_penalties:
            own = last[self._penalised][:, None]
            self._seen.scatter_(1, own, True)
            self._counts.scatter_add_(1, own, torch.ones_like(own, dtype=self._counts.dtype))


class _Forms:
    """The masks of the rows whose answers must have a form."""

    def __init__(self, rows: Sequence[Row], words: int, device: Any) -> None:
        self._rows = {index: row.matcher for index, row in enumerate(rows) if row.matcher is not None}
        self._count = len(rows)
        self._words = words
        self._device = device

    def apply(self, logits: Any) -> dict[int, Exception]:
        """Take away what the forms do not allow; return the rows whose form the library gave up."""
        failed: dict[int, Exception] = {}
        if not self._rows:
            return failed
        rows = list(self._rows)
        words = numpy.full((len(rows), self._words), -1, dtype=numpy.int32)
        for place, index in enumerate(rows):
            try:
                self._rows[index].fill(words[place])
            except Exception as error:  # the row fails, and its neighbours go on
                failed[index] = error
        bits = numpy.unpackbits(words.view(numpy.uint8), axis=1, bitorder="little")[:, : logits.shape[-1]]
        refused = torch.from_numpy(bits == 0).to(self._device)
        place = _index(rows, self._count, self._device)
        logits[place] = logits[place].masked_fill(refused, -torch.inf)
        return failed

    def drop(self, index: int) -> None:
        """A row has ended."""
        self._rows.pop(index, None)
