"""Sequences one at a time, for models that mlx-lm does not compute rightly in a batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stillhouse_mlx.library import Library

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
        library: the library.
        model: of mlx-lm.
        ends: the tokens that end a sequence.
        read: see `Prefixes`.
    """

    def __init__(
        self,
        library: Library,
        model: Any,
        ends: Sequence[int],
        read: Callable[[list[int], list[Any] | None], list[Any]],
    ) -> None:
        self._mx = library.mx
        self._model = model
        self._ends = frozenset(ends)
        self._read = read
        self._count = 0
        self._rest = 0
        self._inputs: Any = None
        self._cache: list[Any] | None = None
        self._sampler: Any = None
        self._processors: list[Any] = []

    def insert(
        self,
        prompts: Sequence[list[int]],
        max_tokens: Sequence[int],
        caches: Sequence[list[Any] | None],
        samplers: Sequence[Any],
        logits_processors: Sequence[list[Any]],
    ) -> list[int]:
        """Begin a sequence, the only one."""
        (prompt,) = prompts
        cache = copy.deepcopy(caches[0])
        self._count += 1
        self._cache = self._read(prompt[:-1], cache)
        self._inputs = self._mx.array(prompt[-1:])
        self._rest = max_tokens[0]
        self._sampler, self._processors = samplers[0], logits_processors[0]
        return [self._count]

    def next(self) -> tuple[list[Any], list[_Response]]:
        """The next token."""
        if not self._rest:
            return [], []
        mx = self._mx
        logits = self._model(self._inputs[None], cache=self._cache)[:, -1, :]
        for processor in self._processors:
            logits = processor(None, logits)
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
        self._rest, self._cache = 0, None

    def close(self) -> None:
        """Nothing is held."""
