"""`Registry`: the installed plugins, the state of each, and the class behind a name.

Over 300 lines: it is one class, and most lines document its members.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from stillhouse._execution.exits import ended
from stillhouse.errors import ConfigurationError, PluginError, UnknownLLMError
from stillhouse.registry.assessment import Assessment, listing_order
from stillhouse.registry.candidates import HOOKS_GROUP, LLMS_GROUP, Candidate
from stillhouse.registry.discovery import Discovery
from stillhouse.registry.info import PluginInfo, errors
from stillhouse.registry.policy import Policy
from stillhouse.registry.problems import plugin_error
from stillhouse.registry.rules import static_problems

if TYPE_CHECKING:
    import importlib_metadata

    from stillhouse.llm import LLM
    from stillhouse.registry.hooks import Hooks

__all__ = ["Registry", "default_registry"]


class Registry:
    """Finds backends by name among the installed packages, and loads the requested one.

    Discovery reads metadata and imports nothing. It happens at the first call that needs it, and its result
    is kept until `refresh()`. The switches are read once per call.

    Args:
        entry_points: entry points to use instead of those of the installed distributions.
        policy: a policy to use instead of the environment and the user's config file.
    """

    def __init__(
        self,
        entry_points: Iterable[importlib_metadata.EntryPoint] | None = None,
        policy: Policy | None = None,
    ) -> None:
        self._entry_points = None if entry_points is None else list(entry_points)
        self._policy = policy
        self._lock = threading.RLock()
        self._discovery = Discovery(self._entry_points, policy, self._lock)
        self._hooks: Hooks | None = None
        self._registered: dict[str, type[LLM]] = {}
        self._registered_hooks: dict[str, object] = {}

    # What is installed

    @property
    def core_version(self) -> str:
        """The installed version of stillhouse."""
        return self._discovery.scan().core_version

    def plugins(self) -> list[PluginInfo]:
        """List every LLM and every hook plugin, sorted by name, without importing any."""
        return self._plugins(self._discovery.assess())

    def available_llms(self) -> list[PluginInfo]:
        """List every LLM, whatever its state, sorted by name, without importing any."""
        return [info for info in self.plugins() if info.kind == "llm"]

    def warnings(self) -> list[str]:
        """List names in the switches that are not installed, and packages that cannot be read."""
        return list(self._discovery.assess().warnings)

    def refresh(self) -> None:
        """Forget what was discovered and loaded, so that newly installed packages are found.

        Python keeps modules that it has imported: a package that was *upgraded* in the meantime
        needs a new process. What `register` added stays.
        """
        with self._lock:
            importlib.invalidate_caches()
            self._discovery = Discovery(self._entry_points, self._policy, self._lock)
            self._hooks = None

    # The class behind a name

    def get_llm(self, name: str) -> type[LLM]:
        """Return the class of the LLM `name`, imported and validated at the first call.

        Raises:
            UnknownLLMError: nothing of that name is installed, or it is switched off.
            PluginError: it is installed and unusable; the report says why and what to try.
        """
        return self._get_llm(name)

    @property
    def default_llm(self) -> str:
        """The default LLM of the user's config file, or an empty string."""
        return self._discovery.assess().policy.llm

    @property
    def aliases(self) -> dict[str, str]:
        """The aliases of the user's config file and their targets, each `NAME` or `NAME:MODEL`."""
        return dict(self._discovery.assess().policy.aliases)

    def resolve(self, spec: str) -> str:
        """Return the target of an alias; any other text is returned unchanged.

        An installed LLM wins over an alias of the same name. A name with a model is never an alias.

        Raises:
            UnknownLLMError, PluginError: as `get_llm`, for the target of an alias.
        """
        return self._resolve(spec, self._discovery.assess())

    def _resolve(self, spec: str, assessment: Assessment) -> str:
        policy = assessment.policy
        target = policy.aliases.get(spec)
        if target is None or spec in self._registered or assessment.has_llm(spec):
            return spec
        try:
            self._get_llm(target.partition(":")[0], assessment)
        except UnknownLLMError as error:
            raise UnknownLLMError(
                f"the alias {spec!r} in {policy.sources.get('aliases', 'the policy')} "
                f"stands for {target!r}: {error.message}",
                name=error.name,
                hint=error.hint,
            ) from None
        return target

    def create(self, spec: str, **fields: Any) -> LLM:
        """Create an LLM; it is not loaded yet.

        Args:
            spec: `NAME`, `NAME:MODEL`, or an alias of the user's config file; the model sets the field
                `model`.
            fields: the fields of the LLM.

        Raises:
            UnknownLLMError, PluginError: as `get_llm`.
            ConfigurationError: a field has a wrong name or value.
        """
        assessment = self._discovery.assess()
        spec = self._resolve(spec, assessment)
        name, separator, model = spec.partition(":")
        cls = self._get_llm(name, assessment)
        if separator:
            if "model" in fields:
                raise ConfigurationError(
                    f"the model is given twice, in {spec!r} and as model={fields['model']!r}",
                    hint="give it once",
                )
            if not model:
                raise ConfigurationError(
                    f"{spec!r} names no model after the colon", hint=f"write {name}:MODEL"
                )
            if "model" not in cls.model_fields:
                raise ConfigurationError(f"{name} has no model to choose", hint=f"write {name} alone")
            fields["model"] = model
        from pydantic import ValidationError

        from stillhouse._settings.runtime import configuration_error

        try:
            llm = cls(**fields)
        except ValidationError as error:
            raise configuration_error(error, cls, name) from None
        except BaseException as error:
            raise ended(error, cls.__name__)  # noqa: B904  -- it is itself, or has a cause
        llm.use_registry(self)
        return llm

    def register(self, name: str, cls: type[LLM]) -> None:
        """Register a class under a name, for tests and notebooks. It wins over an installed one.

        Raises:
            PluginError: the name or the class breaks a rule.
        """
        from stillhouse.registry.validation import validate_llm

        candidate = _candidate(name, cls)
        wrong_name = (item for item in static_problems(candidate, "") if item.code == "E101")
        problem = next(wrong_name, None) or validate_llm(cls)
        if problem is not None:
            raise plugin_error(candidate, problem)
        with self._lock:
            self._registered[name] = cls

    def name_of(self, cls: type[LLM]) -> str:
        """Return the name of `cls` in the registry, without importing another package.

        Raises:
            ConfigurationError: no usable name leads to this class.
        """
        for name, registered in self._registered.items():
            if registered is cls:
                return name
        top = cls.__module__.partition(".")[0]
        assessment = self._discovery.assess()
        for info in assessment.infos:
            module, _, attribute = info.candidate.value.partition(":")
            if (
                info.kind != "llm"
                or module.partition(".")[0] != top
                or attribute.split("[")[0].strip() != cls.__qualname__
            ):
                continue
            try:
                if self._get_llm(info.name, assessment) is cls:
                    return info.name
            except (PluginError, UnknownLLMError):
                continue
        raise ConfigurationError(
            f"{cls.__qualname__} is not a registered backend, so a file cannot name it",
            hint="declare an entry point in stillhouse.llms, "
            "or call stillhouse.default_registry().register(NAME, CLASS) first",
        )

    def check(self, names: Iterable[str] = ()) -> list[PluginInfo]:
        """Import and validate plugins, and return the state of each.

        Args:
            names: the plugins to check; all, if empty.

        Raises:
            UnknownLLMError: nothing of one of the names is installed.
        """
        wanted = list(names)
        assessment = self._discovery.assess()
        infos = self._plugins(assessment)
        for name in wanted:
            if not any(info.name == name for info in infos):
                raise assessment.unknown(name, self._registered)
        for info in infos:
            chosen = not wanted or info.name in wanted
            if chosen and info.status in ("built-in", "found"):
                with self._lock:
                    if info.kind == "llm":
                        self._discovery.load(info.candidate)
                    elif self._hooks is None:
                        self._hooks = self._load_hooks(infos, log=False)
        return [info for info in self._plugins(assessment) if not wanted or info.name in wanted]

    # Hooks

    def hooks(self) -> Hooks:
        """Return the hooks of every usable hook plugin, imported at the first call."""
        with self._lock:
            if self._hooks is None:
                self._hooks = self._load_hooks(self.plugins(), log=True)
            return self._hooks

    def _load_hooks(self, infos: Iterable[PluginInfo], *, log: bool) -> Hooks:
        from stillhouse.registry.hook_loading import load_hooks

        return load_hooks(infos, self._discovery, self._registered_hooks, log=log)

    def describe_hook(self, name: str) -> dict[str, Any]:
        """Describe the hook plugin `name`, imported at the first call, as JSON types.

        Returns:
            A dict with `description`, `hooks` (the names of those that it implements), and `settings`: a list
            of dicts with `name`, `type`, `required`, `default` and `description`.

        Raises:
            UnknownLLMError: no hook of that name is installed.
            ConfigurationError: it is switched off.
            PluginError: it is installed and unusable; the report says why and what to try.
        """
        from stillhouse.registry.hook_loading import find_hook, loaded_description

        info = find_hook(name, self.plugins(), self._discovery.assess(), self._registered)
        with self._lock:
            return loaded_description(info, self._discovery)

    def register_hooks(self, name: str, plugin: object) -> None:
        """Add the hooks of an object or a module, for tests and notebooks.

        Raises:
            PluginError: a hook does not fit its specification.
            ConfigurationError: the config file has settings for this name that the plugin refuses.
        """
        problem = self.hooks().register(name, plugin, *self._discovery.assess().policy.table_of(name))
        if problem is not None:
            candidate = Candidate(name, type(plugin).__qualname__, HOOKS_GROUP)
            raise plugin_error(candidate, problem)
        self._registered_hooks[name] = plugin

    def unregister_hooks(self, name: str) -> None:
        """Remove the hooks that `register_hooks` added."""
        del self._registered_hooks[name]
        self.hooks().unregister(name)

    # Inside

    def _plugins(self, assessment: Assessment) -> list[PluginInfo]:
        """Return every plugin as it is now, in the order of a listing."""
        registered = dict(self._registered)
        infos = [
            self._discovery.now(info)
            for info in assessment.infos
            if not (info.status == "built-in" and info.name in registered)
        ]
        if registered:
            infos += [PluginInfo(name, "loaded", _candidate(name, cls)) for name, cls in registered.items()]
            infos.sort(key=listing_order)
        return infos

    def _get_llm(self, name: str, assessment: Assessment | None = None) -> type[LLM]:
        """Return the class of an LLM; errors as `get_llm`."""
        with self._lock:
            if name in self._registered:
                return self._registered[name]
            assessment = assessment or self._discovery.assess()
            self._discovery.warn(assessment)
            info = self._discovery.now(assessment.find(name, self._registered))
            for problem in errors(info.troubles):
                raise plugin_error(info.candidate, problem) from problem.exception
            loaded = self._discovery.load(info.candidate)
            if loaded.error is not None:
                raise plugin_error(info.candidate, loaded.error) from loaded.error.exception
            cls: type[LLM] = loaded.value
            return cls


def _candidate(name: str, cls: Any) -> Candidate:
    value = f"{getattr(cls, '__module__', '')}:{getattr(cls, '__qualname__', cls)}"
    summary = (getattr(cls, "__doc__", None) or "").strip().partition("\n")[0]
    return Candidate(name, value, LLMS_GROUP, summary=summary)


_default = Registry()


def default_registry() -> Registry:
    """Return the registry that `stillhouse.create` and the other functions of the package use."""
    return _default
