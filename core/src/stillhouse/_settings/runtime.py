"""Runtime parameters: fields of an LLM that may be set when a run starts."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, GetCoreSchemaHandler, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from stillhouse._settings.problems import problem_of
from stillhouse.errors import ConfigurationError, near_matches

__all__ = ["RuntimeParameter", "RuntimeParametersMixin", "configuration_error"]

T = TypeVar("T")


class _RuntimeParameterMarker:
    """Marks a field as a runtime parameter; without a default of its own it is `None` until set."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_default_schema(handler(source), default=None)

    def __repr__(self) -> str:
        return "RuntimeParameter"


RuntimeParameter = Annotated[T | None, _RuntimeParameterMarker()]
"""The annotation of a field that may be set when a run starts, after the LLM was created.

`RuntimeParameter[T]` without a default must be set before the run; with a default, or as
`RuntimeParameter[T] | None`, it is optional.
"""


def _is_marked(annotation: Any) -> bool:
    if any(isinstance(item, _RuntimeParameterMarker) for item in getattr(annotation, "__metadata__", ())):
        return True
    return any(_is_marked(argument) for argument in typing.get_args(annotation))


def _is_optional(field: FieldInfo) -> bool:
    """Whether a runtime parameter may be left unset."""
    if not any(isinstance(item, _RuntimeParameterMarker) for item in field.metadata):
        return True  # the marker is inside an Optional
    return (
        not field.is_required()
        and field.get_default(call_default_factory=True, validated_data={}) is not None
    )


class RuntimeParametersMixin(BaseModel):
    """Names, describes and sets the runtime parameters of a model and of the models inside it."""

    @property
    def is_composite(self) -> bool:
        """Whether the model consists of other models."""
        return any(True for _ in self._nested())

    def _nested(self) -> Iterator[tuple[str, RuntimeParametersMixin | dict[str, RuntimeParametersMixin]]]:
        """Fields that hold a model with runtime parameters, or a list of them by position."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, RuntimeParametersMixin):
                yield name, value
            elif isinstance(value, (list, tuple)):
                items = [item for item in value if isinstance(item, RuntimeParametersMixin)]
                if items and len(items) == len(value):
                    yield name, {str(position): item for position, item in enumerate(items)}

    @classmethod
    def runtime_fields(cls) -> dict[str, FieldInfo]:
        """Return the fields that are runtime parameters."""
        return {
            name: field
            for name, field in cls.model_fields.items()
            if any(isinstance(item, _RuntimeParameterMarker) for item in field.metadata)
            or _is_marked(field.annotation)
        }

    @property
    def runtime_parameters_names(self) -> dict[str, Any]:
        """The name of each runtime parameter, and whether it is optional.

        A model inside this one is a nested dict under its field, a list of models a dict by position (`"0"`,
        `"1"`, …).
        """
        names: dict[str, Any] = {name: _is_optional(field) for name, field in self.runtime_fields().items()}
        for name, inner in self._nested():
            if isinstance(inner, dict):
                names[name] = {key: item.runtime_parameters_names for key, item in inner.items()}
            else:
                names[name] = inner.runtime_parameters_names
        return names

    def get_runtime_parameters_info(self) -> list[dict[str, Any]]:
        """Return one entry per runtime parameter: `name`, `optional`, and `description` if there is one.

        A model inside this one has an entry with the name of its field and `runtime_parameters_info`.
        """
        info: list[dict[str, Any]] = []
        for name, field in self.runtime_fields().items():
            entry: dict[str, Any] = {"name": name, "optional": _is_optional(field)}
            if field.description:
                entry["description"] = field.description
            info.append(entry)
        for name, inner in self._nested():
            inner_info: Any
            if isinstance(inner, dict):
                inner_info = {key: item.get_runtime_parameters_info() for key, item in inner.items()}
            else:
                inner_info = inner.get_runtime_parameters_info()
            info.append({"name": name, "runtime_parameters_info": inner_info})
        return info

    def set_runtime_parameters(self, runtime_parameters: Mapping[str, Any]) -> None:
        """Set runtime parameters by name; those of inner models by nested dicts.

        If a parameter is itself a dict (`generation_kwargs`), the given dict is merged into it. If a name or
        a value is wrong, nothing is set.

        Raises:
            ConfigurationError: a name is unknown, or a value does not fit.
        """
        before = list(self._snapshot())
        try:
            self._set_runtime_parameters(runtime_parameters)
        except BaseException:
            for model, fields in before:
                object.__setattr__(model, "__dict__", fields)
            raise

    def _snapshot(self) -> Iterator[tuple[RuntimeParametersMixin, dict[str, Any]]]:
        """This model and those inside it, each with the values of its fields."""
        yield self, dict(self.__dict__)
        for _, inner in self._nested():
            for model in inner.values() if isinstance(inner, dict) else [inner]:
                yield from model._snapshot()

    def _set_runtime_parameters(self, runtime_parameters: Mapping[str, Any]) -> None:
        nested = dict(self._nested())
        fields = self.runtime_fields()
        own: dict[str, Any] = {}
        for name, value in runtime_parameters.items():
            inner = nested.get(name)
            if isinstance(inner, dict):
                for key, item_value in _as_mapping(name, value).items():
                    if key not in inner:
                        raise ConfigurationError(f"{name} has no item {key!r}", hint=near_matches(key, inner))
                    inner[key].set_runtime_parameters(_as_mapping(f"{name}.{key}", item_value))
            elif inner is not None:
                inner.set_runtime_parameters(_as_mapping(name, value))
            elif name in fields:
                current = getattr(self, name)
                merge = isinstance(current, dict) and isinstance(value, Mapping)
                own[name] = {**current, **value} if merge else value
            else:
                raise ConfigurationError(
                    f"{type(self).__name__} has no runtime parameter {name!r}",
                    hint=near_matches(name, [*fields, *nested]),
                )
        self._assign(own)

    def _assign(self, values: dict[str, Any]) -> None:
        """Assign to fields, of which one may be valid only after another."""
        while values:
            refused: dict[str, ValidationError] = {}
            for name, value in values.items():
                try:
                    setattr(self, name, value)
                except ValidationError as error:
                    refused[name] = error
            if len(refused) == len(values):
                raise configuration_error(next(iter(refused.values())), type(self)) from None
            values = {name: values[name] for name in refused}


def _as_mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{name} takes a dict of runtime parameters, not {type(value).__name__}")
    return value


def configuration_error(
    error: ValidationError, cls: type[BaseModel], subject: str = ""
) -> ConfigurationError:
    """Turn pydantic's error into one `ConfigurationError`, without the offending values.

    Args:
        error: pydantic's error.
        cls: the model that was validated; its field names serve for near matches.
        subject: what was validated, for the message; the class's name if empty.
    """
    problems, hint = [], ""
    for item in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            problems.append(f"there is no {where!r}")
            hint = hint or near_matches(where, cls.model_fields)
        elif item["type"] == "missing":
            problems.append(f"{where} is required")
        else:
            text = problem_of(item)
            problems.append(f"{where}: {text}" if where else text)
    return ConfigurationError(f"{subject or cls.__name__}: {'; '.join(problems)}", hint=hint)
