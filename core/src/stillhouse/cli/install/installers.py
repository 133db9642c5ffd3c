"""Which installer changes the environment that Stillhouse runs in, and its commands: `Plan`.

An environment of pipx or of `uv tool` has a record beside its packages. What is installed past that record is
lost when the tool builds the environment again, so the tool itself is used where it can do what is asked.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stillhouse.cli.install.names import Package
from stillhouse.cli.install.records import PipxRecord, UvReceipt
from stillhouse.cli.install.running import written
from stillhouse.errors import StillhouseError

__all__ = ["Plan", "Wishes", "plan"]

Command = tuple[str, ...]

_SECONDS_TO_ANSWER = 60


@dataclass(frozen=True)
class Wishes:
    """What is to be installed, and how.

    Attributes:
        packages: in the order of the command line.
        upgrade: whether the newest versions are wanted of what is installed.
        no_deps: whether what they require is left out.
    """

    packages: Sequence[Package]
    upgrade: bool = False
    no_deps: bool = False

    @property
    def texts(self) -> list[str]:
        return [package.text for package in self.packages]

    @property
    def uv_upgrades(self) -> list[str]:
        """Words that let uv upgrade the packages; as with pip, what they require only where it is too old."""
        named = [package.name for package in self.packages if self.upgrade and package.name]
        return [word for name in named for word in ("--upgrade-package", name)]


@dataclass(frozen=True)
class Plan:
    """Commands that install packages.

    Attributes:
        commands: in their order, each as words.
        warning: what the user must know about the result, or an empty string.
    """

    commands: tuple[Command, ...]
    warning: str = ""


def plan(wishes: Wishes) -> Plan:
    """Return how to install packages into this environment.

    Raises:
        StillhouseError: nothing can be installed into it.
    """
    prefix = Path(sys.prefix)
    if "archive-v0" in prefix.parts:
        raise StillhouseError(
            f"uvx made this environment for one command and throws it away: {prefix}",
            hint=written(
                ["uvx", *(word for text in wishes.texts for word in ("--with", text)), "stillhouse"]
            ),
        )
    _check_owner(prefix, wishes)
    if (prefix / PipxRecord.FILE).is_file():
        return _with_pipx(prefix, wishes)
    if (prefix / UvReceipt.FILE).is_file():
        return _with_uv_tool(prefix, wishes)
    warning = ""
    if prefix.name == ".venv" and (prefix.parent / "uv.lock").is_file():
        warning = (
            f"uv sync removes what {prefix.parent / 'pyproject.toml'} does not list; uv add keeps it there"
        )
    return Plan((_into_environment(wishes),), warning)


def _check_owner(prefix: Path, wishes: Wishes) -> None:
    """Refuse an environment that is not the user's to change.

    Raises:
        StillhouseError: it is the system's, or read-only.
    """
    own = f"python3 -m venv .venv && {written(['.venv/bin/pip', 'install', 'stillhouse', *wishes.texts])}"
    if sys.prefix == sys.base_prefix:
        # pip and uv read the same file, and the same variable says that somebody knows better.
        marker = Path(sysconfig.get_path("stdlib")) / "EXTERNALLY-MANAGED"
        if marker.is_file() and not os.environ.get("PIP_BREAK_SYSTEM_PACKAGES"):
            raise StillhouseError(
                f"the system manages the packages of {sys.executable}, as {marker} says",
                hint=f"use an environment of your own: {own}",
            )
        return
    packages = Path(sysconfig.get_path("purelib"))
    if packages.is_dir() and not os.access(packages, os.W_OK):
        raise StillhouseError(
            f"you may not write to {packages}, where the packages of stillhouse are",
            hint=f"run the command as the owner of {prefix}, or use an environment of your own: {own}",
        )


def _with_pipx(prefix: Path, wishes: Wishes) -> Plan:
    """Return the commands for an environment of pipx, which then keeps the packages in every upgrade."""
    pipx = shutil.which("pipx")
    record = PipxRecord.read(prefix)
    where = ("environment", "--value", "PIPX_LOCAL_VENVS")
    if pipx is None or record is None or not _is_in(prefix, _answer(pipx, *where)):
        warning = _forgotten("pipx", f"pipx reinstall {prefix.name}", wishes)
        return Plan((_into_environment(wishes),), warning)
    name = prefix.name
    commands: list[Command] = []
    flags = ["--pip-args=--no-deps"] if wishes.no_deps else []
    new = [item.text for item in wishes.packages if not record.has(item.name)]
    if new:
        commands.append((pipx, "inject", *flags, name, *new))
    extras = record.core_with(wishes.packages)
    if extras:
        commands.append((pipx, "inject", *flags, name, extras))
    rest = [item for item in wishes.packages if record.has(item.name) and not (item.is_core and item.extras)]
    if wishes.upgrade and any(item.is_core and item.is_any for item in wishes.packages):
        commands.append((pipx, "upgrade", name))
        rest = [item for item in rest if not item.is_core]
    if rest:
        words = [*(["--upgrade"] if wishes.upgrade else []), *(["--no-deps"] if wishes.no_deps else [])]
        commands.append((pipx, "runpip", name, "install", *words, *(item.text for item in rest)))
    return Plan(tuple(commands))


def _with_uv_tool(prefix: Path, wishes: Wishes) -> Plan:
    """Return the command for an environment of `uv tool`, which repeats what its receipt lists."""
    uv = shutil.which("uv")
    receipt = UvReceipt.read(prefix)
    # On Windows, uv cannot replace the program that waits for it.
    if (
        sys.platform != "win32"
        and uv
        and receipt
        and not wishes.no_deps
        and _is_in(prefix, _answer(uv, "tool", "dir"))
    ):
        return Plan(((uv, "tool", "install", *wishes.uv_upgrades, *receipt.words_with(wishes.packages)),))
    warning = _forgotten("uv tool", f"uv tool upgrade {prefix.name}", wishes)
    return Plan((_into_environment(wishes),), warning)


def _into_environment(wishes: Wishes) -> Command:
    """Return the command that installs into this environment and knows of nothing else.

    Raises:
        StillhouseError: there is neither pip nor uv.
    """
    no_deps = ["--no-deps"] if wishes.no_deps else []
    if importlib.util.find_spec("pip") is not None:
        # -P: a file pip.py in the current folder is not the installer.
        upgrade = ["--upgrade"] if wishes.upgrade else []
        return (sys.executable, "-P", "-m", "pip", "install", *upgrade, *no_deps, *wishes.texts)
    uv = shutil.which("uv")
    if uv is None:
        raise StillhouseError(
            f"there is no installer: {sys.executable} has no pip, and there is no uv on the PATH",
            hint=f"{sys.executable} -m ensurepip   or install uv",
        )
    return (uv, "pip", "install", "--python", sys.executable, *wishes.uv_upgrades, *no_deps, *wishes.texts)


def _answer(*command: str) -> str:
    """Return the one line that a tool prints about itself; an empty string if it does not."""
    try:
        done = subprocess.run(  # noqa: S603 - the words are ours
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS_TO_ANSWER,
            check=False,
        )  # fmt: skip
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _is_in(prefix: Path, folder: str) -> bool:
    """Whether a tool keeps an environment: it may now be set to another folder than when it made it."""
    return bool(folder) and os.path.realpath(folder) == os.path.realpath(prefix.parent)


def _forgotten(tool: str, command: str, wishes: Wishes) -> str:
    """Return what a user must know whose tool does not record what is installed."""
    again = written(["stillhouse", "install", *(["--no-deps"] if wishes.no_deps else []), *wishes.texts])
    return f"{tool} does not know of this and forgets it: after {command}, run {again} again"
