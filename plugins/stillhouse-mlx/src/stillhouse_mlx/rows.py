"""Which sequences the rows of a batch are.

mlx-lm puts sequences together, takes them out and puts them in another order, and neither says which sequence
a row of logits belongs to nor asks one sampler with what is known of each row. But it does to every part of a
cache whatever it does to the batch. So the cache of each sequence has one part more than the model has
layers, which remembers whose it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stillhouse_mlx.choosers import Chooser

__all__ = ["RowModel", "Rows"]


class Rows:
    """A part of a cache, with the methods of those in `mlx_lm.models.cache`. It holds no arrays.

    Args:
        choosers: of each row.
    """

    nbytes = 0
    state: tuple[Any, ...] = ()

    def __init__(self, choosers: Sequence[Chooser]) -> None:
        self.choosers = list(choosers)

    def __deepcopy__(self, memo: Any) -> Rows:
        return Rows(self.choosers)

    @classmethod
    def merge(cls, caches: Sequence[Rows]) -> Rows:
        """Return the rows of several batches, one after the other."""
        return cls([chooser for one in caches for chooser in one.choosers])

    def extend(self, other: Rows) -> None:
        """Add the rows of another batch."""
        self.choosers.extend(other.choosers)

    def filter(self, indices: Sequence[int]) -> None:
        """Keep these rows, in this order."""
        self.choosers = [self.choosers[index] for index in indices]

    def extract(self, index: int) -> Rows:
        """Return one row."""
        return Rows([self.choosers[index]])

    def prepare(self, **_: Any) -> None:
        """Padding changes nothing here."""

    def finalize(self) -> None:
        """Padding changes nothing here."""

    def size(self) -> int:
        """Return how many tokens there are, of which this part knows nothing."""
        return 0

    def empty(self) -> bool:
        """Whether there are no tokens."""
        return True


class RowModel:
    """A model that tells the sampler whose the rows are, and gives logits of 32 bits.

    With fewer bits, logits that differ become alike, and other tokens would be taken in one batch than in
    another.

    Args:
        mx: `mlx.core`.
        model: of mlx-lm.
    """

    def __init__(self, mx: Any, model: Any) -> None:
        self._float32 = mx.float32
        self._model = model
        self._step: tuple[list[Chooser], Any] | None = None

    def __call__(self, inputs: Any, cache: Sequence[Any]) -> Any:
        *layers, rows = cache
        logits = self._model(inputs, cache=layers).astype(self._float32)
        # While prompts are read, nobody wants the logits, and they are never computed.
        self._step = (rows.choosers, logits[:, -1, :]) if inputs.shape[1] == 1 else None
        return logits

    def take_step(self) -> tuple[list[Chooser], Any]:
        """Return whose the rows of the last step are, and its logits, `[rows, vocabulary]`."""
        step, self._step = self._step, None
        if step is None:
            raise RuntimeError("stillhouse-mlx does not support how this version of mlx-lm samples")
        return step
