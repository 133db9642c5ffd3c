"""The arguments of a call on an LLM: how many generations, and the generation parameters in force."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from stillhouse.errors import ConfigurationError

__all__ = ["check_num_generations", "checked_arguments", "effective_arguments"]


def check_num_generations(num_generations: Any) -> None:
    """Reject a `num_generations` that is not a positive whole number."""
    if not isinstance(num_generations, int) or isinstance(num_generations, bool) or num_generations < 1:
        raise ConfigurationError(
            f"num_generations is {num_generations!r}", hint="give a whole number of at least 1"
        )


class Callee(Protocol):
    """The members of an LLM that the beginning of a call uses."""

    def require_loaded(self) -> None: ...

    def get_generation_kwargs(self) -> dict[str, Any]: ...

    def check_arguments(self, arguments: dict[str, Any]) -> dict[str, Any]: ...


def effective_arguments(llm: Callee, num_generations: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checked generation parameters of a call; a given one wins over the LLM's own.

    Raises:
        ConfigurationError: the LLM is not loaded, or an argument has a wrong name or value.
    """
    check_num_generations(num_generations)
    llm.require_loaded()
    return checked_arguments(llm, num_generations, given)


def checked_arguments(llm: Callee, num_generations: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """As `effective_arguments`, of an LLM that need not be loaded: others generate for it."""
    check_num_generations(num_generations)
    return llm.check_arguments({**llm.get_generation_kwargs(), **given})
