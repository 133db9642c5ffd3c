"""`pickled`: an LLM as bytes that a worker can read."""

from __future__ import annotations

import pickle
from typing import Any

from stillhouse.errors import ConfigurationError, described
from stillhouse.llm import LLM

__all__ = ["pickled"]


def pickled(llm: LLM) -> bytes:
    """Return an LLM as bytes that a worker can read.

    Raises:
        ConfigurationError: it cannot be pickled, or not read where its class is not defined.
    """
    cls = type(llm)
    if llm.is_loaded:
        raise ConfigurationError(
            f"{cls.__name__} is loaded, and each worker loads a copy of its own",
            hint="pass the LLM before it is loaded, outside a with block",
        )
    if cls.__module__ == "__main__":
        raise ConfigurationError(
            f"{cls.__name__} is defined in the script itself, which workers do not run",
            hint="move it to a module that the script imports",
        )
    if "<locals>" in cls.__qualname__:
        raise ConfigurationError(
            f"{cls.__name__} is defined in a function, where workers cannot find it",
            hint="move it to the top level of a module",
        )
    try:
        return pickle.dumps(llm, protocol=5)
    except Exception as error:
        field = next((name for name in cls.model_fields if not _pickles(getattr(llm, name))), None)
        what = cls.__name__ if field is None else f"the field {field} of {cls.__name__}"
        raise ConfigurationError(
            f"{what} cannot be pickled, so it cannot be sent to workers: {described(error)}",
            hint="create it in load(), or leave out --executor"
            if field is None
            else "use one that can be pickled, such as a name that load() looks up, or leave out --executor",
        ) from error


def _pickles(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True
