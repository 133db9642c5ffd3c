"""The installed hooks: registering them with validation, and calling them without being broken by one."""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Mapping
from typing import Any

import pluggy

from stillhouse import hookspecs
from stillhouse.errors import GenerationError, StillhouseError
from stillhouse.outputs import check_output
from stillhouse.registry.problems import Problem, describe, source_of

__all__ = ["Hooks"]

_SPECS: dict[str, list[str]] = {
    name: list(inspect.signature(spec).parameters)
    for name, spec in vars(hookspecs).items()
    if hasattr(spec, f"{hookspecs.PROJECT}_spec")
}
"""Each hook, and the arguments that it has."""

_logger = logging.getLogger("stillhouse.hooks")


class Hooks:
    """The registered hook plugins, and the calls of each hook.

    Each plugin is called by itself, so that one that raises takes no other down with it.

    Attributes:
        before: whether any plugin implements `before_generate`.
        after: whether any plugin implements `after_generate`.
    """

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._reported: set[tuple[str, str]] = set()
        self._refresh()

    @property
    def empty(self) -> bool:
        return not (self.before or self.after)

    def register(self, name: str, plugin: object) -> Problem | None:
        """Take a plugin's hooks in, all of them or, if one does not fit, none."""
        if self._manager.has_plugin(name) or self._manager.is_registered(plugin):
            return Problem(
                "E206",
                f"a plugin of the name {name}, or the same object, has been taken in already",
                "declare it once",
            )
        try:
            problem = self._check(plugin)
            if problem is None:
                self._manager.register(plugin, name=name)
        except Exception as error:  # pluggy's own validation, or an attribute that raises
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            problem = Problem("E206", f"its hooks cannot be read: {describe(error)}", "correct it", error)
        self._refresh()
        return problem

    def unregister(self, name: str) -> None:
        self._manager.unregister(name=name)
        self._refresh()

    def _refresh(self) -> None:
        # pluggy keeps them in the reverse of the order in which it calls them.
        self._before = self._manager.hook.before_generate.get_hookimpls()[::-1]
        self._after = self._manager.hook.after_generate.get_hookimpls()[::-1]
        self.before = bool(self._before)
        self.after = bool(self._after)

    def _check(self, plugin: object) -> Problem | None:
        """What pluggy finds too late or not at all: unknown hooks, surplus arguments, no hook."""
        if inspect.isclass(plugin):
            return Problem(
                "E206",
                f"it is the class {plugin.__qualname__}, whose hooks would be called without self"
                f"{source_of(plugin)}",
                "let the entry point name an instance or a module",
            )
        found = False
        for name in dir(plugin):
            options = self._manager.parse_hookimpl_opts(plugin, name)
            if options is None:
                continue
            found = True
            hook = options.get("specname") or name
            if hook not in _SPECS and options.get("optionalhook"):
                continue
            misfit = _misfit(hook, getattr(plugin, name), options)
            if misfit is not None:
                cause, hint = misfit
                return Problem("E206", cause + source_of(getattr(plugin, name)), hint)
        if not found:
            return Problem(
                "E206",
                f"no function in it is marked with stillhouse.hookimpl{source_of(plugin)}",
                "mark its hooks with @stillhouse.hookimpl",
            )
        return None

    def before_generate(
        self, llm: Any, input: Any, num_generations: int, arguments: Mapping[str, Any]
    ) -> Any:
        """The first answer of a plugin, or `None`. A plugin that raises is reported and passed over."""
        given = {
            "llm": llm,
            "input": input,
            "num_generations": num_generations,
            "arguments": arguments,
        }
        for hook in self._before:
            try:
                answer = hook.function(*[given[name] for name in hook.argnames])
                if answer is not None:
                    check_output(answer, num_generations, f"the hook plugin {hook.plugin_name}")
                    return answer
            except Exception as error:
                self._report("before_generate", hook.plugin_name, error)
        return None

    def after_generate(
        self,
        llm: Any,
        input: Any,
        num_generations: int,
        arguments: Mapping[str, Any],
        result: Any,
        from_hook: bool,
    ) -> None:
        """Tell every plugin what became of an input. A plugin that raises is reported and passed over."""
        failed = isinstance(result, GenerationError)
        given = {
            "llm": llm,
            "input": input,
            "num_generations": num_generations,
            "arguments": arguments,
            "output": None if failed else result,
            "error": result if failed else None,
            "from_hook": from_hook,
        }
        for hook in self._after:
            try:
                hook.function(*[given[name] for name in hook.argnames])
            except Exception as error:
                self._report("after_generate", hook.plugin_name, error)

    def open_reader(self, source: str) -> Any:
        """The reader of the first plugin that opens the source, or `None`."""
        return self._first("open_reader", {"source": source})

    def open_writer(self, target: str, schema: Any = None) -> Any:
        """The writer of the first plugin that opens the target, or `None`."""
        return self._first("open_writer", {"target": target, "schema": schema})

    def output_path(self, target: str) -> Any:
        """The path that the first plugin whose target it is gives, or `None`."""
        return self._first("output_path", {"target": target})

    def _first(self, name: str, given: Mapping[str, Any]) -> Any:
        """What the first plugin that answers says."""
        for hook in getattr(self._manager.hook, name).get_hookimpls()[::-1]:
            try:
                answer = hook.function(*[given[argument] for argument in hook.argnames])
            except StillhouseError:  # it is the plugin's, and it says what is wrong
                raise
            except Exception as error:
                self._report(name, hook.plugin_name, error)
            else:
                if answer is not None:
                    return answer
        return None

    def _report(self, hook: str, plugin: str, error: Exception) -> None:
        """Say once that a plugin's hook fails: a broken cache must not fail, or flood, a long run."""
        if (hook, plugin) not in self._reported:
            self._reported.add((hook, plugin))
            _logger.warning(
                "the hook %s of the plugin %s failed, and is passed over where it fails: %s; "
                "further failures of it are not reported",
                hook,
                plugin,
                describe(error),
            )


def _misfit(hook: str, method: Any, options: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with one hook, and what its author does about it."""
    if hook not in _SPECS:
        near = difflib.get_close_matches(hook, _SPECS, n=1)
        return f"there is no hook {hook}", f"rename it to {' or '.join(near or sorted(_SPECS))}"
    if options.get("wrapper") or options.get("hookwrapper"):
        return f"{hook} wraps the hooks of other plugins", "write it as a plain function"
    if inspect.iscoroutinefunction(method):
        return f"{hook} is a coroutine, but hooks are plain functions", "write it as def, not async def"
    known = _SPECS[hook]
    for item in inspect.signature(method).parameters.values():
        if item.name not in known and item.default is item.empty:
            return (
                f"{hook} takes {item.name}, but the hook has only {', '.join(known)}",
                f"take {item.name} out of its arguments",
            )
        if item.kind is item.KEYWORD_ONLY and item.default is item.empty:
            return (
                f"{hook} takes {item.name} by keyword, but hooks are called by place",
                "take the * out of its arguments",
            )
    return None
