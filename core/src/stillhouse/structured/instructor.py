"""Structured output through `instructor`: a wrapped client that validates answers and retries.

It is for backends whose provider has no mode of its own that honours a JSON schema. `instructor`
itself is imported when it is first used.
"""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import json
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from stillhouse._wording import install_command
from stillhouse.errors import ConfigurationError, UnsupportedError, near_matches
from stillhouse.structured.answers import value_problem
from stillhouse.structured.shape import normalize_structured_output
from stillhouse.typing import StructuredOutput

__all__ = ["check_mode", "prepare_kwargs", "response_model", "wrap_client"]

# The function of instructor that wraps an asynchronous client of each framework, and what it needs.
_WRAPPERS: dict[str, tuple[str, dict[str, Any]]] = {
    "anthropic": ("from_anthropic", {}),
    "azure_openai": ("from_openai", {}),
    "cohere": ("from_cohere", {}),
    "groq": ("from_groq", {}),
    "litellm": ("from_litellm", {}),
    "mistral": ("from_mistral", {"use_async": True}),
    "openai": ("from_openai", {}),
}


def wrap_client(structured_output: Any, client: Any, framework: str | None) -> dict[str, Any]:
    """A client that takes `response_model`, and the structured output in its one shape.

    `client` itself is neither replaced nor changed: plain calls go on using it. It may also be a
    coroutine function that takes the fields of one request and returns the answer as an object of
    the framework's SDK; what is returned is then such a function too.

    Returns:
        A dict with `client` and `structured_output`.

    Raises:
        ConfigurationError: instructor is missing, or the framework or the mode is unknown.
        UnsupportedError: the form is no JSON schema.
    """
    normal = _json_form(structured_output)
    if framework not in _WRAPPERS:
        raise ConfigurationError(
            f"instructor is not used with the framework {framework!r}",
            hint=near_matches(str(framework), _WRAPPERS),
        )
    instructor = _import("instructor")
    name, settings = _WRAPPERS[framework]
    settings = dict(settings)
    mode = normal.get("mode")
    if mode is not None:
        settings["mode"] = _mode(instructor, mode)
    wrap: Callable[..., Any] = getattr(instructor, name)
    if inspect.iscoroutinefunction(client):
        settings["provider"] = instructor.Provider(framework)
        wrap = functools.partial(instructor.patch, create=client)
        return {"client": wrap(**settings), "structured_output": normal}
    return {"client": wrap(client, **settings), "structured_output": normal}


def check_mode(structured_output: Any, framework: str) -> None:
    """Reject a mode that instructor does not support for this framework.

    Raises:
        ConfigurationError: instructor does not support the mode for this framework, or is missing.
        UnsupportedError: the form is no JSON schema of an object.
    """
    normal = _json_form(structured_output)
    response_model(normal["schema"])
    instructor, mode = _import("instructor"), str(normal.get("mode"))

    async def nothing(**_: Any) -> None:
        """Stands for a client."""

    def suits(item: Any) -> bool:
        # Only one object in one answer is requested, through the chat API.
        if item.value.startswith("responses") or "parallel" in item.value:
            return False
        try:
            instructor.patch(create=nothing, mode=item, provider=instructor.Provider(framework))
        except Exception:
            return False
        return True

    if not suits(_mode(instructor, mode)):
        raise ConfigurationError(
            f"instructor has no mode {mode!r} for {framework}",
            hint=f"use one of {', '.join(item.value for item in instructor.Mode if suits(item))}",
        )


def _mode(instructor: Any, name: str) -> Any:
    modes = {item.value: item for item in instructor.Mode}
    if name.lower() not in modes:
        raise ConfigurationError(f"instructor has no mode {name!r}", hint=near_matches(name, modes))
    return modes[name.lower()]


def prepare_kwargs(arguments: dict[str, Any], structured_output: Any) -> dict[str, Any]:
    """The arguments of a call on a wrapped client; without a structured output, as they are.

    Raises:
        ConfigurationError: the structured output has another shape.
        UnsupportedError: instructor cannot honour it.
    """
    if structured_output is None:
        return dict(arguments)
    normal = _json_form(structured_output)
    return {
        **arguments,
        "response_model": response_model(normal["schema"]),
        "max_retries": normal.get("max_retries", 1),
    }


def _json_form(structured_output: Any) -> StructuredOutput:
    normal = normalize_structured_output(structured_output)
    if normal is None or normal["format"] != "json":
        raise UnsupportedError("instructor honours JSON schemas only", hint='give {"format": "json", …}')
    return normal


def response_model(schema: dict[str, Any]) -> type[BaseModel]:
    """A pydantic class with exactly this JSON schema: enums, constraints and references included.

    An instance is validated against the schema, and its `model_dump_json()` is the answer.

    Raises:
        ConfigurationError: jsonschema is missing, or the schema is not valid.
        UnsupportedError: the schema is not of an object.
    """
    # Classes are kept: making one takes longer than a request, and instructor keeps them too.
    return _response_model(json.dumps(schema))


@functools.lru_cache(maxsize=256)
def _response_model(schema: str) -> type[BaseModel]:
    kept = _with_root(json.loads(schema))
    if kept.get("type") != "object":
        raise UnsupportedError(
            "instructor honours a schema only if it is of an object", hint='wrap it: {"type": "object", …}'
        )
    problem = value_problem(kept)

    class Answer(BaseModel):
        model_config = ConfigDict(extra="allow", protected_namespaces=())

        @model_validator(mode="before")
        @classmethod
        def _holds(cls, value: Any) -> Any:
            found = problem(value)
            if found:
                raise ValueError(found)
            return value

        @classmethod
        def model_json_schema(cls, *_: Any, **__: Any) -> dict[str, Any]:
            return copy.deepcopy(kept)

    Answer.__name__ = Answer.__qualname__ = str(kept.get("title") or "Answer")
    Answer.__doc__ = kept.get("description")
    return Answer


def _with_root(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema whose top is a reference, as that of a recursive class is, with what it refers to."""
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        root = schema.get("$defs", {}).get(reference.removeprefix("#/$defs/"))
        if isinstance(root, dict):
            return {**root, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigurationError(
            f"this structured output needs {name}", hint=install_command("stillhouse[instructor]")
        ) from None
