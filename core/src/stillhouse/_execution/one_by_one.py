"""A list of inputs through a synchronous `generate`: one call for all, or one for each that failed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from stillhouse._execution.call import Call, Result
from stillhouse._execution.exits import is_from_signal
from stillhouse._execution.lifecycle import refuse_awaitable
from stillhouse._execution.list_outputs import finished_outputs
from stillhouse._execution.stopping import current_stop
from stillhouse.errors import ConfigurationError, GenerationError, UnsupportedError, described
from stillhouse.typing import GenerateOutput

__all__ = ["ask_group", "generate_list"]

Generate = Callable[..., list[GenerateOutput]]
"""The `generate` of a backend: inputs, num_generations, generation parameters."""

_DROPPED: Any = object()
"""Stands for the result of an input that was not asked for because the run stops."""

_PLAIN = "write it as def, or derive the class from stillhouse.AsyncLLM and write async def agenerate"


def generate_list(call: Call, generate: Generate, inputs: Sequence[Any]) -> list[GenerateOutput]:
    """Generate for a list of inputs.

    Raises:
        GenerationError: an input failed; `outputs` holds what was finished.
    """
    group, failure = ask_group(call, generate, list(enumerate(inputs)), isolate=False)
    ended: list[Any] = [call.end(*result) for result in group]
    failure = failure or next((item for item in ended if isinstance(item, Exception)), None)
    if failure is None:
        return ended
    assert isinstance(failure, Exception)  # there was one call
    wrapped = GenerationError.wrap(failure)
    wrapped.outputs = [None if isinstance(item, Exception) else item for item in ended]
    raise wrapped


def ask_group(
    call: Call, generate: Generate, group: Sequence[tuple[int, Any]], *, isolate: bool
) -> tuple[list[Result], BaseException | None]:
    """Begin each input, and call `generate` for those that have no result yet.

    Args:
        call: the call that they belong to.
        generate: the backend's.
        group: the inputs, with their indexes.
        isolate: after a failure, call it again for each unfinished input by itself.

    Returns:
        The results, which are not ended yet, and the error of `generate` or `None`. One that is no
            `Exception` interrupted the work between two calls, and is to be raised after the results.

    Raises:
        CancelledError: the run stops.
    """
    current_stop.get().check()
    results = {index: call.begin(index, input) for index, input in group}
    pending = [(index, input) for index, input in group if results[index] is None]
    times: dict[int, float] = {}
    failure: BaseException | None = None
    for members, inputs, arguments in call.grouped(pending):
        started = perf_counter()
        try:
            if times:  # what was asked for so far is paid for
                current_stop.get().check()
            outputs, failure = _ask(call, generate, inputs, arguments, isolate)
        except BaseException as raised:
            if not times:
                raise
            failure = raised
            break
        seconds = perf_counter() - started
        for (index, _), output in zip(members, outputs, strict=True):
            results[index], times[index] = output, seconds
        if failure is not None and (not isolate or _stops_run(failure)):
            break
    for index, _ in pending:
        if results[index] is None and failure is not None:  # it was not asked for, after such a failure
            results[index] = failure if isinstance(failure, Exception) else _DROPPED
    ended = [(index, input, results[index], times.get(index, 0.0)) for index, input in group]
    return [result for result in ended if result[2] is not _DROPPED], failure


def _ask(
    call: Call, generate: Generate, inputs: list[Any], arguments: dict[str, Any], isolate: bool
) -> tuple[list[Any], Exception | None]:
    """An output or an error for each input, and the error of the call for all of them."""
    if not inputs:
        return [], None
    try:
        outputs = generate(inputs, call.num_generations, **arguments)
        if type(outputs) is not list:
            _refuse_coroutine(outputs, call.llm)
        call.check_length(outputs, len(inputs))
        return list(outputs), None
    except BaseException as raised:
        stop = current_stop.get()
        if is_from_signal(raised) or (stop.requested and isinstance(raised, asyncio.CancelledError)):
            raise
        # `SystemExit`, or the panic of a library written in Rust, is of these inputs alone, too.
        error = raised
        if not isinstance(error, Exception):
            error = RuntimeError(described(raised)).with_traceback(raised.__traceback__)
        finished: list[Any] = finished_outputs(error, len(inputs))
        if _stops_run(error) or not isolate or len(inputs) == 1:
            return [error if output is None else output for output in finished], error
        for position, input in enumerate(inputs):
            if finished[position] is None and stop.requested:
                finished[position] = _DROPPED
            elif finished[position] is None:
                (result,), _ = _ask(call, generate, [input], arguments, isolate)
                finished[position] = result
                if _stops_run(result):
                    return [result if output is None else output for output in finished], error
        return finished, error


def _refuse_coroutine(outputs: object, llm: object) -> None:
    """Stop at a `generate` that is a coroutine: it would be one for every further input too."""
    try:
        refuse_awaitable(outputs, llm, "generate", _PLAIN)
    except ConfigurationError as error:
        raise GenerationError(error.message, attempts=0, stops_run=True, hint=error.hint) from None


def _stops_run(result: Any) -> bool:
    return isinstance(result, (GenerationError, UnsupportedError)) and result.stops_run
