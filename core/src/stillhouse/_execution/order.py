"""`Order`: many inputs in the order that an engine prefers, and their outputs put back in their own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.protocols import InputWithArguments

__all__ = ["Order", "sort_key"]

T = TypeVar("T")

BatchKey = Callable[[Any], Any]
"""The `batch_key` of an LLM."""

_MOST = 2**63 - 1


def sort_key(batch_key: BatchKey, input: Any) -> int | bytes | None:
    """Return the key of an input as a database sorts it: none first, then numbers, then texts.

    An input for which no key can be made has none: it is refused, or fails, by itself later.

    Raises:
        ConfigurationError: the backend gives something that is no key.
    """
    if isinstance(input, InputWithArguments):
        input = input.input
    try:
        key = batch_key(input)
    except Exception:  # as whatever else a backend finds wrong with one input
        return None
    if isinstance(key, str):
        return key.encode("utf-8", "surrogatepass")
    if isinstance(key, int):
        return max(-_MOST, min(int(key), _MOST))
    if key is not None:
        raise ConfigurationError(
            f"batch_key returned a {type(key).__name__}, by which nothing is put in order",
            hint="return a whole number, a text, or None",
        )
    return None


def _comparable(key: int | bytes | None) -> tuple[int, Any]:
    return (0, 0) if key is None else (1, key) if isinstance(key, int) else (2, key)


class Order:
    """The order of a list of inputs. Those with the same key stay in theirs.

    Args:
        batch_key: the `batch_key` of the LLM.
        inputs: the inputs.
    """

    def __init__(self, batch_key: BatchKey, inputs: Sequence[Any]) -> None:
        keys = [_comparable(sort_key(batch_key, input)) for input in inputs]
        self._places = sorted(range(len(keys)), key=keys.__getitem__)

    def arranged(self, inputs: Sequence[T]) -> list[T]:
        """Return the inputs in this order."""
        return [inputs[place] for place in self._places]

    def restored(self, outputs: Sequence[T]) -> list[T]:
        """Return what belongs to the inputs in this order in their own."""
        put_back: list[Any] = [None] * len(self._places)
        for place, output in zip(self._places, outputs, strict=True):
            put_back[place] = output
        return put_back

    @contextlib.contextmanager
    def restoring(self) -> Iterator[None]:
        """Put the outputs of an error that leaves the block in the inputs' own order."""
        try:
            yield
        except GenerationError as error:
            if len(error.outputs) == len(self._places):
                error.outputs = self.restored(error.outputs)
            raise
