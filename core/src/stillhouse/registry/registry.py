"""The registry: which LLMs there are, in which state each is, and the class behind a name."""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from stillhouse.errors import ConfigurationError, PluginError, UnknownLLMError, near_matches
from stillhouse.registry.candidates import Candidate, Scan, from_entry_points, normalize, scan
from stillhouse.registry.known import BUILT_IN, PACKAGES
from stillhouse.registry.loading import Loaded, load_hook, load_llm, with_user_hint
from stillhouse.registry.policy import Policy
from stillhouse.registry.problems import Problem, plugin_error, report
from stillhouse.registry.rules import conflicts, static_problems

if TYPE_CHECKING:
    import importlib_metadata

    from stillhouse.llm import LLM
    from stillhouse.registry.hooks import Hooks

__all__ = ["PluginInfo", "Registry", "Status", "default_registry"]

Status = Literal["built-in", "found", "disabled", "incompatible", "conflict", "loaded", "failed"]

_logger = logging.getLogger("stillhouse.registry")


@dataclass(frozen=True)
class PluginInfo:
    """What is known of one plugin now.

    Attributes:
        name: the name under which it is asked for.
        status: its state. `built-in` and `found` have not been imported yet.
        candidate: what its metadata says.
        troubles: what is wrong with it, as far as is known without loading it or since it was.
    """

    name: str
    status: Status
    candidate: Candidate
    troubles: tuple[Problem, ...] = ()

    @property
    def kind(self) -> str:
        return self.candidate.kind

    @property
    def package(self) -> str:
        """Distribution and version."""
        return self.candidate.package

    @property
    def summary(self) -> str:
        return self.candidate.summary

    @property
    def reports(self) -> list[str]:
        """Each problem as people read it."""
        return [report(self.candidate, problem) for problem in self.troubles]


@dataclass
class _State:
    """What a registry remembers between calls; `refresh()` drops all of it but `registered`."""

    scan: Scan | None = None
    loaded: dict[Candidate, Loaded] = field(default_factory=dict)
    hooks: Hooks | None = None
    warned: set[str] = field(default_factory=set)


class Registry:
    """Finds backends by name among the installed packages and loads the one that is asked for.

    Discovery reads metadata, imports nothing, happens at the first call that needs it and is
    remembered until `refresh()`. The switches are read at every call.

    Args:
        entry_points: use these instead of looking through the installed distributions.
        policy: use this instead of reading the environment and the user's config file.
    """

    def __init__(
        self,
        entry_points: Iterable[importlib_metadata.EntryPoint] | None = None,
        policy: Policy | None = None,
    ) -> None:
        self._entry_points = None if entry_points is None else list(entry_points)
        self._policy = policy
        self._lock = threading.RLock()
        self._state = _State()
        self._registered: dict[str, type[LLM]] = {}
        self._registered_hooks: dict[str, object] = {}

    # What there is

    @property
    def core_version(self) -> str:
        """The version of stillhouse that is installed."""
        return self._scan().core_version

    def plugins(self) -> list[PluginInfo]:
        """Every LLM and every hook plugin there is, sorted by name, without importing any."""
        policy = self._read_policy()
        scan = self._scan()
        infos = []
        by_name: dict[tuple[str, str], list[tuple[Candidate, list[Problem]]]] = {}
        for candidate in scan.candidates:
            problems = static_problems(candidate, scan.core_version)
            if policy.switched_off_by(candidate.distribution):
                # Its problems are nobody's while it is off: this is how a user is rid of them.
                infos.append(PluginInfo(candidate.name, "disabled", candidate))
            else:
                by_name.setdefault((candidate.kind, candidate.name), []).append((candidate, problems))
        for judged in by_name.values():
            usable = [item for item, problems in judged if not _errors(problems)]
            claimants = conflicts(usable, policy) if len(usable) > 1 else {}
            for candidate, problems in judged:
                if candidate in claimants:
                    problems.append(claimants[candidate])
                infos.append(self._info(candidate, problems))
        infos += [self._registered_info(name, cls) for name, cls in self._registered.items()]
        infos += [
            self._info(candidate, [])
            for name, candidate in self._built_in().items()
            if name not in self._registered
        ]
        return sorted(infos, key=lambda info: (info.kind != "llm", *info.candidate.sort_key))

    def available_llms(self) -> list[PluginInfo]:
        """Every LLM there is, in whatever state, sorted by name, without importing any."""
        return [info for info in self.plugins() if info.kind == "llm"]

    def warnings(self) -> list[str]:
        """What the switches name and nobody has installed, and packages that cannot be read."""
        scan = self._scan()
        return [*scan.warnings, *self._read_policy().warnings(scan.candidates)]

    def refresh(self) -> None:
        """Forget what was discovered and loaded, so that newly installed packages are found.

        Python keeps modules that it has imported: a package that was *upgraded* in the meantime
        needs a new process. What `register` added stays.
        """
        with self._lock:
            importlib.invalidate_caches()
            self._state = _State()

    # The class behind a name

    def get_llm(self, name: str) -> type[LLM]:
        """The class of the LLM `name`, imported and validated at the first call.

        Raises:
            UnknownLLMError: nothing of that name is installed, or it is switched off.
            PluginError: it is installed and unusable; the report says why and what to try.
        """
        with self._lock:
            if name in self._registered:
                return self._registered[name]
            info = self._find(name)
            errors = _errors(info.troubles)
            if errors:
                raise plugin_error(info.candidate, errors[0]) from errors[0].exception
            loaded = self._load(info.candidate)
            if loaded.error is not None:
                raise plugin_error(info.candidate, loaded.error) from loaded.error.exception
            cls: type[LLM] = loaded.value
            return cls

    def create(self, spec: str, **fields: Any) -> LLM:
        """A new LLM, not loaded yet.

        Args:
            spec: `NAME` or `NAME:MODEL`; the model sets the field `model`.
            fields: the fields of the LLM.

        Raises:
            UnknownLLMError, PluginError: as `get_llm`.
            ConfigurationError: a field has a wrong name or value.
        """
        name, separator, model = spec.partition(":")
        cls = self.get_llm(name)
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
        llm.use_registry(self)
        return llm

    def register(self, name: str, cls: type[LLM]) -> None:
        """Make a class known under a name, for tests and notebooks. It wins over installed ones.

        Raises:
            PluginError: the name or the class breaks a rule.
        """
        from stillhouse.registry.validation import validate_llm

        candidate = _registered_candidate(name, cls)
        problems = [item for item in static_problems(candidate, "") if item.code == "E101"]
        problem = problems[0] if problems else validate_llm(cls)
        if problem is not None:
            raise plugin_error(candidate, problem)
        with self._lock:
            self._registered[name] = cls

    def name_of(self, cls: type[LLM]) -> str:
        """The name under which `cls` can be asked for. Imports no package that is not imported yet.

        Raises:
            ConfigurationError: no usable name leads to this class.
        """
        for name, registered in self._registered.items():
            if registered is cls:
                return name
        top = cls.__module__.partition(".")[0]
        for info in self.available_llms():
            module, _, attribute = info.candidate.value.partition(":")
            if module.partition(".")[0] != top or attribute.split("[")[0].strip() != cls.__qualname__:
                continue
            try:
                if self.get_llm(info.name) is cls:
                    return info.name
            except (PluginError, UnknownLLMError):
                continue
        raise ConfigurationError(
            f"{cls.__qualname__} is not a registered backend, so a file cannot name it",
            hint="declare an entry point in stillhouse.llms, "
            "or call stillhouse.default_registry().register(NAME, CLASS) first",
        )

    def check(self, names: Iterable[str] = ()) -> list[PluginInfo]:
        """Import and validate plugins, and say what became of each.

        Args:
            names: the plugins to check; all, if empty.

        Raises:
            UnknownLLMError: nothing of one of the names is installed.
        """
        wanted = list(names)
        infos = self.plugins()
        for name in wanted:
            if not any(info.name == name for info in infos):
                raise self._unknown(name, infos)
        for info in infos:
            chosen = not wanted or info.name in wanted
            if chosen and info.status in ("built-in", "found"):
                with self._lock:
                    if info.kind == "llm":
                        self._load(info.candidate)
                    elif self._state.hooks is None:
                        self._state.hooks = self._load_hooks(tell=False)
        return [info for info in self.plugins() if not wanted or info.name in wanted]

    # Hooks

    def hooks(self) -> Hooks:
        """The hooks of every usable hook plugin, imported at the first call."""
        with self._lock:
            if self._state.hooks is None:
                self._state.hooks = self._load_hooks(tell=True)
            return self._state.hooks

    def _load_hooks(self, *, tell: bool) -> Hooks:
        from stillhouse.registry.hooks import Hooks

        hooks = Hooks()
        for info in self.plugins():
            if info.kind != "hook" or info.status == "disabled":
                continue
            error = next(iter(_errors(info.troubles)), None)
            if error is None:
                loaded = self._load(info.candidate)
                error = loaded.error
                if error is None:
                    error = with_user_hint(hooks.register(info.name, loaded.value), info.candidate)
                    self._state.loaded[info.candidate] = loaded._replace(error=error)
            if error is not None and tell:
                # Nobody asks for a hook by name, so this is where its absence is told.
                _logger.warning("%s", report(info.candidate, error))
        for name, plugin in self._registered_hooks.items():
            hooks.register(name, plugin)
        return hooks

    def register_hooks(self, name: str, plugin: object) -> None:
        """Take in the hooks of an object or a module, for tests and notebooks.

        Raises:
            PluginError: a hook does not fit its specification.
        """
        problem = self.hooks().register(name, plugin)
        if problem is not None:
            candidate = Candidate(name, type(plugin).__qualname__, "stillhouse.hooks")
            raise plugin_error(candidate, problem)
        self._registered_hooks[name] = plugin

    def unregister_hooks(self, name: str) -> None:
        """Take out what `register_hooks` took in."""
        del self._registered_hooks[name]
        self.hooks().unregister(name)

    # Inside

    def _scan(self) -> Scan:
        with self._lock:
            if self._state.scan is None:
                if self._entry_points is None:
                    self._state.scan = scan()
                else:
                    import importlib_metadata

                    self._state.scan = from_entry_points(
                        self._entry_points, importlib_metadata.version("stillhouse")
                    )
            return self._state.scan

    def _read_policy(self) -> Policy:
        return Policy.read() if self._policy is None else self._policy

    def _built_in(self) -> dict[str, Candidate]:
        return {
            name: Candidate(
                name=name,
                value=value,
                group="stillhouse.llms",
                distribution="stillhouse",
                version=self.core_version,
                summary="Answers with its input; no model",
            )
            for name, value in BUILT_IN.items()
        }

    def _info(self, candidate: Candidate, problems: list[Problem]) -> PluginInfo:
        loaded = self._state.loaded.get(candidate)
        if loaded is not None:
            problems = [*problems, *(item for item in (loaded.error, loaded.warning) if item)]
        codes = {problem.code for problem in _errors(problems)}
        status: Status
        if codes & {"E104", "E105"}:
            status = "incompatible"
        elif codes & {"E102", "E103"}:
            status = "conflict"
        elif codes:
            status = "failed"
        elif loaded is not None:
            status = "loaded"
        elif candidate.distribution == "stillhouse":
            status = "built-in"
        else:
            status = "found"
        return PluginInfo(candidate.name, status, candidate, tuple(problems))

    def _registered_info(self, name: str, cls: type[LLM]) -> PluginInfo:
        return PluginInfo(name, "loaded", _registered_candidate(name, cls))

    def _find(self, name: str) -> PluginInfo:
        infos = self.plugins()
        self._warn_of_switches()
        policy = self._read_policy()
        preferred = policy.prefer.get(name, "")
        own = [info for info in infos if info.kind == "llm" and info.name == name]

        def rank(info: PluginInfo) -> tuple[bool, bool, bool]:
            # Not by whether it could be loaded: the same question gets the same answer every time.
            known = {problem.code for problem in info.troubles if problem.code.startswith("E1")}
            is_preferred = normalize(info.candidate.distribution) == preferred
            return "E103" in known, not is_preferred, bool(known)

        available = [info for info in own if info.status != "disabled"]
        if available:
            return min(available, key=rank)
        if own:
            distribution = own[0].candidate.distribution
            source = policy.switched_off_by(distribution)
            denied = normalize(distribution) in policy.deny
            raise UnknownLLMError(
                f'the LLM "{name}" from {own[0].package} is switched off by {source}',
                name=name,
                hint=f"{'take' if denied else 'add'} {normalize(distribution)} "
                f"{'out of' if denied else 'to'} {source}",
            )
        raise self._unknown(name, infos)

    def _unknown(self, name: str, infos: list[PluginInfo]) -> UnknownLLMError:
        if name in PACKAGES:
            return UnknownLLMError(
                f'the LLM "{name}" is not installed', name=name, hint=f"pip install {PACKAGES[name]}"
            )
        if any(info.name == name for info in infos):
            return UnknownLLMError(
                f'"{name}" is a hook, not an LLM', name=name, hint="hooks are called by every LLM"
            )
        # A broken one may be what was meant: asking for it tells what is wrong with it.
        known = {info.name for info in infos if info.kind == "llm" and info.status != "disabled"}
        return UnknownLLMError(
            f'there is no LLM "{name}"', name=name, hint=near_matches(name, known | PACKAGES.keys())
        )

    def _warn_of_switches(self) -> None:
        for sentence in self.warnings():
            if sentence not in self._state.warned:
                self._state.warned.add(sentence)
                _logger.warning("%s", sentence)

    def _load(self, candidate: Candidate) -> Loaded:
        """Import a candidate once; called with the lock held."""
        loaded = self._state.loaded.get(candidate)
        if loaded is None:
            loaded = load_llm(candidate) if candidate.kind == "llm" else load_hook(candidate)
            self._state.loaded[candidate] = loaded
        return loaded


def _errors(problems: Iterable[Problem]) -> list[Problem]:
    return [problem for problem in problems if problem.severity == "error"]


def _registered_candidate(name: str, cls: Any) -> Candidate:
    value = f"{getattr(cls, '__module__', '')}:{getattr(cls, '__qualname__', cls)}"
    summary = (getattr(cls, "__doc__", None) or "").strip().partition("\n")[0]
    return Candidate(name, value, "stillhouse.llms", summary=summary)


_default = Registry()


def default_registry() -> Registry:
    """The registry behind `stillhouse.create`, `stillhouse.get_llm` and `stillhouse.available_llms`."""
    return _default
