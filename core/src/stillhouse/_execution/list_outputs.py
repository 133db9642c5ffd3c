"""`Outputs`: the outputs of a list of inputs, of which the first error ends the call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from stillhouse._execution.call import Call, Result
from stillhouse.errors import GenerationError
from stillhouse.typing import GenerateOutput

__all__ = ["Outputs", "finished_outputs"]


def finished_outputs(error: Exception, count: int) -> list[GenerateOutput | None]:
    """The outputs that an error of a call with `count` inputs carries: an entry per input."""
    if isinstance(error, GenerationError) and len(error.outputs) == count and count > 1:
        return list(error.outputs)
    return [None] * count


class Outputs:
    """Collects the outputs of a list of inputs, until all have come in or one has failed."""

    def __init__(self, count: int) -> None:
        self._outputs: list[GenerateOutput | None] = [None] * count
        self.error: Exception | None = None

    def take(self, batch: Iterable[Result], call: Call | None = None) -> None:
        """Add results; `call`, if given, ends them first."""
        for index, input, result, seconds in batch:
            if call is not None:
                result = call.end(index, input, result, seconds)
            if not isinstance(result, Exception):
                self._outputs[index] = result
            elif self.error is None:
                self.error = result

    def finish(self, remaining: Iterable[Result], call: Call | None = None) -> list[GenerateOutput]:
        """Return the outputs; if one failed, raise its error with the others."""
        self.take(remaining, call)
        if self.error is None:
            return cast("list[GenerateOutput]", self._outputs)
        error = GenerationError.wrap(self.error)
        error.outputs = self._outputs
        raise error
