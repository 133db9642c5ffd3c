"""One call on an LLM, for a list or a stream of inputs: arguments, hooks and results."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

from stillhouse._execution import messages
from stillhouse._execution.bugs import backend_name, report_bug, wrapped
from stillhouse._execution.shown import ReadOnlyDict, shown
from stillhouse._settings.redaction import Redactor, named_secrets
from stillhouse.errors import (
    ERROR_KINDS,
    ConfigurationError,
    GenerationError,
    StillhouseError,
    UnsupportedError,
    described,
)
from stillhouse.outputs import check_output
from stillhouse.protocols import HookCalls, Row, RowInputs
from stillhouse.typing import GenerateOutput

__all__ = [
    "Call", "Finished", "Group", "InForce", "OnError", "Result",
    "finish_group", "result_of", "unchecked",
]  # fmt: skip

Result = tuple[int, Any, Any, float]
"""The index of an input, the input, its output or exception, and the duration in seconds."""

OnError = Literal["raise", "yield"]


class Finished(NamedTuple):
    """The result of one input.

    Attributes:
        input_index: the index of the input.
        result: its output, or its error.
        seconds: the duration of the call, which may be one call for a whole list; 0 without a call.
    """

    input_index: int
    result: GenerateOutput | GenerationError
    seconds: float


class InForce:
    """The arguments that apply to all inputs with the same arguments.

    Attributes:
        arguments: the generation parameters.
        shown: the read-only dict for hooks, one for all these inputs.
    """

    __slots__ = ("arguments", "shown")

    def __init__(self, arguments: dict[str, Any], *, has_hooks: bool) -> None:
        self.arguments = arguments
        self.shown = ReadOnlyDict(shown(arguments)) if has_hooks else ReadOnlyDict()


class Group(NamedTuple):
    """The inputs of one call.

    Attributes:
        members: the original inputs, with their indexes.
        inputs: the inputs for the backend.
        arguments: the generation parameters, the same for all of them.
    """

    members: list[tuple[int, Any]]
    inputs: list[Any]
    arguments: dict[str, Any]


def unchecked(_: Any) -> None:
    """Accept any input: the executor checks it."""


class Call:
    """One call: its arguments, which are checked once, and the hooks, which are looked up once.

    Without hooks, a row costs only the checks of its input and its output.

    Args:
        llm: the LLM, which hooks receive.
        num_generations: the number of generations for each input, at least 1.
        arguments: the checked generation parameters.
        hooks: the installed hooks.
        check_input: rejects an input that the LLM does not support.
        redactor: returns an object that masks the LLM's secrets in errors.
    """

    def __init__(
        self,
        llm: object,
        num_generations: int,
        arguments: dict[str, Any],
        hooks: HookCalls,
        check_input: Callable[[Any], None],
        redactor: Callable[[], Redactor],
    ) -> None:
        self.llm = llm
        self.num_generations = num_generations
        self.arguments = arguments
        self._before = hooks.before_generate if hooks.before else None
        self._after = hooks.after_generate if hooks.after else None
        self.has_hooks = not hooks.empty
        # One object for all inputs, so that a hook can identify the call of an input.
        self._in_force = InForce(arguments, has_hooks=self.has_hooks)
        self._row_at: Callable[[int], Row | None] | None = None
        self._check_input = check_input
        self._find_redactor = redactor
        self._redactor: Redactor | None = None
        self._name = type(llm).__name__
        self._full_name = ""  # looked up for the first bug
        self._shows = messages.are_shown(llm)
        # Inputs that a hook answered, until `end`. If the caller stops early, they stay here.
        self._answered: set[int] = set()

    def follow(self, inputs: object) -> None:
        """Pass the row of each input to hooks, if the inputs were made from rows."""
        if self.has_hooks and isinstance(inputs, RowInputs):
            self._row_at = inputs.row_at

    def begin(self, index: int, input: Any, own: InForce | None = None) -> Any:
        """Return the result of an input that needs no request, or `None`.

        It is a hook's answer, the error of a rejected input, or the input itself if that is an error.

        Args:
            index: the index of the input.
            input: the input.
            own: the input's own arguments, if they differ from those of the call.
        """
        if isinstance(input, GenerationError):
            return input
        try:
            self._check_input(input)
        except Exception as error:  # including an unexpected one from a backend's own check
            return error
        answer = None
        if self._before is not None:
            row = None if self._row_at is None else self._row_at(index)
            arguments = (own or self._in_force).shown
            answer = self._before(self.llm, input, self.num_generations, arguments, row)
            if answer is not None and self._after is not None:
                self._answered.add(index)
        if self._shows and answer is None:
            self._show(">", index, [input, (own or self._in_force).arguments], own)
        return answer

    def end(
        self, index: int, input: Any, result: Any, seconds: float, own: InForce | None = None
    ) -> GenerateOutput | Exception:
        """Check the result of an input, which took `seconds`, pass it to hooks, and return it."""
        if not isinstance(result, Exception):
            try:
                result = check_output(result, self.num_generations, self._name)
            except GenerationError as error:
                result = error
        if isinstance(result, Exception):
            result = self._judge(result, own)
        if self._shows and not isinstance(input, GenerationError):
            self._show("<", index, result, own)
        if self._after is not None:
            self._observe(index, input, result, seconds, own)
        checked: GenerateOutput | Exception = result
        return checked

    def grouped(self, inputs: list[tuple[int, Any]]) -> Iterable[Group]:
        """Split inputs, with their indexes, into groups for one call each; here into one group."""
        return [Group(inputs, [input for _, input in inputs], self.arguments)]

    def _judge(self, error: Exception, own: InForce | None) -> Exception:
        """Return an error with everything known about it, and without secrets."""
        if not isinstance(error, StillhouseError):  # the message of another class may be read-only
            self._full_name = self._full_name or backend_name(self.llm)
            error = wrapped(error, self.llm, self._full_name)
        if isinstance(error, GenerationError) and error.kind not in ERROR_KINDS:
            error.kind = "unknown"
        redactor = self._secrets(own)
        redactor.redact_error(error)
        report_bug(error, redactor)
        return error

    def _secrets(self, own: InForce | None) -> Redactor:
        if self._redactor is None:
            self._redactor = self._find_redactor().with_secrets(named_secrets(self.arguments))
        return self._redactor if own is None else self._redactor.with_secrets(named_secrets(own.arguments))

    def _show(self, sign: str, index: int, value: Any, own: InForce | None) -> None:
        head = f"{sign} {self._name}, input {index + 1}:"
        messages.show(head, messages.as_text(value), self._secrets(own).redact)

    def _observe(self, index: int, input: Any, result: Any, seconds: float, own: InForce | None) -> None:
        """Pass the result of an input to hooks. An input that could not be made is passed as `None`."""
        assert self._after is not None
        seen = GenerationError.wrap(result) if isinstance(result, Exception) else result
        from_hook = index in self._answered
        self._answered.discard(index)
        self._after(
            self.llm,
            None if isinstance(input, GenerationError) else input,
            self.num_generations,
            (own or self._in_force).shown,
            seen,
            from_hook,
            None if self._row_at is None else self._row_at(index),
            seconds,
        )

    def check_length(self, outputs: Sequence[Any], expected: int) -> None:
        """Check that each input has an output.

        Raises:
            GenerationError: the number of outputs is wrong.
        """
        if len(outputs) != expected:
            raise GenerationError(
                f"{self._name} returned {len(outputs)} outputs for {expected} inputs",
                outputs=outputs,
                hint="report it to the authors of the backend",
            )


def finish_group(
    call: Call, group: Iterable[Result], on_error: OnError
) -> tuple[list[Finished], Exception | None]:
    """Check the results of some inputs and pass them to hooks.

    Returns:
        The results to return to the caller, and the error to raise after them or `None`. With `raise`,
        results after the error are not returned; with `yield`, everything that was paid for is returned.
    """
    finished: list[Finished] = []
    fatal: Exception | None = None
    for index, input, result, seconds in group:
        ended = call.end(index, input, result, seconds)
        if isinstance(ended, Exception):
            failure = GenerationError.wrap(ended)
            if on_error == "raise" or failure.stops_run:
                if fatal is None:
                    fatal = ended if isinstance(ended, (ConfigurationError, UnsupportedError)) else failure
                if on_error == "raise":
                    break
                continue
            ended = failure
        finished.append(Finished(index, ended, seconds))
    return finished, fatal


def result_of(error: BaseException, call: object) -> Exception:
    """Return what a call raised as the result of its input."""
    if isinstance(error, asyncio.CancelledError):
        return GenerationError("the backend cancelled its own request")
    if not isinstance(error, Exception):  # `SystemExit`, or the panic of a library written in Rust
        return RuntimeError(described(error)).with_traceback(error.__traceback__)
    trace = error.__traceback__
    if isinstance(error, TypeError) and trace and trace.tb_next is None and "await" in str(error):
        # It was raised here, by the `await`, and every further input would raise it too.
        function = getattr(call, "func", call)
        name = getattr(function, "__qualname__", "agenerate")
        return GenerationError(
            f"{name} returned something that cannot be awaited",
            attempts=0,
            stops_run=True,
            hint="write it as async def",
        )
    return error
