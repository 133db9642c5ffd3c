"""One call on an LLM, for a list or a stream of inputs: what is settled once, what for each input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.outputs import check_output
from stillhouse.typing import GenerateOutput

if TYPE_CHECKING:
    from stillhouse.llm import LLM

__all__ = ["Call", "check_num_generations"]


def check_num_generations(num_generations: Any) -> None:
    """Refuse a number of generations that is none."""
    if not isinstance(num_generations, int) or isinstance(num_generations, bool) or num_generations < 1:
        raise ConfigurationError(
            f"num_generations is {num_generations!r}", hint="give a whole number of at least 1"
        )


class Call:
    """The arguments in force, checked once, and the hooks, looked up once.

    Without hooks, a row costs the check of its input and of its output.

    Attributes:
        arguments: the generation parameters in force; an explicit one wins over the LLM's own.
    """

    def __init__(self, llm: LLM, num_generations: int, kwargs: Mapping[str, Any]) -> None:
        check_num_generations(num_generations)
        llm.require_loaded()
        self.llm = llm
        self.num_generations = num_generations
        self.arguments = llm.check_arguments({**llm.get_generation_kwargs(), **kwargs})
        hooks = llm.registry.hooks()
        self._before = hooks.before_generate if hooks.before else None
        self._after = hooks.after_generate if hooks.after else None
        self.has_hooks = not hooks.empty
        self._check_input = llm.check_input
        self._name = type(llm).__name__
        self._answered: set[int] = set()

    def begin(self, index: int, input: Any) -> Any:
        """The result of an input that needs no call, or `None`.

        That is a hook's answer, or the error of an input that is refused. An input that is itself
        an error is its own result.
        """
        if isinstance(input, GenerationError):
            return input
        try:
            self._check_input(input)
        except Exception as error:  # also one that a backend's own check did not mean to raise
            return error
        if self._before is None:
            return None
        answer = self._before(self.llm, input, self.num_generations, self.arguments)
        if answer is not None and self._after is not None:
            self._answered.add(index)
        return answer

    def end(self, index: int, input: Any, result: Any) -> GenerateOutput | Exception:
        """The result of an input, checked, after the hooks have seen it."""
        if not isinstance(result, Exception):
            try:
                check_output(result, self.num_generations, self._name)
            except GenerationError as error:
                result = error
        if self._after is not None and not isinstance(input, GenerationError):
            seen = GenerationError.wrap(result) if isinstance(result, Exception) else result
            from_hook = index in self._answered
            self._answered.discard(index)
            self._after(self.llm, input, self.num_generations, self.arguments, seen, from_hook)
        checked: GenerateOutput | Exception = result
        return checked
