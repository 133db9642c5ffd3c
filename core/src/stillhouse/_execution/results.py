"""What became of inputs, as callers are given it: outputs, and errors that are raised or handed out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from stillhouse._execution.call import Call
from stillhouse.errors import ConfigurationError, GenerationError, UnsupportedError
from stillhouse.typing import GenerateOutput

__all__ = ["Finished", "OnError", "finished_outputs", "settled"]

OnError = Literal["raise", "yield"]


class Finished(NamedTuple):
    """What became of one input.

    Attributes:
        input_index: the index of the input.
        result: its output, or its error.
        seconds: how long the call took; that of the whole list where a list was one call, and 0
            where there was none.
    """

    input_index: int
    result: GenerateOutput | GenerationError
    seconds: float


def settled(
    call: Call, batch: Iterable[tuple[int, Any, Any, float]], on_error: OnError
) -> Iterator[list[Finished]]:
    """Results as `iter_finished` gives them out: those that came in, then the error that must be raised.

    With `raise`, what comes after the error is not given out; with `yield`, all that was paid is.
    """
    finished: list[Finished] = []
    fatal: Exception | None = None
    for index, input, result, seconds in batch:
        ended = call.end(index, input, result)
        if isinstance(ended, Exception):
            wrapped = GenerationError.wrap(ended)
            if on_error == "raise" or wrapped.stops_run:
                if fatal is None:
                    fatal = ended if isinstance(ended, (ConfigurationError, UnsupportedError)) else wrapped
                if on_error == "raise":
                    break
                continue
            ended = wrapped
        finished.append(Finished(index, ended, seconds))
    if finished:
        yield finished
    if fatal is not None:
        raise fatal


def finished_outputs(error: Exception, count: int) -> list[GenerateOutput | None]:
    """What an error of a call with `count` inputs says was finished: an entry per input."""
    if isinstance(error, GenerationError) and len(error.outputs) == count and count > 1:
        return list(error.outputs)
    return [None] * count
