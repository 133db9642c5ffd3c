"""The LLM of a run: named, or from a file of settings, with the fields that are given beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stillhouse._settings.describe import usable_fields
from stillhouse._settings.serialization import read_settings
from stillhouse.errors import ConfigurationError, near_matches
from stillhouse.llm import LLM
from stillhouse.protocols import Backends

__all__ = ["check_fields", "named", "new_llm"]


def named(registry: Backends, spec: str | None, config: Path | None) -> tuple[type[LLM], dict[str, Any]]:
    """Return the class that is named, and its settings so far, with the name and the model.

    Args:
        registry: knows the class.
        spec: `NAME`, `NAME:MODEL` or an alias; it overrides the model in the file. Without it and a file, the
            default LLM of the user's config file is used.
        config: a file of settings.

    Raises:
        ConfigurationError: no LLM is named, or the two disagree, or the file cannot be read.
        UnknownLLMError, PluginError: the LLM is not installed or unusable.
    """
    settings: dict[str, Any] = read_settings(config) if config is not None else {}
    if spec is None and config is None:
        spec = registry.default_llm
    spec = registry.resolve(spec) if spec else spec
    name, colon, model = (spec or str(settings.get("llm") or "")).partition(":")
    if not name:
        raise ConfigurationError("no LLM is named", hint="give --llm NAME, or --config FILE")
    if settings and settings.get("llm") != name:
        raise ConfigurationError(
            f"--llm names {name}, and {config} holds the settings of {settings.get('llm')}",
            hint="leave out one of them",
        )
    cls: type[LLM] = registry.get_llm(name)
    settings["llm"] = name
    if spec and colon:
        if not model:
            raise ConfigurationError(f"{spec!r} names no model after the colon", hint=f"write {name}:MODEL")
        check_fields(cls, name, ["model"])
        settings["model"] = model
    return cls, settings


def check_fields(cls: type[LLM], name: str, fields: Iterable[str]) -> None:
    """Refuse a field that the LLM does not have.

    Raises:
        ConfigurationError: there is one; with near matches.
    """
    for field in fields:
        if field not in cls.model_fields:
            if field == "max_concurrency":
                raise ConfigurationError(
                    f"{name} handles its inputs in lists", hint="leave out --max-concurrency"
                )
            raise ConfigurationError(
                f"{name} has no field {field!r}", hint=near_matches(field, usable_fields(cls))
            )


def new_llm(registry: Backends, settings: Mapping[str, Any], fields: Mapping[str, Any]) -> LLM:
    """Create an LLM, without loading it.

    Args:
        registry: knows the class.
        settings: what `named` returned.
        fields: override the settings.

    Raises:
        ConfigurationError: a field has a wrong name or value.
    """
    return LLM.from_dict({**settings, **fields}, registry)
