"""Fresh environments, and wheels to install into them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Environment", "Result", "build_wheels"]

# One process for all: pip would start three for each of them.
_BUILD = """
import os, sys
from hatchling.build import build_wheel
for folder in sys.argv[2:]:
    os.chdir(folder)
    build_wheel(sys.argv[1])
"""


def build_wheels(target: Path, *folders: Path) -> None:
    """Build the distribution in each folder into a wheel."""
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-c", _BUILD, target, *folders], check=True, stdout=subprocess.DEVNULL)


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and a home of its own.

    Attributes:
        folder: where it is.
    """

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Environment:
        """A new one, with nothing in it."""
        venv.create(folder)
        (folder / "home").mkdir()
        return cls(folder)

    @property
    def scripts(self) -> Path:
        return self.folder / ("Scripts" if sys.platform == "win32" else "bin")

    @property
    def variables(self) -> dict[str, str]:
        """The tester's environment without what would reach into this one."""
        home = str(self.folder / "home")
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("STILLHOUSE_", "PYTHON", "COV_"))
        }
        return {**kept, "HOME": home, "APPDATA": home, "LOCALAPPDATA": home, "XDG_CONFIG_HOME": home}

    def run(self, *command: str | Path, cwd: Path | None = None, **variables: str) -> Result:
        """Run a command of the environment to its end."""
        program, *arguments = command
        result = subprocess.run(
            [self.scripts / program, *arguments],
            env={**self.variables, "PYTHONUTF8": "1", **variables},
            cwd=cwd or self.folder,
            capture_output=True,
            encoding="utf-8",
            stdin=subprocess.DEVNULL,
        )
        return Result(result.returncode, result.stdout, result.stderr)

    def install(self, *arguments: str | Path) -> None:
        """Install into the environment, with uv, or else the pip outside of it: making one in it takes longer."""
        uv = shutil.which("uv")
        if uv:
            command = [uv, "pip", "install", "--quiet", "--python", self.folder]
        else:
            command = [sys.executable, "-m", "pip", "--python", self.folder, "install", "--quiet"]
        subprocess.run([*command, *arguments], check=True)
