"""Switches for plugins, settings of hooks, and aliases: from the environment and the user's config file.

Switches prevent accidental loading. They are not a sandbox: an installed package can run code anyway.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillhouse.errors import ConfigurationError, near_matches
from stillhouse.registry.candidates import Candidate, normalize

__all__ = ["ALLOW_VARIABLE", "DENY_VARIABLE", "PREFER_VARIABLE", "Policy", "config_file", "current_policy"]

ALLOW_VARIABLE = "STILLHOUSE_PLUGINS"
DENY_VARIABLE = "STILLHOUSE_DISABLE_PLUGINS"
PREFER_VARIABLE = "STILLHOUSE_PREFER"

_KEYS = {"plugins": ALLOW_VARIABLE, "disable_plugins": DENY_VARIABLE, "prefer": PREFER_VARIABLE}
"""The keys of the config file that have a variable, which wins over the key."""

_HOOKS = "hooks"
"""The key of the config file under which each hook plugin has a table."""

_LLM, _ALIASES = "llm", "aliases"
"""The keys of the config file for the LLM that is used where none is named, and for short names of LLMs."""

_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

_MIN_AGE_SECONDS = 2.0
"""The age from which on a file's times say whether it has changed; FAT counts in steps of 2 seconds."""


@dataclass(frozen=True)
class Policy:
    """Switches, by the normalised name of the distribution, and the other settings of the user.

    Attributes:
        allow: the distributions that may be used, or `None` for all.
        deny: the distributions that may not be used; it wins over `allow`.
        prefer: for a name that several distributions claim, the one to use.
        hooks: the settings of hook plugins, by the name of the plugin.
        llm: the default LLM, or an empty string.
        aliases: the targets of aliases, each `NAME` or `NAME:MODEL`.
        sources: where each of these was set, for messages.
        unknown_keys: a sentence for each unknown key of the config file.
    """

    allow: frozenset[str] | None = None
    deny: frozenset[str] = frozenset()
    prefer: Mapping[str, str] = field(default_factory=dict)
    hooks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    llm: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    unknown_keys: tuple[str, ...] = ()

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None, file: Path | None = None) -> Policy:
        """Read the policy in force now. A variable wins over the same key of the file.

        Raises:
            ConfigurationError: a value cannot be read.
        """
        environ = os.environ if environ is None else environ
        path = config_file() if file is None else file
        stored = _read_file(path)
        given: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for key, variable in _KEYS.items():
            if variable in environ:
                given[key] = _split(environ[variable])
                sources[key] = variable
            elif key in stored:
                given[key] = stored[key]
                sources[key] = f"{key} in {path}"
        for key in (_HOOKS, _LLM, _ALIASES):
            if key in stored:
                sources[key] = str(path)
        known = [*_KEYS, _HOOKS, _LLM, _ALIASES]
        unknown_keys = tuple(
            f"{path} has the unknown key {key!r}; {near_matches(key, known)}"
            for key in sorted(stored.keys() - set(known))
        )
        allow = given.get("plugins")
        return cls(
            allow=None if allow is None else _names(allow, "plugins", sources),
            deny=_names(given.get("disable_plugins", ()), "disable_plugins", sources),
            prefer=_preferences(given.get("prefer", {}), sources.get("prefer", "")),
            hooks=_tables(stored.get(_HOOKS, {}), path),
            llm=_llm(stored.get(_LLM, ""), path, _LLM),
            aliases=_aliases(stored.get(_ALIASES, {}), path),
            sources=sources,
            unknown_keys=unknown_keys,
        )

    def switched_off_by(self, distribution: str) -> str:
        """Return the variable or the key of the file that switches a distribution off, or an empty string."""
        name = normalize(distribution)
        if name in self.deny:
            return self.sources.get("disable_plugins", DENY_VARIABLE)
        if self.allow is not None and name not in self.allow:
            return self.sources.get("plugins", ALLOW_VARIABLE)
        return ""

    def table_of(self, hook: str) -> tuple[Mapping[str, Any], str]:
        """Return the settings of a hook plugin, and the file that they are in."""
        return self.hooks.get(hook, {}), self.sources.get(_HOOKS, "")

    def warnings(self, candidates: Iterable[Candidate]) -> list[str]:
        """Write a sentence for each name that is not installed, and each unknown key."""
        candidates = list(candidates)
        installed = {normalize(candidate.distribution) for candidate in candidates}
        claimed = {candidate.name for candidate in candidates}
        hooks = {candidate.name for candidate in candidates if candidate.kind == "hook"}
        prefer = self.sources.get("prefer", PREFER_VARIABLE)
        named = [
            ("plugins", ALLOW_VARIABLE, self.allow or frozenset()),
            ("disable_plugins", DENY_VARIABLE, self.deny),
            ("prefer", PREFER_VARIABLE, frozenset(self.prefer.values())),
        ]
        return [
            *self.unknown_keys,
            *(
                f"{self.sources.get(key, variable)} names {name!r}, but no package of that name "
                f"with a plugin is installed; {near_matches(name, installed)}"
                for key, variable, names in named
                for name in sorted(names - installed)
            ),
            *(
                f"{prefer} chooses who brings {name!r}, but no package does; {near_matches(name, claimed)}"
                for name in sorted(self.prefer.keys() - claimed)
            ),
            *(
                f"{self.sources.get(_HOOKS, 'the policy')} has settings for the hook {name!r}, but no "
                f"package with it is installed; {near_matches(name, hooks)}"
                for name in sorted(self.hooks.keys() - hooks)
            ),
        ]


_last: tuple[tuple[object, ...], Policy] | None = None


def current_policy() -> Policy:
    """Return the policy in force now, as `Policy.read()`; unchanged switches are parsed once.

    Raises:
        ConfigurationError: a value cannot be read.
    """
    global _last
    variables = {name: os.environ[name] for name in _KEYS.values() if name in os.environ}
    path = config_file()
    stamp = _stamp(path)
    state = (variables, path, stamp)
    last = _last
    if last is not None and last[0] == state:
        return last[1]
    policy = Policy.read(variables, path)
    if stamp is not None and _stamp(path) == stamp:
        _last = (state, policy)
    return policy


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Return what changes with every change of a file, or `None` where nothing says it reliably.

    A file that has just changed may change again within the resolution of its times.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError:
        return None
    if time.time() - max(status.st_mtime, status.st_ctime) < _MIN_AGE_SECONDS:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev


def config_file() -> Path:
    """Return the user's config file. A project's folder is never read: others may have written it."""
    import platformdirs

    return Path(platformdirs.user_config_dir("stillhouse", appauthor=False)) / "config.toml"


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror}", hint=f"correct the permissions of {path}"
        ) from None
    import tomllib

    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path} is not valid TOML: {error}", hint=f"correct or remove {path}"
        ) from None


def _split(value: str) -> list[str]:
    return [item.strip() for item in value.split(",") if item.strip()]


def _names(value: Any, key: str, sources: Mapping[str, str]) -> frozenset[str]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise ConfigurationError(
            f"{sources[key]} is not a list of names", hint=f'write it as {key} = ["stillhouse-openai"]'
        )
    return frozenset(normalize(item) for item in value)


def _tables(value: Any, path: Path) -> dict[str, dict[str, Any]]:
    if not isinstance(value, dict) or not all(isinstance(table, dict) for table in value.values()):
        raise ConfigurationError(
            f"{_HOOKS} in {path} is not a table for each hook",
            hint=f"write [{_HOOKS}.NAME], and its settings below",
        )
    return value


def _llm(value: Any, path: Path, key: str) -> str:
    if not isinstance(value, str) or not value.isprintable() or (value != "" and not value.strip()):
        raise ConfigurationError(
            f"{key} in {path} names no LLM", hint=f'write it as {key} = "openai:gpt-5-mini"'
        )
    return value.strip()


def _aliases(value: Any, path: Path) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ConfigurationError(
            f"{_ALIASES} in {path} is not a table",
            hint=f'write [{_ALIASES}], and below it fast = "groq:MODEL"',
        )
    for name, target in value.items():
        if not _ALIAS.fullmatch(name):
            raise ConfigurationError(
                f"{name[:80]!r} in [{_ALIASES}] of {path} is not a valid alias",
                hint="use letters, digits, hyphens, dots and underscores; the model follows in the value",
            )
        if not _llm(target, path, f"{_ALIASES}.{name}"):
            raise ConfigurationError(
                f"{_ALIASES}.{name} in {path} is empty", hint='write what it stands for, such as "groq:MODEL"'
            )
    return {name: target.strip() for name, target in value.items()}


def _preferences(value: Any, source: str) -> dict[str, str]:
    if isinstance(value, Mapping) and all(isinstance(item, str) for item in value.values()):
        return {name: normalize(item) for name, item in value.items()}
    preferences = {}
    for item in value if isinstance(value, list) else [value]:
        name, separator, distribution = str(item).partition("=")
        if not separator or not name.strip() or not distribution.strip():
            raise ConfigurationError(
                f"{source} has {item!r}, which is not NAME=DISTRIBUTION",
                hint="write it as openai=acme-openai, several separated by commas",
            )
        preferences[name.strip()] = normalize(distribution.strip())
    return preferences
