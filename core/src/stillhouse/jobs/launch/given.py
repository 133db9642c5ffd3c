"""The command of a run as it was given, in parts and without secrets, for people to read and repeat."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from stillhouse._settings.redaction import named_secrets
from stillhouse._settings.secrets import masked
from stillhouse.jobs.launch.options import Options
from stillhouse.jobs.sources.addresses import shown_address
from stillhouse.jobs.sources.names import names_of, shown
from stillhouse.llm import LLM

__all__ = ["assignment", "option_shown", "python_call", "without_secret_values"]

MAX_CHARACTERS = 2000
"""How much of one value is kept."""


def without_secret_values(
    parts: Sequence[Sequence[str]], llm: LLM, arguments: Mapping[str, Any]
) -> list[list[str]]:
    """Return the parts of a command without the secrets of an LLM and its arguments, of bounded length."""
    redactor = llm._redactor().with_secrets(named_secrets(arguments))
    return [[_cut(redactor.redact(text)) for text in part] for part in parts]


def assignment(text: str) -> str:
    """Return `NAME=VALUE` as the command has it, with the secrets in the value masked."""
    name, equals, value = text.partition("=")
    if not equals:
        return text
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        parsed = value
    shown_ = masked(name, parsed)
    if shown_ == parsed:
        return text
    return f"{name}={shown_ if isinstance(shown_, str) else json.dumps(shown_, ensure_ascii=False)}"


def option_shown(name: str, value: Any) -> Any:
    """Return the value of an option; of an address, the text without its secrets."""
    return shown_address(str(value)) if name == "state_copy" else value


def python_call(options: Options) -> list[list[str]]:
    """Return the call of `stillhouse.run` that gave some options, as one part."""
    return [[f"stillhouse.run({', '.join(_arguments(options))})"]]


def _arguments(options: Options) -> Iterator[str]:
    names = None
    if isinstance(options.input, (str, PathLike, list, tuple)):
        names = names_of(options.input)
    if names is None:
        yield f"<{type(options.input).__name__}>"
    else:
        yield repr([shown(name) for name in names] if len(names) > 1 else shown(names[0]))
    defaults = Options()
    for name in Options.__dataclass_fields__:
        value = getattr(options, name)
        if name in ("input", "param") or value == getattr(defaults, name):
            continue
        yield f"{name}={_value(name, option_shown(name, value))}"
    for name, value in options.param.items():
        yield f"{name}={_value(name, value)}"


def _value(name: str, value: Any) -> str:
    """Return a value as Python writes it, without secrets; an object that has no such form by its class."""
    if isinstance(value, LLM):
        return f"<{type(value).__name__} {value.model_name}>"
    if isinstance(value, Path):
        return repr(str(value))
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, (str, int, float, bool, Mapping, list, tuple)) or value is None:
        plain = masked(name, value)
        return _cut(repr(dict(plain) if isinstance(plain, Mapping) else plain))
    return f"<{type(value).__name__}>"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}…"
