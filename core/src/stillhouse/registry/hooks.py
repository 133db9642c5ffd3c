"""The installed hooks: `Hooks` registers plugins, all of one or nothing, and calls each by itself.

Specifications, markers, registration and the order of the plugins are pluggy's. The calls are not: its
caller ends a call for all plugins when one raises, and hooks run for every row. So each function is called
here, its exception is logged, and the next plugin is asked. Hence wrappers, which need one call through all
plugins, and coroutines are rejected. What is used of pluggy is `parse_hookimpl_opts`, `register`,
`unregister` and `get_hookimpls`; docs/decisions/0001 has the reasons.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pluggy

from stillhouse import hookspecs
from stillhouse._execution.exits import is_from_signal
from stillhouse._execution.shown import shown
from stillhouse.errors import ConfigurationError, GenerationError, StillhouseError
from stillhouse.outputs import check_output
from stillhouse.registry.hook_formats import PluginReader, PluginWriter
from stillhouse.registry.hook_rules import SPECS, misfit, wanted
from stillhouse.registry.hook_settings import configured, describe_hook
from stillhouse.registry.problems import Problem, describe

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import pyarrow as pa

    from stillhouse.protocols import (
        Executor,
        OutputColumns,
        Row,
        RowReader,
        RowWriter,
        RunInfo,
        RunSummary,
    )
    from stillhouse.typing import GenerateOutput

__all__ = ["Hooks"]

_logger = logging.getLogger("stillhouse.hooks")

_NO_SETTINGS: Mapping[str, Any] = {}


class _Implementation(NamedTuple):
    """One plugin's function for one hook.

    Attributes:
        plugin: the name of the plugin.
        call: the function.
        positions: which of the hook's arguments it takes, in the order in which it takes them.
    """

    plugin: str
    call: Callable[..., Any]
    positions: tuple[int, ...]


class Hooks:
    """The registered hook plugins, and the calls of each hook.

    Each plugin is called by itself, so that an exception of one does not affect the others.

    Attributes:
        before: whether any plugin implements `before_generate`.
        after: whether any plugin implements `after_generate`.
    """

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._reported: dict[tuple[str, str], str] = {}
        self._refresh()

    @property
    def empty(self) -> bool:
        """Whether no plugin implements either of them."""
        return not (self.before or self.after)

    def register(
        self, name: str, plugin: object, table: Mapping[str, Any] = _NO_SETTINGS, source: str = ""
    ) -> Problem | None:
        """Add a plugin's hooks: all of them or, if one does not fit, none.

        Args:
            name: the name of the plugin.
            plugin: the module or object.
            table: its settings, as the config file has them.
            source: where they come from, for messages.

        Raises:
            ConfigurationError: a setting has a wrong name or value; nothing is added.
        """
        if self._manager.has_plugin(name) or self._manager.is_registered(plugin):
            return Problem(
                "E206",
                f"a plugin of the name {name}, or the same object, has been taken in already",
                "declare it once",
            )
        try:
            problem = misfit(plugin, self._manager)
            if problem is None:
                configured(plugin, self._manager, name, table, source)
                self._manager.register(plugin, name=name)
        except ConfigurationError:
            raise
        except BaseException as error:  # pluggy's own validation, or an attribute that raises
            if is_from_signal(error):
                raise
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            problem = Problem("E206", f"its hooks cannot be taken in: {describe(error)}", "correct it", error)
        self._refresh()
        return problem

    def describe(self, plugin: object) -> dict[str, Any] | Problem:
        """Describe a plugin that is not registered, as `describe_hook`, or return what is wrong with it."""
        try:
            return misfit(plugin, self._manager) or describe_hook(plugin, self._manager)
        except BaseException as error:
            if is_from_signal(error):
                raise
            return Problem("E206", f"it cannot be described: {describe(error)}", "correct it", error)

    def unregister(self, name: str) -> None:
        """Remove a plugin's hooks."""
        self._manager.unregister(name=name)
        self._refresh()

    def _refresh(self) -> None:
        # pluggy keeps them in the reverse of the order in which it calls them.
        self._implementations = {
            name: [
                _Implementation(
                    implementation.plugin_name,
                    implementation.function,
                    tuple(arguments.index(argument) for argument in implementation.argnames),
                )
                for implementation in reversed(getattr(self._manager.hook, name).get_hookimpls())
            ]
            for name, arguments in SPECS.items()
        }
        self._before = self._implementations["before_generate"]
        self._after = self._implementations["after_generate"]
        self.before = bool(self._before)
        self.after = bool(self._after)

    def before_generate(
        self,
        llm: object,
        input: object,
        num_generations: int,
        arguments: Mapping[str, Any],
        row: Row | None = None,
    ) -> GenerateOutput | None:
        """Return the first answer of a plugin, or `None`. A plugin that raises is reported and skipped."""
        given = (llm, input, num_generations, arguments, row)
        for plugin, call, positions in self._before:
            try:
                answer: GenerateOutput | None = call(*[shown(given[position]) for position in positions])
                if answer is not None:
                    check_output(answer, num_generations, f"the hook plugin {plugin}")
                    return cast("GenerateOutput", shown(answer))  # the plugin may keep its own
            except BaseException as error:
                self._report("before_generate", plugin, error)
        return None

    def after_generate(
        self,
        llm: object,
        input: object,
        num_generations: int,
        arguments: Mapping[str, Any],
        result: GenerateOutput | GenerationError,
        from_hook: bool,
        row: Row | None = None,
        seconds: float = 0.0,
    ) -> None:
        """Show every plugin the result of an input. A plugin that raises is reported and skipped."""
        given: tuple[object, ...]
        if isinstance(result, GenerationError):
            given = (llm, input, num_generations, arguments, None, result, from_hook, row, seconds)
        else:
            given = (llm, input, num_generations, arguments, result, None, from_hook, row, seconds)
        self._show_all("after_generate", self._after, given)

    def run_started(self, run: RunInfo) -> None:
        """Tell every plugin that a run begins."""
        self._show_all("run_started", self._implementations["run_started"], (run,))

    def run_finished(self, summary: RunSummary) -> None:
        """Tell every plugin how the work on a run ended."""
        self._show_all("run_finished", self._implementations["run_finished"], (summary,))

    def _show_all(self, hook: str, observers: list[_Implementation], given: tuple[object, ...]) -> None:
        for plugin, call, positions in observers:
            try:
                call(*[shown(given[position]) for position in positions])
            except BaseException as error:
                self._report(hook, plugin, error)

    def make_executor(
        self, name: str, address: str | None, llm: object, workers: int | None
    ) -> AbstractContextManager[Executor] | None:
        """Return the executor of the first plugin that has one of this name, or `None`."""
        found = self._first("make_executor", name, address, llm, workers)
        if found is None:
            return None
        # A viewer has hooks too, and no executor.
        from stillhouse.registry.hook_executors import PluginExecutor, most_ahead

        return PluginExecutor(*found, most_ahead=most_ahead(llm, workers))

    def failures(self, hook: str) -> Mapping[str, str]:
        """Return what was reported of plugins in which a hook failed, by their names."""
        return {plugin: said for (name, plugin), said in self._reported.items() if name == hook}

    def open_reader(self, source: str) -> RowReader | None:
        """Return the reader of the first plugin that opens the source, or `None`."""
        found = self._first("open_reader", source)
        return None if found is None else PluginReader(*found)

    def open_writer(
        self, target: str, schema: pa.Schema | None = None, columns: OutputColumns | None = None
    ) -> RowWriter | None:
        """Return the writer of the first plugin that opens the target, or `None`."""
        found = self._first("open_writer", target, schema, columns)
        return None if found is None else PluginWriter(*found)

    def output_path(self, target: str) -> Path | None:
        """Return the path of a target, from the first plugin that it belongs to, or `None`."""
        found = self._first("output_path", target)
        return None if found is None else Path(found[1])

    def _first(self, name: str, *given: object) -> tuple[str, Any] | None:
        """Return the first answer of a plugin to a hook with the name of the plugin, or `None`."""
        for plugin, call, positions in self._implementations[name]:
            try:
                answer = call(*map(given.__getitem__, positions))
            except StillhouseError:  # the plugin's own, for the user
                raise
            except BaseException as error:
                self._report(name, plugin, error)
            else:
                if answer is None:
                    continue
                lacking = wanted(name, answer)
                if not lacking:
                    return plugin, answer
                self._report(name, plugin, TypeError(f"it returned {type(answer).__name__}, {lacking}"))
        return None

    def _report(self, hook: str, plugin: str, error: BaseException) -> None:
        """Log once that a plugin's hook fails: a broken cache must not fail a long run, nor flood its log.

        One that would end the program fails too: only a signal's exception is raised.
        """
        if is_from_signal(error):
            raise error
        if (hook, plugin) not in self._reported:
            self._reported[hook, plugin] = describe(error)
            _logger.warning(
                "the hook %s of the plugin %s failed, and is passed over where it fails: %s; "
                "further failures of it are not reported",
                hook,
                plugin,
                self._reported[hook, plugin],
            )
