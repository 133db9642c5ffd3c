"""An LLM and its arguments from the command line: `--llm`, `--config`, `--set` and `--param`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse.errors import ConfigurationError, near_matches

if TYPE_CHECKING:
    from stillhouse.llm import LLM
    from stillhouse.registry import Registry

__all__ = ["build_llm", "parse_arguments"]


def build_llm(
    registry: Registry,
    spec: str | None,
    config: Path | None,
    assignments: Sequence[str],
    max_concurrency: int | None,
) -> LLM:
    """Create the LLM that the options describe, without loading it. An option overrides the file.

    Raises:
        ConfigurationError: an option has a wrong name or value, or two of them disagree.
        UnknownLLMError, PluginError: the LLM is not installed or unusable.
    """
    from stillhouse._settings.serialization import read_settings
    from stillhouse.llm import LLM

    data: dict[str, Any] = read_settings(config) if config is not None else {}
    name, _, model = (spec or str(data.get("llm") or "")).partition(":")
    if not name:
        raise ConfigurationError("no LLM is named", hint="give --llm NAME, or --config FILE")
    if data and data.get("llm") != name:
        raise ConfigurationError(
            f"--llm names {name}, and {config} holds the settings of {data.get('llm')}",
            hint="leave out one of them",
        )
    cls = registry.get_llm(name)
    fields = cls.model_fields
    given = _split(assignments, "--set")
    if spec and ":" in spec:
        given.setdefault("model", model)
    if max_concurrency is not None:
        if "max_concurrency" not in fields:
            raise ConfigurationError(
                f"{name} handles its inputs in lists", hint="leave out --max-concurrency"
            )
        given["max_concurrency"] = str(max_concurrency)
    for field in given:
        if field not in fields:
            raise ConfigurationError(f"{name} has no field {field!r}", hint=near_matches(field, fields))
    typed = {field: _typed(text, fields[field].annotation, f"--set {field}") for field, text in given.items()}
    return LLM.from_dict({**data, **typed, "llm": name}, registry)


def parse_arguments(cls: type[LLM], assignments: Sequence[str]) -> dict[str, Any]:
    """Convert generation parameters to the types that the backend declares.

    Raises:
        ConfigurationError: a name is unknown, with near matches, or a value does not fit.
    """
    declared = cls.generation_parameters()
    values = _split(assignments, "--param")
    typed = {}
    for name, text in values.items():
        if name not in declared.parameters and not declared.open:
            raise ConfigurationError(
                f"{cls.__name__} has no generation parameter {name!r}",
                hint=near_matches(name, declared.parameters),
            )
        typed[name] = _typed(text, declared.annotations.get(name, Any), f"--param {name}")
    return declared.check(typed, cls.__name__)


def _split(assignments: Sequence[str], option: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator or not name.strip():
            raise ConfigurationError(
                f"{option} {assignment!r} is not of the form NAME=VALUE", hint=f"write {option} name=value"
            )
        if name.strip() in values:
            raise ConfigurationError(f"{option} {name.strip()} is given twice", hint="give it once")
        values[name.strip()] = text
    return values


def _typed(text: str, annotation: Any, subject: str) -> Any:
    """Convert a text to a type: unchanged where a text is valid, else as JSON.

    A text that looks like a JSON list, object or string is read as one first, so that a parameter that
    takes a text or a list of texts accepts either.
    """
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

    try:
        adapter: TypeAdapter[Any] = TypeAdapter(
            annotation, config=ConfigDict(arbitrary_types_allowed=True, hide_input_in_errors=True)
        )
    except PydanticUserError:  # the annotation is a model with its own settings
        adapter = TypeAdapter(annotation)
    attempts = [adapter.validate_python, adapter.validate_json]
    if text[:1] in ("[", "{", '"') or text == "null":
        attempts.reverse()
    problem = ""
    for attempt in attempts:
        try:
            return attempt(text)
        except ValidationError as error:
            problem = problem or error.errors(include_url=False, include_input=False)[0]["msg"]
    from stillhouse._settings.describe import type_name

    raise ConfigurationError(
        f"{subject}: {problem}", hint=f"give a value of the type {type_name(annotation)}"
    )
