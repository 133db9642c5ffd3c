"""`describe`: a backend's class as plain data, with fields, generation parameters and capabilities."""

from __future__ import annotations

import inspect
import types
import typing
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from stillhouse._settings.runtime import RuntimeParametersMixin

__all__ = ["describe", "describe_fields", "field_groups", "type_name", "usable_fields"]

_CONTRACT = ("stillhouse.llm", "stillhouse.async_llm")

_OFFLINE = "stillhouse.offline.contract"
"""Where the fields of offline batches are: every class has them, and few can use them."""


def describe(cls: type[Any]) -> dict[str, Any]:
    """Describe a backend's class in JSON types.

    A dict with `class`, `description`, `capabilities` (sorted; `None` where they depend on the
    instance), and `fields` and `parameters`: lists of dicts with `name`, `type`, `required`,
    `default` and `description`; a field also has `runtime`, whether it is a runtime parameter.
    """
    declared: Any = cls.capabilities
    parameters = cls.generation_parameters()
    runtime = cls.runtime_fields()
    return {
        "class": f"{cls.__module__}.{cls.__qualname__}",
        "description": inspect.getdoc(cls) or "",
        "capabilities": sorted(declared) if isinstance(declared, frozenset) else None,
        "fields": [
            {
                "name": name,
                "type": type_name(field.annotation),
                "required": field.is_required() and name not in runtime,
                "default": _default_of(field),
                "description": field.description or "",
                "runtime": name in runtime,
            }
            for name, field in _own_first(cls)
        ],
        "parameters": [
            {
                "name": name,
                "type": type_name(parameters.annotations[name]),
                "required": parameter.default is parameter.empty,
                "default": None if parameter.default is parameter.empty else _plain(parameter.default),
                "description": parameters.descriptions.get(name, ""),
            }
            for name, parameter in parameters.parameters.items()
        ],
    }


def field_groups(cls: type[Any]) -> list[tuple[str, set[str]]]:
    """Return a class's fields in groups: its own (an empty title), those of every LLM, those of batches."""
    bases: list[Any] = [base for base in cls.__mro__ if base.__module__ in (*_CONTRACT, _OFFLINE)]
    offline = {name for base in bases if base.__module__ == _OFFLINE for name in base.model_fields}
    common = {name for base in bases for name in base.model_fields} - offline
    return [
        ("", {*cls.model_fields} - common - offline),
        ("of every backend", common),
        ("of offline batches", offline),
    ]


def describe_fields(model: type[BaseModel]) -> list[dict[str, Any]]:
    """Describe the fields of a model in JSON types: name, type, required, default and description of each."""
    return [
        {
            "name": field.alias or name,
            "type": type_name(field.annotation),
            "required": field.is_required(),
            "default": _default_of(field),
            "description": field.description or "",
        }
        for name, field in model.model_fields.items()
    ]


def usable_fields(cls: type[Any]) -> list[str]:
    """Return the names of a backend's fields, without those of what it cannot do."""
    return [name for name, _ in _own_first(cls)]


def _own_first(cls: type[Any]) -> list[tuple[str, FieldInfo]]:
    """A backend's fields, then those of the contract, without those of what it cannot do."""
    bases: list[Any] = [base for base in cls.__mro__ if base.__module__ in (*_CONTRACT, _OFFLINE)]
    common = {name for base in bases for name in base.model_fields}
    unused: set[str] = set()
    if isinstance(cls.capabilities, frozenset) and "offline_batch" not in cls.capabilities:
        unused = {name for base in bases if base.__module__ == _OFFLINE for name in base.model_fields}
    fields = [item for item in cls.model_fields.items() if item[0] not in unused]
    return sorted(fields, key=lambda item: item[0] in common)


def type_name(annotation: Any) -> str:
    """A type as people write it, such as `list[int] | "auto" | None`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is None or annotation is type(None):
        return "None"
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if origin in (typing.Union, types.UnionType):
        names = " | ".join(type_name(argument) for argument in arguments).split(" | ")
        return " | ".join(dict.fromkeys(names))
    if origin is typing.Literal:
        return " | ".join(f'"{value}"' if isinstance(value, str) else repr(value) for value in arguments)
    if origin is not None:
        inner = ", ".join("…" if argument is ... else type_name(argument) for argument in arguments)
        return f"{getattr(origin, '__name__', origin)}[{inner}]"
    return getattr(annotation, "__name__", str(annotation))


def _default_of(field: FieldInfo) -> Any:
    try:
        default = field.get_default(call_default_factory=True, validated_data={})
    except Exception:  # a factory that needs more than the class, such as an environment variable
        return None
    return None if default is PydanticUndefined else _plain(default)


def _plain(value: Any) -> Any:
    if isinstance(value, (SecretStr, RuntimeParametersMixin)):
        return None
    return to_jsonable_python(value, fallback=str)
