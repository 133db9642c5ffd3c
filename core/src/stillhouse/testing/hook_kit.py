"""`HookKit`: the base of the rules on plugins of hooks: takes one in, and calls what it implements."""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pluggy
import pytest

from stillhouse import hookspecs
from stillhouse._execution.exits import is_from_signal
from stillhouse.errors import GenerationError
from stillhouse.registry.candidates import Candidate
from stillhouse.registry.hook_rules import implemented
from stillhouse.registry.policy import Policy
from stillhouse.registry.registry import Registry
from stillhouse.testing.kit import Kit
from stillhouse.testing.rule import Broken, unseen

__all__ = ["HookKit", "raised_in"]

_NAME = "under-test"


class HookKit(Kit):
    """The base of the rules on plugins of hooks. An author gives `make`."""

    settings: ClassVar[Mapping[str, Any]] = {}
    """What the table `[hooks.NAME]` of the config file holds in the tests."""

    _looked_at: ClassVar[Any] = None

    def make(self) -> object:
        """Return the plugin: the module or the object that the entry point names."""
        raise NotImplementedError(f"{type(self).__name__} has no make(): return the module or the object")

    @classmethod
    def teardown_class(cls) -> None:
        """Clean up; pytest calls it after the last test of the class."""
        cls._looked_at = None

    @pytest.fixture(autouse=True)
    def _clean_up(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Iterator[None]:
        """Leave the user's own state alone, and close what a test opened."""
        for variable, name in (("STILLHOUSE_STATE_DIR", "state"), ("XDG_CACHE_HOME", "cache")):
            monkeypatch.setenv(variable, str(tmp_path / name))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        self._folder = tmp_path / "rows"
        self._folder.mkdir()
        self._stack = contextlib.ExitStack()
        yield
        self._stack.close()
        if self._looked_at is not None:
            request.node.user_properties.append(("conformance_backend", self._name()))

    @property
    def plugin(self) -> Any:
        """The plugin."""
        cls = type(self)
        if cls._looked_at is None:
            cls._looked_at = self.make()
        return cls._looked_at

    def _made_of(self) -> tuple[type, ...]:
        made = type(self)._looked_at
        return () if made is None or inspect.ismodule(made) else type(made).__mro__

    @property
    def _packages(self) -> set[str]:
        made = type(self)._looked_at
        own = {made.__name__.partition(".")[0]} if inspect.ismodule(made) else set()
        return super()._packages | own

    def _name(self) -> str:
        made = self.plugin
        if inspect.ismodule(made):
            return made.__name__
        return f"{type(made).__module__}.{type(made).__qualname__}"

    @property
    def hooks(self) -> dict[str, Any]:
        """The functions of the plugin, by the name of the hook."""
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        return {name: function for name, function, _ in implemented(self.plugin, manager)}

    def call(self, hook: str, **given: Any) -> Any:
        """Call a hook of the plugin itself, with as many of these arguments as it takes."""
        function = self.hooks[hook]
        taken = inspect.signature(function).parameters
        return function(**{name: value for name, value in given.items() if name in taken})

    def needs(self, *hooks: str) -> None:
        """Skip the rule unless the plugin implements one of these hooks."""
        if not any(hook in self.hooks for hook in hooks):
            unseen(f"it does not implement {' or '.join(hooks)}")

    def registry(self) -> Registry:
        """Return a registry with this plugin and nothing else that is installed."""
        registry = Registry(entry_points=[], policy=Policy(hooks={_NAME: self.settings}))
        registry.register_hooks(_NAME, self.plugin)
        return registry

    @contextlib.contextmanager
    def recorded(self) -> Iterator[tuple[Registry, list[tuple[str, BaseException]]]]:
        """Make a registry, and a list that gets what hooks raise, which a run only logs."""
        registry = self.registry()
        raised: list[tuple[str, BaseException]] = []
        lock = threading.Lock()

        def record(hook: str, _: str, error: BaseException) -> None:
            if is_from_signal(error):
                raise error
            if isinstance(error, GenerationError) and error.message.startswith("the hook plugin "):
                return  # an answer that does not fit, of which a rule of its own speaks
            with lock:
                raised.append((hook, error))

        vars(registry.hooks())["_report"] = record
        with self._observed():
            yield registry, raised

    def found(self) -> Candidate:
        """Return the candidate of the plugin; without one, one rule is broken and the others are skipped."""
        try:
            return self.candidate()
        except Broken:
            pytest.skip("no entry point leads to the plugin")

    def candidate(self) -> Candidate:
        """Return the entry point that leads to the plugin."""
        import importlib_metadata

        from stillhouse.registry.loading import load_hook

        registry = Registry(importlib_metadata.entry_points(group="stillhouse.hooks"), Policy())
        top = self._name().partition(".")[0]
        for info in registry.plugins():
            candidate = info.candidate
            if candidate.kind != "hook" or not candidate.distribution:
                continue
            if candidate.value.strip().partition(".")[0].partition(":")[0].strip() != top:
                continue
            value = load_hook(candidate).value
            if value is self.plugin or (not inspect.ismodule(value) and type(value) is type(self.plugin)):
                return candidate
        raise Broken(f"none of the entry points in stillhouse.hooks leads to {self._name()}")


def raised_in(found: list[tuple[str, BaseException]], where: str) -> None:
    """Break the rule if a hook raised something.

    Args:
        found: the hooks, and what each raised.
        where: what was going on.
    """
    if found:
        hook, error = found[0]
        raise Broken(f"{hook} raised {type(error).__name__}: {error}, {where}") from error
