"""Holding a loaded class to the contract. This is the one part of the registry that knows `LLM`."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any

from pydantic import SecretBytes, SecretStr, TypeAdapter
from pydantic.fields import FieldInfo

from stillhouse.async_llm import AsyncLLM
from stillhouse.llm import LLM
from stillhouse.parameters import generation_parameters
from stillhouse.registry.trouble import Trouble

__all__ = ["validate_llm"]

_SECRET_NAME = re.compile(r"(^|_)(api_?key|secret(_key)?|password|(access|auth|bearer)_token)$|^token$")
_REPORT_HINT = "this is for the authors of the package to correct; pip install --upgrade may bring it"


def validate_llm(cls: Any) -> Trouble | None:
    """The first rule of the contract that `cls` breaks, or `None`."""
    if not (inspect.isclass(cls) and issubclass(cls, LLM)):
        what = f"class {cls.__qualname__}" if inspect.isclass(cls) else f"{type(cls).__name__} object"
        return Trouble(
            "E203",
            f"the entry point leads to a {what}",
            "derive it from stillhouse.LLM or stillhouse.AsyncLLM",
        )
    abstract: frozenset[str] = getattr(cls, "__abstractmethods__", frozenset())
    if abstract:
        names = ", ".join(sorted(abstract))
        return Trouble("E204", f"{cls.__qualname__} does not implement {names}", f"implement {names}")
    for problem in _signature_problems(cls):
        return Trouble("E205", *problem)
    for problem in _description_problems(cls):
        return Trouble("E207", *problem)
    return None


def _where(function: Callable[..., Any]) -> str:
    try:
        code = inspect.unwrap(function).__code__
    except AttributeError:
        return ""
    path = PurePath(code.co_filename)
    return f" ({path.parent.name}/{path.name}:{code.co_firstlineno})"


def _signature_problems(cls: type[LLM]) -> Iterator[tuple[str, str]]:
    is_async = issubclass(cls, AsyncLLM)
    needs_count = cls.supports_num_generations() if issubclass(cls, AsyncLLM) else True
    name, inputs = ("agenerate", "input") if is_async else ("generate", "inputs")
    method = getattr(cls, name)
    subject = f"{cls.__qualname__}.{name}"
    if inspect.iscoroutinefunction(method) != is_async:
        must = "must be a coroutine: async def" if is_async else "must not be a coroutine"
        yield (
            f"{subject} {must}{_where(method)}",
            (
                f"write it as async def {name}(self, input, num_generations=1, …)"
                if is_async
                else "derive the class from stillhouse.AsyncLLM and implement agenerate"
            ),
        )
        return
    parameters = list(inspect.signature(method).parameters.values())
    wanted = f"write it as {name}(self, {inputs}, num_generations=1, …)"
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if len(parameters) < 2 or parameters[1].kind not in positional:
        yield f"{subject} takes no {inputs}{_where(method)}", wanted
        return
    is_open = any(item.kind is item.VAR_KEYWORD for item in parameters)
    by_name = {item.name: item for item in parameters}
    if needs_count and "num_generations" not in by_name and not is_open:
        yield f"{subject} takes no num_generations{_where(method)}", wanted
    for item in parameters[2:]:
        variadic = item.kind in (item.VAR_KEYWORD, item.VAR_POSITIONAL)
        if item.default is item.empty and not variadic and item.name != "num_generations":
            yield (
                f"{subject} requires {item.name}, which nobody passes{_where(method)}",
                f"give {item.name} a default",
            )


def _description_problems(cls: type[LLM]) -> Iterator[tuple[str, str]]:
    for name, field in cls.model_fields.items():
        if name == "llm":
            yield (
                f"{cls.__qualname__} has a field llm, under which files keep the backend's name",
                "rename the field",
            )
        if field.exclude:
            continue
        if _SECRET_NAME.search(name) and _holds_plain_text(field.annotation):
            yield (
                f"the field {name} of {cls.__qualname__} is a secret, but not a SecretStr",
                f"annotate it as {name}: SecretStr",
            )
        problem = _cannot_describe(field.annotation, field)
        if problem:
            yield (
                f"the field {name} of {cls.__qualname__} cannot be stored in a file: {problem}",
                "give it a type that JSON knows, make it a private attribute (_name), "
                "or declare it with Field(exclude=True)",
            )
    method: Any = cls.agenerate if issubclass(cls, AsyncLLM) else cls.generate
    try:
        parameters = generation_parameters(method)
    except Exception as error:
        yield f"the signature of {cls.__qualname__} cannot be read: {error}", _REPORT_HINT
        return
    for name, annotation in parameters.annotations.items():
        problem = _cannot_describe(annotation)
        if problem:
            yield (
                f"the generation parameter {name} of {cls.__qualname__} cannot be described: {problem}",
                "give it a type that JSON knows",
            )


def _holds_plain_text(annotation: Any) -> bool:
    arguments = typing.get_args(annotation)
    if not arguments:
        return annotation in (str, bytes)
    return any(_holds_plain_text(argument) for argument in arguments)


def _cannot_describe(annotation: Any, field: FieldInfo | None = None) -> str:
    """Why JSON cannot hold values of this type; empty if it can."""
    if _is_known(annotation):
        return ""
    try:
        described: Any = typing.Annotated[annotation, field] if field and field.metadata else annotation
        TypeAdapter(described).json_schema(mode="serialization")
    except Exception as error:
        return str(error).splitlines()[0].rstrip(".")
    return ""


def _is_known(annotation: Any) -> bool:
    """Types that the serialization of an LLM handles itself: LLMs and secrets, also in containers."""
    arguments = [item for item in typing.get_args(annotation) if item is not type(None)]
    if arguments and all(not isinstance(item, str) for item in arguments):
        kinds = [item for item in arguments if isinstance(item, type) or typing.get_args(item)]
        return bool(kinds) and any(_is_known(item) for item in kinds)
    return inspect.isclass(annotation) and issubclass(annotation, (LLM, SecretStr, SecretBytes))
