"""`load_hooks`: every usable hook plugin, imported, configured and registered."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from stillhouse.errors import ConfigurationError
from stillhouse.registry.assessment import Assessment
from stillhouse.registry.discovery import Discovery
from stillhouse.registry.hooks import Hooks
from stillhouse.registry.info import PluginInfo, distinct_problems, errors
from stillhouse.registry.loading import with_user_hint
from stillhouse.registry.problems import Problem, plugin_error, report

__all__ = ["find_hook", "load_hooks", "loaded_description"]

_logger = logging.getLogger("stillhouse.registry")


def load_hooks(
    infos: Iterable[PluginInfo], discovery: Discovery, registered: Mapping[str, object], *, log: bool
) -> Hooks:
    """Load the hook plugins that can be used, and those that were registered by hand.

    Args:
        infos: what is installed.
        discovery: imports a plugin once, and remembers the outcome.
        registered: the plugins of `register_hooks`, by name.
        log: log what is wrong with a plugin.

    Raises:
        ConfigurationError: the config file has a setting that a plugin refuses.
    """
    hooks, policy = Hooks(), discovery.assess().policy
    infos = [info for info in infos if info.kind == "hook" and info.status not in ("disabled", "settled")]
    if log:
        for info, problem in distinct_problems(infos):
            if problem.severity == "error":
                _logger.warning("%s", report(info.candidate, problem))
    for info in infos:
        error = None
        if not errors(info.troubles):
            loaded = discovery.load(info.candidate)
            error = loaded.error
            if error is None:
                misfit = hooks.register(info.name, loaded.value, *policy.table_of(info.name))
                error = with_user_hint(misfit, info.candidate)
                discovery.loaded[info.candidate] = loaded._replace(error=error)
        if error is not None and log:
            # Nobody asks for a hook by name, so its absence is reported here.
            _logger.warning("%s", report(info.candidate, error))
    for name, plugin in registered.items():
        hooks.register(name, plugin, *policy.table_of(name))
    return hooks


def find_hook(
    name: str, infos: Iterable[PluginInfo], assessment: Assessment, registered: Iterable[str]
) -> PluginInfo:
    """Return the hook plugin of a name, be it usable or not.

    Raises:
        UnknownLLMError: no hook of that name is installed.
        ConfigurationError: it is switched off.
    """
    claimants = [info for info in infos if (info.kind, info.name) == ("hook", name)]
    if not claimants:
        raise assessment.unknown(name, registered)
    usable = [info for info in claimants if info.status not in ("disabled", "settled")]
    if not usable:
        off = claimants[0]
        source = assessment.policy.switched_off_by(off.candidate.distribution)
        raise ConfigurationError(
            f"the hook {name} from {off.package} is switched off by {source}", hint=f"change {source}"
        )
    return min(usable, key=lambda info: bool(errors(info.troubles)))


def loaded_description(info: PluginInfo, discovery: Discovery) -> dict[str, Any]:
    """Describe a hook plugin, imported at the first call; see `Registry.describe_hook`."""
    for problem in errors(info.troubles):
        raise plugin_error(info.candidate, problem) from problem.exception
    loaded = discovery.load(info.candidate)
    described = loaded.error or Hooks().describe(loaded.value)
    if isinstance(described, Problem):
        raise plugin_error(info.candidate, described) from described.exception
    return described
