"""The installed hooks: registering them with validation, and calling them without being broken by one."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any

import pluggy

from stillhouse.errors import GenerationError
from stillhouse.registry import hookspecs
from stillhouse.registry.trouble import Trouble

__all__ = ["Hooks"]

_logger = logging.getLogger("stillhouse.hooks")


class Hooks:
    """The registered hook plugins, and the calls of each hook.

    Attributes:
        before: whether any plugin implements `before_generate`.
        after: whether any plugin implements `after_generate`.
    """

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._reported: set[str] = set()
        self.before = False
        self.after = False

    @property
    def empty(self) -> bool:
        return not (self.before or self.after)

    def register(self, name: str, plugin: object) -> Trouble | None:
        """Take a plugin's hooks in, all of them or, if one does not fit, none."""
        trouble = self._misfit(plugin)
        if trouble is None:
            try:
                self._manager.register(plugin, name=name)
            except (pluggy.PluginValidationError, ValueError) as error:
                if self._manager.is_registered(plugin):
                    self._manager.unregister(plugin)
                trouble = Trouble("E206", str(error).splitlines()[-1].strip(), _hint())
        self._refresh()
        return trouble

    def unregister(self, name: str) -> None:
        self._manager.unregister(name=name)
        self._refresh()

    def _refresh(self) -> None:
        self.before = bool(self._manager.hook.before_generate.get_hookimpls())
        self.after = bool(self._manager.hook.after_generate.get_hookimpls())

    def _misfit(self, plugin: object) -> Trouble | None:
        """What pluggy finds too late or not at all: unknown hooks, surplus arguments, no hook."""
        found = False
        for name in dir(plugin):
            options = self._manager.parse_hookimpl_opts(plugin, name)
            if options is None:
                continue
            found = True
            hook = options.get("specname") or name
            spec: Any = getattr(hookspecs, hook, None)
            if not hasattr(spec, f"{hookspecs.PROJECT}_spec"):
                if options.get("optionalhook"):
                    continue
                return Trouble("E206", f"there is no hook {hook}", _hint())
            known = list(inspect.signature(spec).parameters)
            method = getattr(plugin, name)
            if inspect.iscoroutinefunction(method):
                return Trouble("E206", f"{hook} is a coroutine, but hooks are plain functions", _hint())
            surplus = [
                item.name
                for item in inspect.signature(method).parameters.values()
                if item.name not in known and item.default is item.empty
            ]
            if surplus:
                return Trouble(
                    "E206",
                    f"{hook} takes {', '.join(surplus)}, but the hook has only {', '.join(known)}",
                    _hint(),
                )
        if not found:
            return Trouble("E206", "nothing in it is marked with stillhouse.hookimpl", _hint())
        return None

    def before_generate(
        self, llm: Any, input: Any, num_generations: int, arguments: Mapping[str, Any]
    ) -> Any:
        """The first answer of a plugin, or `None`. A plugin that raises is reported and passed over."""
        try:
            answer = self._manager.hook.before_generate(
                llm=llm, input=input, num_generations=num_generations, arguments=arguments
            )
        except Exception as error:
            self._report("before_generate", error)
            return None
        if answer is not None and len(answer.get("generations", ())) != num_generations:
            self._report("before_generate", ValueError("its answer has a wrong number of generations"))
            return None
        return answer

    def after_generate(
        self,
        llm: Any,
        input: Any,
        num_generations: int,
        arguments: Mapping[str, Any],
        result: Any,
        from_hook: bool,
    ) -> None:
        """Tell every plugin what became of an input."""
        failed = isinstance(result, GenerationError)
        try:
            self._manager.hook.after_generate(
                llm=llm,
                input=input,
                num_generations=num_generations,
                arguments=arguments,
                output=None if failed else result,
                error=result if failed else None,
                from_hook=from_hook,
            )
        except Exception as error:
            self._report("after_generate", error)

    def _report(self, hook: str, error: Exception) -> None:
        """Say once per hook that it fails: a broken cache must not fail, or flood, a long run."""
        text = f"{type(error).__name__}: {error}"
        if hook not in self._reported:
            self._reported.add(hook)
            plugins = ", ".join(
                item.plugin_name for item in getattr(self._manager.hook, hook).get_hookimpls()
            )
            _logger.warning(
                "the hook %s failed and is passed over (%s); it comes from: %s", hook, text, plugins
            )


def _hint() -> str:
    return "pip install --upgrade the package, or report it to its authors"
