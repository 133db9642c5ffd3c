"""Inputs with generation parameters of their own: how these are checked, once for equal ones, and sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from typing import Any

from stillhouse._execution.call import Call, Group, InForce
from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.protocols import InputWithArguments, RowInputs
from stillhouse.typing import GenerateOutput

__all__ = ["ArgumentsInForce", "CallWithOwnArguments", "calls_with_own_arguments", "have_arguments"]

MAX_REMEMBERED = 256
"""How many different sets of arguments are remembered: beyond them, one that comes again is checked again."""

Calls = Sequence[Callable[[Any], Awaitable[GenerateOutput]]]


def have_arguments(inputs: object) -> bool:
    """Whether some of these inputs may have arguments of their own."""
    return isinstance(inputs, RowInputs) and inputs.has_arguments


class ArgumentsInForce:
    """The arguments in force for inputs with some of their own; equal ones are checked once.

    Args:
        arguments: those of the call, checked.
        check: checks arguments, and converts their values to the declared types.
        has_hooks: whether hooks are shown them.
    """

    def __init__(
        self,
        arguments: dict[str, Any],
        check: Callable[[dict[str, Any]], dict[str, Any]],
        *,
        has_hooks: bool = False,
    ) -> None:
        self._arguments = arguments
        self._check = check
        self._has_hooks = has_hooks
        self._known: dict[Hashable, InForce] = {}

    def of(self, item: InputWithArguments) -> InForce:
        """Return the arguments in force for an input.

        Raises:
            GenerationError: one has a wrong name or value; of the kind `invalid_input`.
        """
        known = self._known.get(item.key)
        if known is None:
            try:
                checked = self._check({**self._arguments, **item.arguments})
            except ConfigurationError as error:
                raise GenerationError(
                    error.message, kind="invalid_input", attempts=0, hint=error.hint
                ) from error
            known = self._known[item.key] = InForce(checked, has_hooks=self._has_hooks)
            if len(self._known) > MAX_REMEMBERED:
                del self._known[next(iter(self._known))]
        return known


class CallWithOwnArguments(Call):
    """A call on inputs of which some have arguments of their own; the others are taken as they are."""

    def __init__(self, llm: Any, *args: Any) -> None:
        super().__init__(llm, *args)
        self._own = ArgumentsInForce(self.arguments, llm.check_arguments, has_hooks=self.has_hooks)

    def begin(self, index: int, input: Any, own: InForce | None = None) -> Any:
        if type(input) is not InputWithArguments:
            return super().begin(index, input)
        try:
            input._in_force = self._own.of(input)
        except Exception as error:  # also one that a backend's own check did not mean to raise
            return error
        return super().begin(index, input.input, input._in_force)

    def end(
        self, index: int, input: Any, result: Any, seconds: float, own: InForce | None = None
    ) -> GenerateOutput | Exception:
        if type(input) is not InputWithArguments:
            return super().end(index, input, result, seconds)
        return super().end(index, input.input, result, seconds, input._in_force)

    def grouped(self, inputs: list[tuple[int, Any]]) -> Iterable[Group]:
        groups: dict[int, Group] = {}
        for index, item in inputs:
            in_force = item._in_force if type(item) is InputWithArguments else self._in_force
            group = groups.get(id(in_force))
            if group is None:
                group = groups[id(in_force)] = Group([], [], in_force.arguments)
            group.members.append((index, item))
            group.inputs.append(item.input if type(item) is InputWithArguments else item)
        return groups.values()


class _OwnCall:
    """One of the calls for an input, with the arguments in force for it.

    Args:
        func: `agenerate`.
        given: what it is given besides them.
        number: which of the calls it is; a seed is raised by it.
        arguments: those in force for an input without any of its own.
    """

    def __init__(
        self, func: Callable[..., Any], given: dict[str, Any], number: int, arguments: dict[str, Any]
    ) -> None:
        self.func = func
        self._given = given
        self._number = number
        self._arguments = arguments

    def __call__(self, item: Any) -> Awaitable[GenerateOutput]:
        arguments = self._arguments
        if type(item) is InputWithArguments:
            item, arguments = item.input, item._in_force.arguments
        if self._number and arguments.get("seed") is not None:
            # one seed would give the same generation every time
            arguments = {**arguments, "seed": arguments["seed"] + self._number}
        made: Awaitable[GenerateOutput] = self.func(item, **self._given, **arguments)
        return made


def calls_with_own_arguments(
    agenerate: Callable[..., Any], num_generations: int, arguments: dict[str, Any], *, makes_several: bool
) -> Calls:
    """Return what makes the calls for an input which may have arguments of its own.

    Args:
        agenerate: the backend's.
        num_generations: how many generations of each input.
        arguments: those in force for an input without any of its own.
        makes_several: whether one call makes several generations.
    """
    if makes_several:
        return [_OwnCall(agenerate, {"num_generations": num_generations}, 0, arguments)]
    return [_OwnCall(agenerate, {}, number, arguments) for number in range(num_generations)]
