"""Validating a loaded class against the contract. No other part of the registry knows `LLM`."""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import SecretBytes, SecretStr, TypeAdapter
from pydantic.fields import FieldInfo

from stillhouse._execution.lifecycle import is_wrapped
from stillhouse._settings.secrets import is_secret_name
from stillhouse.async_llm import AsyncLLM
from stillhouse.llm import LLM
from stillhouse.registry.problems import Problem, source_of
from stillhouse.typing import CAPABILITIES

__all__ = ["validate_llm"]


def validate_llm(cls: Any) -> Problem | None:
    """Return the first problem of a class with the contract, or `None`."""
    if not (inspect.isclass(cls) and issubclass(cls, LLM)):
        return Problem("E203", *_no_llm(cls))
    abstract: frozenset[str] = getattr(cls, "__abstractmethods__", frozenset())
    if abstract:
        names = ", ".join(sorted(abstract))
        return Problem(
            "E204", f"{cls.__qualname__} does not implement {names}{source_of(cls)}", f"implement {names}"
        )
    for problem in _signature_problems(cls):
        return Problem("E205", *problem)
    for problem in _member_problems(cls):
        return Problem("E205", *problem, summary="has a member that is not what the contract says")
    for problem in _description_problems(cls):
        return Problem("E207", *problem)
    return None


def _no_llm(item: Any) -> tuple[str, str]:
    if inspect.isclass(item):
        return (
            f"{item.__qualname__} is a class of another kind{source_of(item)}",
            "derive it from stillhouse.LLM or stillhouse.AsyncLLM",
        )
    if inspect.ismodule(item):
        what = f"the module {item.__name__}"
    elif inspect.isroutine(item):
        what = f"the function {item.__qualname__}{source_of(item)}"
    else:
        what = f"an object of the class {type(item).__qualname__}"
    return f"the entry point leads to {what}", "let the entry point name the class, as MODULE:CLASS"


def _signature_problems(cls: type[LLM]) -> Iterator[tuple[str, str]]:
    is_async = issubclass(cls, AsyncLLM)
    needs_count = cls.supports_num_generations() if issubclass(cls, AsyncLLM) else True
    name, inputs = ("agenerate", "input") if is_async else ("generate", "inputs")
    method = getattr(cls, name)
    subject, where = f"{cls.__qualname__}.{name}", source_of(method)
    wanted = f"write it as {'async ' * is_async}def {name}(self, {inputs}, num_generations=1, …)"
    if inspect.iscoroutinefunction(method) != is_async:
        if not is_async:
            wanted = "derive the class from stillhouse.AsyncLLM and implement agenerate"
        yield f"{subject} must {'' if is_async else 'not '}be a coroutine{where}", wanted
        return
    if inspect.isgeneratorfunction(method):
        yield f"{subject} yields, but must return a list{where}", "return a list of outputs"
        return
    parameters = list(inspect.signature(method).parameters.values())
    if any(item.kind is item.VAR_POSITIONAL for item in parameters[:2]):
        return  # a wrapper that takes whatever there is
    if len(parameters) < 2 or parameters[1].kind is parameters[1].KEYWORD_ONLY:
        yield f"{subject} takes no {inputs}{where}", wanted
        return
    if needs_count and not _takes_count(parameters, is_async):
        problem = "takes no num_generations"
        if any(item.name == "num_generations" for item in parameters):
            problem = f"does not take num_generations {'by name' if is_async else 'right after inputs'}"
        yield f"{subject} {problem}{where}", wanted
    for item in parameters[2:]:
        variadic = item.kind in (item.VAR_KEYWORD, item.VAR_POSITIONAL)
        if item.default is item.empty and not variadic and item.name != "num_generations":
            yield f"{subject} requires {item.name}, which nobody passes{where}", f"give {item.name} a default"


_PLAIN_METHODS = (
    "load",
    "unload",
    "generate",
    "offline_batch_generate",
    "get_generation_kwargs",
    "get_last_hidden_states",
    "list_models",
    "check_input",
    "set_runtime_parameters",
    "_prepare_structured_output",
)
"""What a backend may override and callers call without `await`."""


def _member_problems(cls: type[LLM]) -> Iterator[tuple[str, str]]:
    for name in _PLAIN_METHODS:
        method = getattr(cls, name)
        if _is_asynchronous(method):
            hint = f"write it as def {name}"
            if issubclass(cls, AsyncLLM):
                hint += ", and run what must be awaited with self.run_on_loop(coroutine)"
            yield (
                f"{cls.__qualname__}.{name} must not be a coroutine: nobody awaits it{source_of(method)}",
                hint,
            )
    yield from _capability_problems(cls)
    member = inspect.getattr_static(cls, "model_name")
    where = source_of(getattr(member, "fget", member))
    if inspect.isroutine(member):
        yield (
            f"{cls.__qualname__}.model_name is a method, and must be a property{where}",
            "write @property above def model_name(self)",
        )
    elif _is_asynchronous(getattr(member, "fget", None)):
        yield (
            f"{cls.__qualname__}.model_name must not be a coroutine: nobody awaits it{where}",
            "write it as def model_name(self), without a connection",
        )


def _capability_problems(cls: type[LLM]) -> Iterator[tuple[str, str]]:
    declared: Any = cls.capabilities
    subject = f"{cls.__qualname__}.capabilities"
    if isinstance(declared, str):
        yield (
            f"{subject} is the string {declared!r}, not a set of names{source_of(cls)}",
            f"write frozenset({{{declared!r}}})",
        )
    elif isinstance(declared, (set, frozenset, list, tuple)):  # a property depends on the settings
        unknown = sorted(str(name) for name in declared if name not in CAPABILITIES)
        if unknown:
            near = difflib.get_close_matches(unknown[0], CAPABILITIES, n=1)
            yield (
                f"{subject} has names that are not capabilities: {', '.join(unknown)}{source_of(cls)}",
                f"write {near[0]} for {unknown[0]}"
                if near
                else f"use names of {', '.join(sorted(CAPABILITIES))}",
            )


def _is_asynchronous(function: Any) -> bool:
    """Check for a coroutine function or an asynchronous generator, as its author wrote it."""
    if is_wrapped(function):
        function = inspect.unwrap(function, stop=lambda item: not is_wrapped(item))
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _takes_count(parameters: list[inspect.Parameter], by_name: bool) -> bool:
    """Check whether a method takes `num_generations`: `agenerate` by name, `generate` by position."""
    if by_name:
        return any(
            item.kind is item.VAR_KEYWORD
            or (item.name == "num_generations" and item.kind is not item.POSITIONAL_ONLY)
            for item in parameters
        )
    return len(parameters) > 2 and (
        parameters[2].kind is inspect.Parameter.VAR_POSITIONAL
        or (
            parameters[2].name == "num_generations"
            and parameters[2].kind is not inspect.Parameter.KEYWORD_ONLY
        )
    )


def _description_problems(cls: type[LLM]) -> Iterator[tuple[str, str]]:
    for name, field in cls.model_fields.items():
        if name == "llm":
            yield (
                f"{cls.__qualname__} has a field llm, under which files keep the backend's name"
                f"{_where_declared(cls, name)}",
                "rename the field",
            )
        if field.exclude:
            continue
        if is_secret_name(name) and _holds_plain_text(field.annotation):
            yield (
                f"the field {name} of {cls.__qualname__} holds a secret as plain text"
                f"{_where_declared(cls, name)}",
                f"annotate it as {name}: pydantic.SecretStr",
            )
        problem = _cannot_describe(field.annotation, field)
        if problem:
            yield (
                f"the field {name} of {cls.__qualname__} cannot be stored in a file: {problem}"
                f"{_where_declared(cls, name)}",
                "give it a type that JSON knows, make it a private attribute (_name), "
                "or declare it with Field(exclude=True)",
            )
    method: Any = cls.agenerate if issubclass(cls, AsyncLLM) else cls.generate
    subject = method.__qualname__
    try:
        parameters = cls.generation_parameters()
    except Exception as error:
        yield (
            f"the signature of {subject} cannot be read: {error}{source_of(method)}",
            "annotate it with types that its module has",
        )
        return
    for name, annotation in parameters.annotations.items():
        problem = _cannot_describe(annotation)
        if problem:
            yield (
                f"the parameter {name} of {subject} cannot be described: {problem}{source_of(method)}",
                "give it a type that JSON knows",
            )


def _where_declared(cls: type[LLM], field: str) -> str:
    """Return where a field is declared. This reads the source: call it only for a problem."""
    owner = next((item for item in cls.__mro__ if field in inspect.get_annotations(item)), cls)
    return source_of(owner, field)


def _holds_plain_text(annotation: Any) -> bool:
    arguments = typing.get_args(annotation)
    if not arguments:
        return annotation in (str, bytes)
    return any(_holds_plain_text(argument) for argument in arguments)


def _cannot_describe(annotation: Any, field: FieldInfo | None = None) -> str:
    """Return why JSON cannot hold values of this type, or an empty string."""
    if _is_known(annotation):
        return ""
    try:
        described: Any = typing.Annotated[annotation, field] if field and field.metadata else annotation
        TypeAdapter(described).json_schema(mode="serialization")
    except Exception as error:
        # pydantic goes on with advice for models of its own, which is not ours.
        text = str(error).splitlines()[0].partition(". Set `")[0].rstrip(".")
        return text.replace("Unable to generate pydantic-core schema for", "JSON has no form for")
    return ""


def _is_known(annotation: Any) -> bool:
    """Check for types that `dump` handles itself: LLMs and secrets, also in containers."""
    arguments = [item for item in typing.get_args(annotation) if item is not type(None)]
    if arguments and all(not isinstance(item, str) for item in arguments):
        kinds = [item for item in arguments if isinstance(item, type) or typing.get_args(item)]
        return bool(kinds) and any(_is_known(item) for item in kinds)
    return inspect.isclass(annotation) and issubclass(annotation, (LLM, SecretStr, SecretBytes))
