"""`misfit` and `wanted`: what is wrong with a hook plugin, and with what one of its hooks returned."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Iterator, Mapping
from typing import Any

import pluggy

from stillhouse import hookspecs
from stillhouse.registry.problems import Problem, source_of

__all__ = ["SPECS", "implemented", "misfit", "wanted"]

SPECS: dict[str, list[str]] = {
    name: list(inspect.signature(spec).parameters)
    for name, spec in vars(hookspecs).items()
    if hasattr(spec, f"{hookspecs.PROJECT}_spec")
}
"""The arguments of each hook, in their order."""

_MEMBERS = {
    "open_reader": ("__iter__", "digest", "close"),
    "open_writer": ("write", "finish", "abandon"),
    "make_executor": ("__enter__", "__exit__"),
}
"""What a reader, a writer and an executor must have."""


def implemented(
    plugin: object, manager: pluggy.PluginManager
) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Yield the hooks that a plugin implements, each with its function and the options of its marker."""
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is not None:
            yield options.get("specname") or name, getattr(plugin, name), options


def misfit(plugin: object, manager: pluggy.PluginManager) -> Problem | None:
    """Find what pluggy reports too late or not at all: unknown hooks, surplus arguments, no hook."""
    if inspect.isclass(plugin):
        return Problem(
            "E206",
            f"it is the class {plugin.__qualname__}, whose hooks would be called without self"
            f"{source_of(plugin)}",
            "let the entry point name an instance or a module",
        )
    found = set()
    for hook, function, options in implemented(plugin, manager):
        found.add(hook)
        if hook not in SPECS and options.get("optionalhook"):
            continue
        wrong = _wrong(hook, function, options)
        if wrong is not None:
            cause, hint = wrong
            return Problem("E206", cause + source_of(function), hint)
    if not found:
        return Problem(
            "E206",
            f"no function in it is marked with stillhouse.hookimpl{source_of(plugin)}",
            "mark its hooks with @stillhouse.hookimpl",
        )
    for one, other in (("configure", "settings_model"), ("settings_model", "configure")):
        if one in found and other not in found:
            return Problem(
                "E206",
                f"it has the hook {one} without {other}{source_of(plugin)}",
                f"implement {other} too: the one names the settings, the other takes them",
            )
    return None


def _wrong(hook: str, method: Any, options: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return what is wrong with one hook and how to correct it, or `None`."""
    if hook not in SPECS:
        near = difflib.get_close_matches(hook, SPECS, n=1)
        return f"there is no hook {hook}", f"rename it to {' or '.join(near or sorted(SPECS))}"
    if options.get("wrapper") or options.get("hookwrapper"):
        return f"{hook} wraps the hooks of other plugins", "write it as a plain function"
    if inspect.iscoroutinefunction(method):
        return f"{hook} is a coroutine, but hooks are plain functions", "write it as def, not async def"
    known = SPECS[hook]
    for item in inspect.signature(method).parameters.values():
        if item.name not in known and item.default is item.empty:
            return (
                f"{hook} takes {item.name}, but the hook has only {', '.join(known) or 'no arguments'}",
                f"take {item.name} out of its arguments",
            )
        if item.kind is item.KEYWORD_ONLY and item.default is item.empty:
            return (
                f"{hook} takes {item.name} by keyword, but hooks are called by place",
                "take the * out of its arguments",
            )
    return None


def wanted(hook: str, answer: object) -> str:
    """Return what an answer of a hook that opens or names something lacks; an empty string if nothing."""
    if hook == "output_path":
        return "" if isinstance(answer, os.PathLike) else "and not a pathlib.Path or None"
    lacking = [name for name in _MEMBERS.get(hook, ()) if not callable(getattr(answer, name, None))]
    return f"which has no {', '.join(lacking)}" if lacking else ""
