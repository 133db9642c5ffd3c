"""Generation parameters: what the signature of `generate` or `agenerate` declares."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from stillhouse._settings.runtime import RuntimeParametersMixin, configuration_error
from stillhouse.errors import ConfigurationError, near_matches

__all__ = ["GenerationParameters", "GenerationParametersMixin", "generation_parameters", "implementations"]


@dataclass(frozen=True)
class GenerationParameters:
    """The generation parameters that a `generate` or `agenerate` declares.

    Attributes:
        parameters: the parameters by name, without `self`, the inputs and `num_generations`.
        annotations: their evaluated types; `Any` for a parameter without one.
        descriptions: their descriptions in the docstring.
        open: whether `**kwargs` accepts any other name.
    """

    parameters: dict[str, inspect.Parameter]
    annotations: dict[str, Any]
    descriptions: dict[str, str]
    open: bool

    @functools.cached_property
    def model(self) -> type[BaseModel]:
        """A pydantic model with one field per parameter, which types and checks the values."""
        fields: dict[str, Any] = {}
        for position, (name, parameter) in enumerate(self.parameters.items()):
            default = None if parameter.default is parameter.empty else parameter.default
            field = Field(default=default, alias=name)
            # A field's own name may not begin with an underscore or hide a method of the model.
            fields[f"parameter_{position}"] = (self.annotations[name], field)
        return create_model(
            "GenerationParameters",
            __config__=ConfigDict(
                extra="allow" if self.open else "forbid",
                arbitrary_types_allowed=True,
                hide_input_in_errors=True,
            ),
            **fields,
        )

    def check(self, values: Mapping[str, Any], llm: str) -> dict[str, Any]:
        """Convert values to the declared types. `None` passes: it means the default.

        Raises:
            ConfigurationError: a name is unknown, with near matches, or a value does not fit.
        """
        for name in values:
            if name not in self.parameters and not self.open:
                raise ConfigurationError(
                    f"{llm} has no generation parameter {name!r}",
                    hint=near_matches(name, self.parameters),
                )
        given = {name: value for name, value in values.items() if value is not None}
        try:
            checked = self.model.model_validate(given)
        except ValidationError as error:
            raise configuration_error(error, self.model, f"generation parameters of {llm}") from None
        typed = {field.alias: getattr(checked, key) for key, field in type(checked).model_fields.items()}
        return {
            name: typed[name] if value is not None and name in typed else value
            for name, value in values.items()
        }


def implementations(cls: type, name: str) -> tuple[Callable[..., Any], ...]:
    """The implementations of a method whose generation parameters are those of `cls`, its own first.

    One that takes `**kwargs` hands them on to the implementation that it overrides, and has its
    parameters too. Where they are typed, as `**kwargs: Unpack[Parameters]`, those are all parameters, and
    the overridden implementation only documents some of them.
    """
    found: list[Callable[..., Any]] = []
    for base in cls.__mro__:
        function = base.__dict__.get(name)
        if function is None:
            continue
        if found and getattr(function, "__isabstractmethod__", False):
            break
        found.append(function)
        kinds = [item.kind for item in inspect.signature(function).parameters.values()]
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break
    return tuple(found)


def _unpacked(hint: Any) -> dict[str, Any]:
    """Return the keys and types of the `TypedDict` in an `Unpack[…]`; empty for any other annotation."""
    if typing.get_origin(hint) is not typing.Unpack:
        return {}
    (fields,) = typing.get_args(hint)
    typed: dict[str, Any] = {}
    for key, annotation in typing.get_type_hints(fields, include_extras=True).items():
        while typing.get_origin(annotation) in (typing.Required, typing.NotRequired):
            (annotation,) = typing.get_args(annotation)
        typed[key] = annotation
    return typed


@functools.lru_cache(maxsize=256)
def generation_parameters(*functions: Callable[..., Any]) -> GenerationParameters:
    """Read the generation parameters of `generate` or `agenerate`.

    Args:
        functions: what `implementations` gives: the method, and those that it hands `**kwargs` on to.
    """
    from docstring_parser import parse

    parameters: dict[str, inspect.Parameter] = {}
    annotations: dict[str, Any] = {}
    descriptions: dict[str, str] = {}
    is_open = False
    for function in reversed(functions):  # what is inherited comes first, and is overridden
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except Exception:  # a name that exists for type checkers only
            hints = {}
        declared = inspect.signature(function).parameters
        typed = next((_unpacked(hints.get(n)) for n, p in declared.items() if p.kind is p.VAR_KEYWORD), {})
        if typed:  # those are all, whatever is inherited
            parameters, annotations = {}, {}
        for position, (name, parameter) in enumerate(declared.items()):
            if parameter.kind is parameter.VAR_KEYWORD:
                for key, hint in typed.items():
                    parameters[key] = inspect.Parameter(
                        key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint
                    )
                    annotations[key] = hint
                is_open = is_open or (function is functions[-1] and not typed)
            elif (
                position > 1 and name != "num_generations" and parameter.kind is not parameter.VAR_POSITIONAL
            ):
                parameters[name] = parameter
                annotations[name] = hints.get(name, Any)
        documented = parse(inspect.getdoc(function) or "").params
        descriptions |= {item.arg_name: item.description or "" for item in documented}
    return GenerationParameters(
        parameters=parameters, annotations=annotations, descriptions=descriptions, open=is_open
    )


class GenerationParametersMixin(RuntimeParametersMixin):
    """Describes and checks the generation parameters of an LLM."""

    @classmethod
    def _generate_methods(cls) -> tuple[Any, ...]:
        """The methods whose signatures declare the generation parameters, its own first."""
        return implementations(cls, "generate")

    @classmethod
    def generation_parameters(cls) -> GenerationParameters:
        """Return the generation parameters that the backend declares."""
        return generation_parameters(*cls._generate_methods())

    def check_arguments(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Check generation parameters and convert their values to the declared types.

        Raises:
            ConfigurationError: a name is unknown, with near matches, or a value does not fit.
        """
        return self.generation_parameters().check(arguments, type(self).__name__)

    @property
    def generate_parameters(self) -> list[inspect.Parameter]:
        """Return the parameters of `generate` or `agenerate`, without `self`, including inherited ones."""
        declared = self.generation_parameters()
        own = list(inspect.signature(self._generate_methods()[0]).parameters.values())[1:]
        named = {item.name for item in own if item.kind is not item.VAR_KEYWORD}
        kept = [item for item in own if declared.open or item.kind is not item.VAR_KEYWORD]
        return [*kept, *(item for name, item in declared.parameters.items() if name not in named)]

    @functools.cached_property
    def generate_parsed_docstring(self) -> dict[str, Any]:
        """Parse the docstring of `generate` or `agenerate`.

        Returns:
            A dict with `short_description`, `long_description`, `args` (name to description), `returns` and
                `raises` (exception to description).
        """
        from docstring_parser import parse

        parsed = parse(inspect.getdoc(self._generate_methods()[0]) or "")
        declared = self.generation_parameters()
        return {
            "short_description": parsed.short_description or "",
            "long_description": parsed.long_description or "",
            "args": {
                **{item.arg_name: item.description or "" for item in parsed.params},
                **{name: declared.descriptions.get(name, "") for name in declared.parameters},
            },
            "returns": (parsed.returns.description or "") if parsed.returns else "",
            "raises": {item.type_name or "": item.description or "" for item in parsed.raises},
        }

    @property
    def runtime_parameters_names(self) -> dict[str, Any]:
        """The same as in `RuntimeParametersMixin`; `generation_kwargs` has the generation parameters."""
        names = super().runtime_parameters_names
        parameters = self.generation_parameters().parameters
        names["generation_kwargs"] = {
            name: item.default is not item.empty for name, item in parameters.items()
        }
        return names

    def get_runtime_parameters_info(self) -> list[dict[str, Any]]:
        """The same as in `RuntimeParametersMixin`; `generation_kwargs` lists the parameters in `keys`."""
        info = super().get_runtime_parameters_info()
        declared = self.generation_parameters()
        for entry in info:
            if entry["name"] == "generation_kwargs":
                keys = entry["keys"] = []
                for name, item in declared.parameters.items():
                    key: dict[str, Any] = {"name": name, "optional": item.default is not item.empty}
                    if declared.descriptions.get(name):
                        key["description"] = declared.descriptions[name]
                    keys.append(key)
        return info
