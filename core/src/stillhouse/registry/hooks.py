"""The installed hooks: `Hooks` registers plugins, all of one or nothing, and calls each by itself.

Specifications, markers, registration and the order of the plugins are pluggy's. The calls are not: its
caller ends a call for all plugins when one raises, and hooks run for every row. So each function is called
here, its exception is logged, and the next plugin is asked. Hence wrappers, which need one call through all
plugins, and coroutines are rejected. What is used of pluggy is `parse_hookimpl_opts`, `register`,
`unregister` and `get_hookimpls`; docs/decisions/0001 has the reasons.
"""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

from stillhouse import hookspecs
from stillhouse._execution.exits import is_from_signal
from stillhouse.errors import GenerationError, StillhouseError
from stillhouse.outputs import check_output
from stillhouse.registry.problems import Problem, describe, source_of

if TYPE_CHECKING:
    import pyarrow as pa

    from stillhouse.protocols import RowReader, RowWriter
    from stillhouse.typing import GenerateOutput

__all__ = ["Hooks"]

_SPECS: dict[str, list[str]] = {
    name: list(inspect.signature(spec).parameters)
    for name, spec in vars(hookspecs).items()
    if hasattr(spec, f"{hookspecs.PROJECT}_spec")
}
"""The arguments of each hook, in their order."""

_logger = logging.getLogger("stillhouse.hooks")


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
        self._reported: set[tuple[str, str]] = set()
        self._refresh()

    @property
    def empty(self) -> bool:
        """Whether no plugin implements either of them."""
        return not (self.before or self.after)

    def register(self, name: str, plugin: object) -> Problem | None:
        """Add a plugin's hooks: all of them or, if one does not fit, none."""
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
        except BaseException as error:  # pluggy's own validation, or an attribute that raises
            if is_from_signal(error):
                raise
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            problem = Problem("E206", f"its hooks cannot be read: {describe(error)}", "correct it", error)
        self._refresh()
        return problem

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
            for name, arguments in _SPECS.items()
        }
        self._before = self._implementations["before_generate"]
        self._after = self._implementations["after_generate"]
        self.before = bool(self._before)
        self.after = bool(self._after)

    def _check(self, plugin: object) -> Problem | None:
        """Find what pluggy reports too late or not at all: unknown hooks, surplus arguments, no hook."""
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
        self, llm: object, input: object, num_generations: int, arguments: Mapping[str, Any]
    ) -> GenerateOutput | None:
        """Return the first answer of a plugin, or `None`. A plugin that raises is reported and skipped."""
        given = (llm, input, num_generations, arguments)
        for plugin, call, positions in self._before:
            try:
                answer: GenerateOutput | None = call(*map(given.__getitem__, positions))
                if answer is not None:
                    check_output(answer, num_generations, f"the hook plugin {plugin}")
                    return answer
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
    ) -> None:
        """Show every plugin the result of an input. A plugin that raises is reported and skipped."""
        given: tuple[object, ...]
        if isinstance(result, GenerationError):
            given = (llm, input, num_generations, arguments, None, result, from_hook)
        else:
            given = (llm, input, num_generations, arguments, result, None, from_hook)
        for plugin, call, positions in self._after:
            try:
                call(*map(given.__getitem__, positions))
            except BaseException as error:
                self._report("after_generate", plugin, error)

    def open_reader(self, source: str) -> RowReader | None:
        """Return the reader of the first plugin that opens the source, or `None`."""
        reader: RowReader | None = self._first("open_reader", source)
        return reader

    def open_writer(self, target: str, schema: pa.Schema | None = None) -> RowWriter | None:
        """Return the writer of the first plugin that opens the target, or `None`."""
        writer: RowWriter | None = self._first("open_writer", target, schema)
        return writer

    def output_path(self, target: str) -> Path | None:
        """Return the path of a target, from the first plugin that it belongs to, or `None`."""
        path: Path | None = self._first("output_path", target)
        return path

    def _first(self, name: str, *given: object) -> Any:
        """Return the first answer of a plugin to a hook, or `None`."""
        for plugin, call, positions in self._implementations[name]:
            try:
                answer = call(*map(given.__getitem__, positions))
                if answer is not None:
                    _check_answer(name, answer)
                    return answer
            except StillhouseError:  # the plugin's own, for the user
                raise
            except BaseException as error:
                self._report(name, plugin, error)
        return None

    def _report(self, hook: str, plugin: str, error: BaseException) -> None:
        """Log once that a plugin's hook fails: a broken cache must not fail a long run, nor flood its log.

        One that would end the program fails too: only a signal's exception is raised.
        """
        if is_from_signal(error):
            raise error
        if (hook, plugin) not in self._reported:
            self._reported.add((hook, plugin))
            _logger.warning(
                "the hook %s of the plugin %s failed, and is passed over where it fails: %s; "
                "further failures of it are not reported",
                hook,
                plugin,
                describe(error),
            )


# What is used of what a hook returns.
_MEMBERS = {
    "open_reader": ("__iter__", "schema", "share_read", "digest", "close"),
    "open_writer": ("write", "finish", "abandon"),
}


def _check_answer(hook: str, answer: object) -> None:
    """Refuse what a hook returned if it is nothing of what the hook must return.

    Raises:
        TypeError: it is not.
    """
    if hook == "output_path":
        if not isinstance(answer, Path):
            raise TypeError(f"it returned a {type(answer).__name__}, and not a pathlib.Path or None")
        return
    missing = [member for member in _MEMBERS[hook] if not hasattr(answer, member)]
    if missing:
        raise TypeError(f"it returned a {type(answer).__name__}, which has no {missing[0]}")


def _misfit(hook: str, method: Any, options: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return what is wrong with one hook and how to correct it, or `None`."""
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
