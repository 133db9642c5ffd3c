"""The public surface as text: a line for every name that a plugin or a program may use."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

__all__ = ["MODULES", "surface"]

MODULES = (
    "stillhouse",
    "stillhouse.errors",
    "stillhouse.hookspecs",
    "stillhouse.http",
    "stillhouse.http.batches",
    "stillhouse.inputs",
    "stillhouse.jobs.executors",
    "stillhouse.jobs.formats",
    "stillhouse.local",
    "stillhouse.offline",
    "stillhouse.outputs",
    "stillhouse.protocols",
    "stillhouse.registry",
    "stillhouse.structured",
    "stillhouse.testing",
    "stillhouse.typing",
)
"""The modules that a plugin may import from; `__all__` says which names of each."""


def _is_alias(item: tuple[str, Any]) -> bool:
    path, value = item
    return path.rpartition(".")[2] != getattr(value, "__name__", None)


def surface() -> list[str]:
    """Every public name: classes with their bases and members, functions with their signatures."""
    found = {
        f"{module}.{name}": getattr(importlib.import_module(module), name)
        for module in MODULES
        for name in importlib.import_module(module).__all__
    }
    first: dict[int, str] = {}
    # An alias is not where a class or a function is at home, even if it comes first in the alphabet.
    for path, value in sorted(found.items(), key=_is_alias):
        if inspect.isclass(value) or inspect.isfunction(value):
            first.setdefault(id(value), path)
    lines = []
    for path, value in found.items():
        home = first.get(id(value), path)
        if home != path:
            lines.append(f"{path} is {home}")
        elif inspect.isclass(value):
            lines.extend(_class(path, value, first))
        elif inspect.isfunction(value):
            lines.append(f"{path}{_signature(value)}")
        elif isinstance(value, dict | frozenset | set):
            lines.append(f"{path} = {sorted(value)}")
        elif isinstance(value, str | tuple):
            lines.append(f"{path} = {value!r}")
        elif typing.get_origin(value) is not None:
            lines.append(f"{path} = {_plain(value)}")
        else:
            lines.append(f"{path}: {type(value).__name__}")
    return sorted(lines)


def _class(path: str, cls: type, first: dict[int, str]) -> Iterator[str]:
    """A class, and its public members that no other public class has given it."""
    bases = [first.get(id(base), base.__name__) for base in cls.__mro__[1:] if base is not object]
    public = [base for base in bases if base.startswith("stillhouse.")]
    yield f"class {path}({', '.join(public or [cls.__mro__[1].__name__])})"
    # A public base is listed itself; what a private one gives is the class's own.
    listed = [base for base in cls.__mro__[1:] if id(base) in first]
    hidden = [
        base
        for base in cls.__mro__[1:]
        if base.__module__.startswith("stillhouse") and not any(issubclass(other, base) for other in listed)
    ]
    inherited = {name for base in listed for name in vars(base)}
    seen: set[str] = set()
    for owner in [cls, *hidden]:
        annotations = inspect.get_annotations(owner)
        for name in dict.fromkeys([*vars(owner), *annotations]):
            if (
                name.startswith(("_", "test_", "model_"))
                or name in seen
                or (owner is not cls and name in inherited)
            ):
                continue
            seen.add(name)
            yield _member(f"{path}.{name}", cls, owner, name, annotations.get(name))


def _member(path: str, cls: type, owner: type, name: str, annotation: Any) -> str:
    value = vars(owner).get(name)
    if isinstance(value, classmethod | staticmethod):
        return f"{path}{_signature(value.__func__)} [{type(value).__name__}]"
    if isinstance(value, property | functools.cached_property):
        getter = value.fget if isinstance(value, property) else value.func
        return f"{path}: {_plain(inspect.signature(getter).return_annotation)} [property]"
    if inspect.isfunction(value):
        return f"{path}{_signature(value)}"
    default = inspect.Parameter.empty
    if issubclass(cls, BaseModel) and name in cls.model_fields:
        field = cls.model_fields[name]
        default = "…" if field.default is PydanticUndefined and not field.is_required() else field.default
        if field.is_required():
            default = inspect.Parameter.empty
    elif dataclasses.is_dataclass(cls) and name in cls.__dataclass_fields__:
        field = cls.__dataclass_fields__[name]
        default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        default = "…" if field.default_factory is not dataclasses.MISSING else default
    shown = "" if default is inspect.Parameter.empty else f" = {default if default == '…' else repr(default)}"
    return f"{path}: {_plain(annotation)}{shown}"


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    parameters = [item.replace(annotation=_Text(item.annotation)) for item in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=_Text(signature.return_annotation)))


class _Text:
    """An annotation that is shown as it is written."""

    def __new__(cls, annotation: Any) -> Any:
        if annotation is inspect.Signature.empty:
            return annotation
        made = super().__new__(cls)
        made.text = _plain(annotation)  # type: ignore[attr-defined]
        return made

    def __repr__(self) -> str:
        return str(self.text)  # type: ignore[attr-defined]


def _plain(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, typing.ForwardRef):
        return annotation.__forward_arg__
    if inspect.isclass(annotation):
        return annotation.__name__
    return re.sub(r" at 0x[0-9a-f]+", "", repr(annotation))
