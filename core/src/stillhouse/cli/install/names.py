"""What the names of `stillhouse install` mean: `Package`, as an installer takes it."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from stillhouse._wording import install_command
from stillhouse.cli.install.running import without_secrets
from stillhouse.errors import ConfigurationError
from stillhouse.registry.candidates import normalize

__all__ = ["CORE", "PREFIX", "Package", "Plugin", "packages_named"]

CORE = "stillhouse"
PREFIX = "stillhouse-"

# Nearer than this to a name of the table, a name is more likely a slip than a stranger's package.
MIN_LIKENESS = 0.75

_LIBRARIES = frozenset({"xllamacpp"})
"""Libraries of backends whose names are near to those of the backends."""

_MAX_CHARS = 1000
_MAX_PROJECT_BYTES = 2**20
_ARCHIVES = (".whl", ".tar.gz", ".zip")
_EXTRAS_AT_END = re.compile(r"\[[\w.,\s-]*\]$")


@dataclass(frozen=True)
class Plugin:
    """A plugin that is installed.

    Attributes:
        name: the name under which it is used.
        distribution: the package that has it.
    """

    name: str
    distribution: str


@dataclass(frozen=True)
class Package:
    """A package to install.

    Attributes:
        text: as an installer takes it.
        name: the normalised name of the distribution, or an empty string where only an installer can tell it.
        extras: the extras of the distribution that are asked for.
        is_any: whether any version from anywhere will do.
    """

    text: str
    name: str
    extras: frozenset[str] = frozenset()
    is_any: bool = False

    @property
    def is_core(self) -> bool:
        """Whether it is Stillhouse itself."""
        return self.name == CORE


def packages_named(names: Iterable[str], plugins: Iterable[Plugin]) -> list[Package]:
    """Return the packages that names stand for, each once.

    Args:
        names: as they were typed.
        plugins: those that are installed.

    Raises:
        ConfigurationError: a name stands for no package, or is likely a slip.
    """
    own = {plugin.name: plugin.distribution for plugin in plugins if plugin.distribution}
    return list(dict.fromkeys(_package(name.strip(), own) for name in names))


def _package(name: str, own: Mapping[str, str]) -> Package:
    if not name or not name.isprintable() or len(name) > _MAX_CHARS:
        raise ConfigurationError(
            f"{name[:_MAX_CHARS]!r} is not the name of a package",
            hint="`stillhouse list --available` lists names that can be installed",
        )
    if name.startswith("-"):
        raise ConfigurationError(
            f"{name!r} is an option, and options are not passed on to the installer",
            hint="set it in the configuration or the environment of pip or uv, such as PIP_INDEX_URL",
        )
    if _is_path(name):
        return _package_at(name)
    if re.match(r"[\w+.-]+://", name):
        return Package(name, "")
    try:
        requirement = Requirement(name)
    except InvalidRequirement as error:
        _refuse_models(name, own)
        raise ConfigurationError(
            f"{without_secrets(name)!r} is not the name of a package: {str(error).splitlines()[0]}",
            hint='write it as pip takes it, such as "NAME[EXTRA]>=1.2"',
        ) from None
    if requirement.url is None:
        meant = _distribution(requirement, own)
        if meant != requirement.name:
            return Package(meant, normalize(meant), is_any=True)
    extras = frozenset(requirement.extras)
    is_any = not (requirement.specifier or requirement.url)
    return Package(name, normalize(requirement.name), extras, is_any)


def _is_path(name: str) -> bool:
    separators = os.sep + (os.altsep or "")
    if "://" in name or " @ " in name:
        return False
    return (
        name in (".", "..")
        or any(separator in name for separator in separators)
        or _EXTRAS_AT_END.sub("", name).endswith(_ARCHIVES)
    )


def _package_at(name: str) -> Package:
    """Return the package in a folder or in a file. Installers read an absolute path in the same way."""
    extras = _EXTRAS_AT_END.search(name)
    path = Path(name[: extras.start()] if extras else name)
    if not path.exists():
        raise ConfigurationError(
            f"there is no file or folder {path}", hint="give a wheel, or a folder with a pyproject.toml"
        )
    project = path / "pyproject.toml"
    if path.is_dir() and not project.is_file() and not (path / "setup.py").is_file():
        raise ConfigurationError(
            f"the folder {path} has no pyproject.toml, so it is not a package",
            hint=_hint_for_folder(path) or "give the folder of one package",
        )
    text = os.path.abspath(path) + (extras[0] if extras else "")  # noqa: PTH100 - links stay as they are
    named = re.findall(r"[\w.-]+", extras[0]) if extras else ()
    return Package(text, _name_in(project) if path.is_dir() else _name_of_wheel(path), frozenset(named))


def _hint_for_folder(path: Path) -> str:
    """Return which packages are in a folder that is not one."""
    found = sorted(project.parent for project in path.glob("*/pyproject.toml"))
    return f"choose from: {', '.join(str(folder) for folder in found[:20])}" if found else ""


def _name_in(project: Path) -> str:
    try:
        with project.open("rb") as stream:
            name = tomllib.loads(stream.read(_MAX_PROJECT_BYTES).decode()).get("project", {}).get("name", "")
    except (OSError, ValueError, AttributeError):
        return ""
    return normalize(name) if isinstance(name, str) else ""


def _name_of_wheel(path: Path) -> str:
    return normalize(path.name.partition("-")[0]) if path.suffix == ".whl" else ""


def _distribution(requirement: Requirement, own: Mapping[str, str]) -> str:
    """Return the distribution that a requirement means: that of a plugin, or the one it names.

    Raises:
        ConfigurationError: it is the name of a plugin with extras, or near to the name of one.
    """
    from stillhouse.registry.known import BUILT_IN

    name = normalize(requirement.name)
    if name in BUILT_IN:
        raise ConfigurationError(
            f"{name} is built into stillhouse and requires no installation", hint=f"stillhouse show {name}"
        )
    known = _known()
    distribution = known.get(name) or own.get(name)
    if name == CORE or name in known.values() or (distribution and normalize(distribution) == name):
        return requirement.name
    if distribution is None:
        _refuse_slips(requirement.name, name, own)
        return requirement.name
    if requirement.specifier:
        return requirement.name  # with a version, it is the library of the same name, such as transformers
    if requirement.extras:
        extras = ",".join(sorted(requirement.extras))
        raise ConfigurationError(
            f"{requirement.name} is a plugin of {distribution}, and only a package has extras",
            hint=install_command(f"{distribution}[{extras}]"),
        )
    return distribution


def _refuse_slips(given: str, name: str, own: Collection[str]) -> None:
    """Refuse a name that is another word for a known one, or near to one."""
    from stillhouse.registry.known import ALIASES, SERVERS
    from stillhouse.registry.unknown import hint_for

    if name in ALIASES or name in SERVERS:
        raise ConfigurationError(f"no backend is called {given}", hint=hint_for(name, own))
    if name in _LIBRARIES or _is_installed(name):
        return
    # The common beginning would make all of them alike.
    choices = {name: name for name in (*own, *_known())}
    choices |= {item.removeprefix(PREFIX): item for item in _known().values() if name.startswith(PREFIX)}
    near = difflib.get_close_matches(name.removeprefix(PREFIX), sorted(choices), n=1, cutoff=MIN_LIKENESS)
    if near:
        raise ConfigurationError(
            f"no backend is called {given}; nothing was installed",
            hint=f"did you mean {choices[near[0]]!r}? {install_command(choices[near[0]])}; "
            f"for another package called {given}, give its address or a wheel",
        )


def _refuse_models(name: str, own: Collection[str]) -> None:
    """Refuse NAME:MODEL."""
    backend, colon, _ = name.partition(":")
    if colon and normalize(backend) in {*_known(), *own}:
        raise ConfigurationError(
            f"{name!r} is a backend with a model, and a backend is installed for all its models",
            hint=install_command(normalize(backend)),
        )


def _is_installed(name: str) -> bool:
    import importlib_metadata

    try:
        importlib_metadata.distribution(name)
    except importlib_metadata.PackageNotFoundError:
        return False
    return True


@cache
def _known() -> dict[str, str]:
    """Return the distribution of each LLM and hook in the table of what could be installed."""
    from stillhouse.registry.available import available, packages

    return {item.name: item.distribution for item in available() if item.kind == "hook"} | packages()
