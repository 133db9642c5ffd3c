"""Sequences one at a time, for models that mlx-lm does not compute rightly in a batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from stillhouse_mlx.rows import Rows

__all__ = ["OneByOne"]


@dataclass
class _Response:
    uid: int
    token: int
    logprobs: Any
    finish_reason: str | None


class OneByOne:
    """A generator of one sequence, with the methods of mlx-lm's `BatchGenerator` that are used here.

    Nothing is padded and nothing merged, so that the model computes as when it is called by hand.

    Args:
        mx: `mlx.core`.
        model: of mlx-lm.
        ends: the tokens that end a sequence.
        read: see `Prefixes`.
        step: how many tokens of a prompt are read at once.
    """

    def __init__(
        self,
        mx: Any,
        model: Any,
        ends: Collection[int],
        read: Callable[[Sequence[int], list[Any] | None], list[Any]],
        step: int,
    ) -> None:
        self._mx = mx
        self._model = model
        self._ends = ends
        self._read = read
        self._step = step
        self._count = 0
        self._rest = 0  # how many tokens may still come
        self._unread: Sequence[int] = ()  # of the prompt, but for its last token
        self._inputs: Any = None
        self._layers: list[Any] = []
        self._rows: list[Any] = []
        self._sampler: Any = None

    @property
    def prompt_cache_nbytes(self) -> int:
        """How many bytes the model's memory of the sequence takes."""
        return sum(part.nbytes for part in self._layers)

    def insert(
        self,
        prompts: Sequence[list[int]],
        max_tokens: Sequence[int],
        caches: Sequence[list[Any]],
        samplers: Sequence[Any],
    ) -> list[int]:
        """Begin a sequence, the only one."""
        (prompt,) = prompts
        self._count += 1
        self._layers = [part for part in caches[0] if not isinstance(part, Rows)]
        self._rows = caches[0][len(self._layers) :]
        self._unread = prompt[:-1]
        self._inputs = self._mx.array(prompt[-1:])
        self._rest = max_tokens[0]
        self._sampler = samplers[0]
        return [self._count]

    def next(self) -> tuple[list[Any], list[_Response]]:
        """The next token, or nothing while the prompt is read."""
        if not self._rest:
            return [], []
        if self._unread:
            self._read(self._unread[: self._step], self._layers)
            self._unread = self._unread[self._step :]
            return [], []
        mx = self._mx
        logits = self._model(self._inputs[None], cache=[*self._layers, *self._rows])[:, -1, :]
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        self._inputs = mx.argmax(logprobs, axis=-1) if self._sampler is None else self._sampler(logprobs)
        mx.eval(self._inputs, logprobs)
        token = int(self._inputs.item())
        self._rest -= 1
        reason = "stop" if token in self._ends else None if self._rest else "length"
        response = _Response(self._count, token, logprobs[0], reason)
        if reason is not None:
            self.remove([self._count])
        return [], [response]

    def remove(self, uids: Sequence[int]) -> None:
        """End the sequence."""
        self._rest, self._layers, self._rows = 0, [], []

    def close(self) -> None:
        """Nothing is held."""
