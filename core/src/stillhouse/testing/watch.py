"""`watching`: records the calls of one LLM: their inputs, how many at once, how they ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from stillhouse.async_llm import AsyncLLM
from stillhouse.llm import LLM

__all__ = ["Watch", "watching"]


@dataclass
class Watch:
    """The calls of `generate`, or of `agenerate`.

    Attributes:
        inputs: what each call was for: a list of inputs, or one input.
        arguments: the generation parameters of each call.
        seconds: how long each call of the backend's own method took.
        in_flight: how many calls have begun and not ended.
        most: its maximum.
        finished: how many returned.
        cancelled: how many were cancelled.
        outputs: what the backend's own method returned, before the contract mends it.
    """

    inputs: list[Any] = field(default_factory=list)
    arguments: list[dict[str, Any]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    in_flight: int = 0
    most: int = 0
    finished: int = 0
    cancelled: int = 0
    outputs: list[Any] = field(default_factory=list)

    @property
    def calls(self) -> int:
        return len(self.inputs)

    def _begin(self, input: Any, arguments: dict[str, Any]) -> None:
        self.inputs.append(input)
        self.arguments.append(arguments)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)


@contextlib.contextmanager
def watching(llm: LLM, before: Callable[[Any], Awaitable[None]] | None = None) -> Iterator[Watch]:
    """Watch the calls of `generate` (of `agenerate` for an `AsyncLLM`) inside this context.

    Args:
        llm: the LLM; its class stays as it is.
        before: awaited in each call of `agenerate`, with the input, before the backend's own begins.
    """
    watch = Watch()
    name = "agenerate" if isinstance(llm, AsyncLLM) else "generate"
    original = getattr(llm, name)

    def generate(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        watch._begin(inputs, kwargs)
        began = monotonic()
        try:
            outputs = original(inputs, *args, **kwargs)
            watch.finished += 1
            watch.outputs += outputs if isinstance(outputs, (list, tuple)) else [outputs]
            return outputs
        finally:
            watch.seconds.append(monotonic() - began)
            watch.in_flight -= 1

    async def agenerate(input: Any, *args: Any, **kwargs: Any) -> Any:
        watch._begin(input, kwargs)
        try:
            if before is not None:
                await before(input)
            began = monotonic()
            output = await original(input, *args, **kwargs)
            watch.seconds.append(monotonic() - began)
            watch.finished += 1
            watch.outputs.append(output)
            return output
        except asyncio.CancelledError:
            watch.cancelled += 1
            raise
        finally:
            watch.in_flight -= 1

    # In the instance, not the class: the method that the contract calls is found there first.
    llm.__dict__[name] = agenerate if name == "agenerate" else generate
    try:
        yield watch
    finally:
        llm.__dict__.pop(name, None)
