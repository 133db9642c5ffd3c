"""Fields and generation parameters from the command line, `--set` and `--param`, in their declared types."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stillhouse.errors import ConfigurationError, near_matches

if TYPE_CHECKING:
    from stillhouse.llm import LLM
    from stillhouse.registry import Registry

__all__ = ["check_address", "foreign_addresses", "parse_arguments", "parse_fields"]


def parse_fields(cls: type[LLM], name: str, assignments: Sequence[str]) -> dict[str, Any]:
    """Convert fields of an LLM to the types that it declares.

    Raises:
        ConfigurationError: a name is unknown, with near matches, or a value does not fit.
    """
    from stillhouse.jobs.launch.llms import check_fields

    given = _split(assignments, "--set")
    check_fields(cls, name, given)
    return {
        field: _typed(name, text, cls.model_fields[field].annotation, f"--set {field}")
        for field, text in given.items()
    }


def check_address(llm: LLM, fields: Mapping[str, Any]) -> None:
    """Refuse a `base_url` that the command line sets if it is not an address.

    Raises:
        ConfigurationError: it is not.
    """
    asked: Any = llm
    if "base_url" in fields and hasattr(type(llm), "api_url"):
        asked.api_url  # noqa: B018  -- it is made of base_url


def foreign_addresses(
    registry: Registry, settings: Mapping[str, Any], fields: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Return the addresses that a file of settings names for a key that is not its own.

    Args:
        registry: knows the classes.
        settings: those of the file, of an LLM and the LLMs within it.
        fields: what the command line sets, which overrides the file.

    Returns:
        Each with the environment variable whose key goes there.
    """
    from stillhouse._settings.secrets import without_login
    from stillhouse._settings.stored_keys import stored_names

    found: dict[tuple[str, str], None] = {}
    places: list[Any] = [{**settings, **fields}]
    for place in places:  # which grows
        if isinstance(place, Mapping):
            address = place.get("base_url")
            if (
                isinstance(place.get("llm"), str)
                and isinstance(address, str)
                and address != fields.get("base_url")
            ):
                cls: Any = registry.get_llm(place["llm"])
                key, variable = (
                    getattr(cls, "api_key_variable", None),
                    getattr(cls, "base_url_variable", None),
                )
                usual = (os.environ.get(variable) if variable else None) or getattr(
                    cls, "default_base_url", None
                )
                if (
                    key
                    and (os.environ.get(key) or key in stored_names())
                    and not place.get("api_key")
                    and address != usual
                ):
                    found[without_login(address), key] = None
            places += place.values()
        elif isinstance(place, (list, tuple)):
            places += place
    return [*found]


def parse_arguments(cls: type[LLM], backend: str, assignments: Sequence[str]) -> dict[str, Any]:
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
                f"{backend} has no generation parameter {name!r}",
                hint=near_matches(name, declared.parameters),
            )
        typed[name] = _typed(backend, text, declared.annotations.get(name, Any), f"--param {name}")
    return declared.check(typed, backend)


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


def _typed(backend: str, text: str, annotation: Any, subject: str) -> Any:
    """Convert a text to a type."""
    from stillhouse._settings.values import ValueType

    declared = ValueType(annotation)
    try:
        return declared.of_text(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{subject}: {error}", hint=f"stillhouse show {backend} describes it; its type is {declared.name}"
        ) from None
