"""`Provenance`: what a session ran with: its command as it was given, its input, and its environment.

It is a fact of the run's state for each session. A state of an earlier version does not have them, and an
earlier version passes over them.
"""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse.jobs.sources.files import is_glob
from stillhouse.jobs.sources.names import Names, is_address, shown
from stillhouse.jobs.store.seals import facts_of

if TYPE_CHECKING:
    from stillhouse.llm import LLM

__all__ = ["Provenance", "provenance_of", "provenances_of", "usable_cpus"]

MAX_PACKAGES = 40

_KEY = "session {}"

# The name at the beginning of a requirement, and what it says about extras.
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][\w.-]*)")
_OF_EXTRA = re.compile(r";.*\bextra\s*==")


@dataclass(frozen=True)
class Provenance:
    """What a session ran with.

    Attributes:
        command: the command in parts that belong together, such as `["--llm", "echo"]`, without secrets; from
            Python, one part with the call. Empty where nobody said it.
        input: the names of the input, those of files as absolute paths; empty if it is no file.
        python: the version of Python.
        system: the operating system.
        cpus: how many processors this process may use.
        packages: the versions of Stillhouse, of the backend's package, and of what that requires.
        offset: seconds by which local time was ahead of UTC.
        retried: how many failed rows the session had to generate again.
        known: how many rows the state had when it began.
    """

    command: list[list[str]] = field(default_factory=list)
    input: list[str] = field(default_factory=list)
    python: str = ""
    system: str = ""
    cpus: int | None = None
    packages: dict[str, str] = field(default_factory=dict)
    offset: int = 0
    retried: int = 0
    known: int = 0

    def fact(self, session: int) -> tuple[str, dict[str, Any]]:
        """Return the name and the value of the fact that holds it, for a session."""
        return _KEY.format(session), asdict(self)

    @property
    def is_shell(self) -> bool:
        """Whether the command was given to a shell."""
        return bool(self.command) and self.command[0] == ["stillhouse", "generate"]


def provenance_of(llm: LLM, command: Sequence[Sequence[str]], names: Names | None) -> Provenance:
    """Describe the present process.

    Args:
        llm: the LLM of the run.
        command: the command in parts, without secrets.
        names: the names of the input; `None` if it is no file.
    """
    return Provenance(
        command=[list(part) for part in command],
        input=[_absolute(name) for name in names or () if name != "-"],
        python=f"{platform.python_implementation()} {platform.python_version()}",
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpus=usable_cpus(),
        packages=_packages(type(llm)),
        offset=time.localtime().tm_gmtoff,
    )


def provenances_of(connection: sqlite3.Connection) -> dict[int, Provenance]:
    """Return what each session ran with, by its number, as far as the state has it."""
    found = {}
    for key, value in facts_of(connection).items():
        word, _, number = key.partition(" ")
        if word == "session" and number.isdecimal() and isinstance(value, dict):
            known = {name: value[name] for name in Provenance.__dataclass_fields__ if name in value}
            found[int(number)] = Provenance(**known)
    return found


def _absolute(name: str) -> str:
    """Return the name of a file, a folder or a glob as an absolute path; another one without its secrets."""
    if is_address(name):
        return shown(name)
    return str(Path(name).absolute()) if Path(name).exists() or is_glob(name) else name


def usable_cpus() -> int | None:
    """Return the number of processors that this process may use; `None` if it is unknown."""
    try:
        return len(os.sched_getaffinity(0))  # a container may have fewer than the machine
    except AttributeError:  # macOS and Windows do not say it
        return os.cpu_count()


def _packages(cls: type[LLM]) -> dict[str, str]:
    """Return the versions of Stillhouse, of the package of a class, and of what that requires."""
    import importlib_metadata

    names = ["stillhouse"]
    module = cls.__module__.partition(".")[0]
    if module != "stillhouse":
        # A package and its module differ in no more than this where a backend follows the layout of ours.
        own = module.replace("_", "-")
        names.append(own)
        try:
            for line in importlib_metadata.requires(own) or ():
                required = _REQUIREMENT.match(line)
                if required is not None and not _OF_EXTRA.search(line):
                    names.append(required[1])
        except importlib_metadata.PackageNotFoundError:
            pass
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        try:
            version = importlib_metadata.version(name)
        except (importlib_metadata.PackageNotFoundError, KeyError):
            continue
        if len(found) < MAX_PACKAGES and isinstance(version, str):
            found[name] = version
    return found
