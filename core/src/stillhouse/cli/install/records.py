"""What pipx and uv record about an environment that they made: `PipxRecord`, `UvReceipt`."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from packaging.requirements import InvalidRequirement, Requirement

from stillhouse.cli.install.names import CORE, Package
from stillhouse.registry.candidates import normalize

__all__ = ["PipxRecord", "UvReceipt"]

_MAX_BYTES = 2**20


@dataclass(frozen=True)
class PipxRecord:
    """What pipx knows of an environment.

    Attributes:
        core: how the core was asked for, each time.
        injected: the normalised names of the packages that were added.
    """

    FILE: ClassVar[str] = "pipx_metadata.json"

    core: tuple[str, ...]
    injected: frozenset[str]

    @classmethod
    def read(cls, prefix: Path) -> PipxRecord | None:
        """Read the record of an environment; `None` if it is not understood, or is not that of the core."""
        try:
            found = json.loads(_text(prefix / cls.FILE))
            main, injected = found["main_package"], found["injected_packages"]
            if normalize(main["package"]) != CORE:
                return None
            packages = {normalize(name): str(entry["package_or_url"]) for name, entry in injected.items()}
            core = [str(main["package_or_url"]), *(packages[name] for name in packages if name == CORE)]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return cls(tuple(core), frozenset(packages))

    def has(self, name: str) -> bool:
        """Whether pipx installs this distribution itself whenever it builds the environment."""
        return name == CORE or name in self.injected

    def core_with(self, packages: Iterable[Package]) -> str:
        """Return the core with the extras that it has and those of packages; empty if they have none."""
        wanted = [item for item in packages if item.is_core and item.extras]
        if not wanted:
            return ""
        if not wanted[-1].is_any:
            return wanted[-1].text
        extras = {extra for item in wanted for extra in item.extras}
        source = ""
        for text in self.core:
            earlier, before = _extras_and_source(text)
            extras |= earlier
            source = before or source
        return f"{CORE}[{','.join(sorted(extras))}]{source}"


@dataclass(frozen=True)
class UvReceipt:
    """What `uv tool` knows of an environment.

    Attributes:
        requirements: that of the core first, as the receipt has them.
        python: what was asked for as the interpreter, or an empty string.
    """

    FILE: ClassVar[str] = "uv-receipt.toml"

    requirements: tuple[Mapping[str, Any], ...]
    python: str = ""

    @classmethod
    def read(cls, prefix: Path) -> UvReceipt | None:
        """Read the receipt of an environment.

        It is `None` if anything in it cannot be repeated on a command line that this class writes: the
        environment would lose it.
        """
        try:
            tool = tomllib.loads(_text(prefix / cls.FILE))["tool"]
            requirements = tuple(tool["requirements"])
            executables = {entry.get("from", CORE) for entry in tool.get("entrypoints", ())}
            python = tool.get("python", "")
            is_known = (
                tool.keys() <= {"requirements", "entrypoints", "python"}
                and executables <= {CORE}
                and isinstance(python, str)
                and bool(requirements)
                and normalize(requirements[0]["name"]) == CORE
            )
            for entry in requirements:
                _words_of(entry)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return cls(requirements, python) if is_known else None

    def words_with(self, packages: Sequence[Package]) -> list[str]:
        """Return the arguments of `uv tool install` for what is there already, and for packages."""
        words = ["--python", self.python] if self.python else []
        left = list(packages)
        for place, entry in enumerate(self.requirements):
            name = normalize(entry["name"])
            wanted = [item for item in left if item.name == name]
            left = [item for item in left if item.name != name]
            is_editable, text = _words_of(_merged(entry, wanted))
            if wanted and not wanted[-1].is_any:
                is_editable, text = False, _with_extras(wanted[-1].text, entry.get("extras", ()))
            if place == 0:
                words += ["--editable", text] if is_editable else [text]
            else:
                words += ["--with-editable" if is_editable else "--with", text]
        return [*words, *(word for item in left for word in ("--with", item.text))]


def _merged(entry: Mapping[str, Any], packages: Iterable[Package]) -> dict[str, Any]:
    extras = {*entry.get("extras", ()), *(extra for item in packages for extra in item.extras)}
    return {**entry, "extras": sorted(extras)} if extras else dict(entry)


def _with_extras(text: str, extras: Iterable[str]) -> str:
    """Return a requirement with further extras; a path or an address as it is."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return text
    requirement.extras |= set(extras)
    return str(requirement)


def _words_of(entry: Mapping[str, Any]) -> tuple[bool, str]:
    """Return whether a requirement of a receipt is editable, and its text.

    Raises:
        ValueError: it is of another kind than those that are known here.
    """
    source = {key: value for key, value in entry.items() if key not in ("name", "extras")}
    extras = entry.get("extras", [])
    if not all(isinstance(value, str) for value in (entry["name"], *source.values(), *extras)):
        raise ValueError(f"{entry['name']} is not understood")
    chosen = f"[{','.join(extras)}]" if extras else ""
    match list(source):
        case []:
            return False, f"{entry['name']}{chosen}"
        case ["specifier"]:
            return False, f"{entry['name']}{chosen}{source['specifier']}"
        case ["path"] | ["directory"]:
            return False, f"{entry['name']}{chosen} @ {Path(*source.values()).as_uri()}"
        case ["url"]:
            return False, f"{entry['name']}{chosen} @ {source['url']}"
        case ["editable"]:
            return True, f"{source['editable']}{chosen}"
    raise ValueError(f"{entry['name']} has a source of another kind")


def _extras_and_source(text: str) -> tuple[set[str], str]:
    """Return the extras in a requirement, a path or an address, and its version or address for PEP 508."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        found = re.search(r"\[([\w.,\s-]+)\]$", text)
        place = text[: found.start()] if found else text
        source = f" @ {Path(place).as_uri() if Path(place).is_absolute() else place}"
        return set(re.findall(r"[\w.-]+", found[1]) if found else ()), source
    return requirement.extras, f" @ {requirement.url}" if requirement.url else str(requirement.specifier)


def _text(path: Path) -> str:
    with path.open("rb") as stream:
        return stream.read(_MAX_BYTES).decode()
