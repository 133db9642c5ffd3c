"""The settings of a hook plugin: a model of its own, filled from a table of the user's config file."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pluggy

from stillhouse.errors import ConfigurationError, near_matches
from stillhouse.registry.hook_rules import implemented

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["configured", "describe_hook"]


def configured(
    plugin: object, manager: pluggy.PluginManager, name: str, table: Mapping[str, Any], source: str
) -> None:
    """Give a plugin its settings.

    Args:
        plugin: the plugin.
        manager: what knows its hooks.
        name: its name.
        table: its table in the config file; empty where there is none.
        source: the config file, for messages.

    Raises:
        ConfigurationError: a setting has a wrong name or value, or the plugin refuses it or has none.
        TypeError: what the plugin names is not a model.
    """
    found = {hook: function for hook, function, _ in implemented(plugin, manager)}
    where = f"[hooks.{name}]{f' in {source}' if source else ''}"
    if "configure" not in found:
        if table:
            raise ConfigurationError(
                f"{where} has settings, and the hook {name} takes none", hint="remove the table"
            )
        return
    model = _model(found["settings_model"])
    known = {field.alias or key for key, field in model.model_fields.items()}
    unknown = sorted(map(str, table.keys() - known))
    if unknown and model.model_config.get("extra") != "allow":
        raise ConfigurationError(f"{where}: there is no {unknown[0]!r}", hint=near_matches(unknown[0], known))
    from pydantic import ValidationError

    from stillhouse._settings.runtime import configuration_error

    try:
        settings = model.model_validate(dict(table))
    except ValidationError as error:
        refused = configuration_error(error, model, where)
        refused.hint = refused.hint or f"`stillhouse show {name}` lists its settings"
        raise refused from None
    found["configure"](**_taken(found["configure"], settings))


def describe_hook(plugin: object, manager: pluggy.PluginManager) -> dict[str, Any]:
    """Describe a hook plugin in JSON types.

    Returns:
        A dict with `description`, `hooks` (the names of those that it implements, sorted) and `settings`, a
        list of dicts with `name`, `type`, `required`, `default` and `description`.
    """
    from stillhouse._settings.describe import describe_fields

    found = {hook: function for hook, function, _ in implemented(plugin, manager)}
    described = plugin if inspect.ismodule(plugin) else type(plugin)
    return {
        "description": inspect.getdoc(described) or "",
        "hooks": sorted(found),
        "settings": describe_fields(_model(found["settings_model"])) if "settings_model" in found else [],
    }


def _model(named: Any) -> type[BaseModel]:
    from pydantic import BaseModel

    model = named()
    if not (inspect.isclass(model) and issubclass(model, BaseModel)):
        raise TypeError(f"settings_model returned {model!r}, which is not a pydantic model")
    return model


def _taken(function: Any, settings: BaseModel) -> dict[str, Any]:
    """Return the arguments for `configure`, which may take none."""
    return {"settings": settings} if "settings" in inspect.signature(function).parameters else {}
