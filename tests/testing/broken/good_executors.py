"""An executor in the process of the run that keeps every rule: one copy of the LLM generates."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Generator
from typing import Any

from stillhouse import ConfigurationError, hookimpl


class Copy:
    """Generates with a copy of the LLM."""

    def __init__(self, llm: Any) -> None:
        self.llm = llm
        self.copy = self.copied(llm)
        self.copy.use_registry(llm.registry)

    def copied(self, llm: Any) -> Any:
        if llm.is_loaded:
            raise ConfigurationError("the LLM is loaded", hint="give one that is not")
        try:
            return pickle.loads(pickle.dumps(llm))
        except Exception as error:
            raise ConfigurationError(f"the LLM does not pickle: {error}", hint="give another") from error

    def __enter__(self) -> Any:
        self.copy.load()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.copy.unload()

    def check_input(self, input: Any) -> None:
        self.copy.check_input(input)

    def iter_finished(
        self,
        inputs: Any,
        num_generations: int = 1,
        *,
        on_error: Any = "raise",
        ordered: bool = True,
        **kwargs: Any,
    ) -> Generator[list[Any], None, None]:
        return self.copy.iter_finished(inputs, num_generations, on_error=on_error, ordered=ordered, **kwargs)  # type: ignore[no-any-return]


class Copies:
    """The plugin: its executor is `copy`."""

    executor: Callable[[Any], Any] = Copy

    @hookimpl
    def make_executor(self, name: str, llm: Any) -> Any:
        return type(self).executor(llm) if name == "copy" else None
