"""One fresh environment with the core, a stranger's healthy plugin, and a broken one for each code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PACKAGES = Path(__file__).parent / "packages"

# One process for all: pip would start three for each of them.
BUILD = """
import os, sys
from hatchling.build import build_wheel
for folder in sys.argv[2:]:
    os.chdir(folder)
    build_wheel(sys.argv[1])
"""

TWICE = "broken_w106_twice"


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
        second: a further folder on its `sys.path`.
    """

    folder: Path
    second: Path

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
        """Install into the environment, with the pip outside of it: making one in it takes longer."""
        pip = [sys.executable, "-m", "pip", "--python", self.folder, "install", "--quiet"]
        subprocess.run([*pip, *arguments], check=True)


@pytest.fixture(scope="session")
def environment(core_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The environment with everything in it; `broken-w106-twice` is there twice."""
    root = tmp_path_factory.mktemp("broken-plugins")
    wheels = root / "wheels"
    wheels.mkdir()
    folders = sorted(path for path in PACKAGES.iterdir() if (path / "pyproject.toml").exists())
    subprocess.run([sys.executable, "-c", BUILD, wheels, *folders], check=True, stdout=subprocess.DEVNULL)

    made = Environment(root / "environment", root / "second")
    venv.create(made.folder)
    (made.folder / "home").mkdir()
    made.install(core_wheel)
    made.install("--no-deps", "--no-index", *sorted(wheels.glob("*.whl")))

    (twice,) = wheels.glob(f"{TWICE}-*.whl")
    made.install("--no-deps", "--no-index", "--target", made.second, twice)
    purelib = made.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").out.strip()
    (Path(purelib) / "second.pth").write_text(f"{made.second}\n", encoding="utf-8")
    return made


@pytest.fixture(scope="session")
def run(environment: Environment) -> Callable[..., Result]:
    """Run the command `stillhouse` of the environment."""

    def call(*arguments: str, **options: Any) -> Result:
        return environment.run("stillhouse", *arguments, **options)

    return call


@pytest.fixture(scope="session")
def listed(run: Callable[..., Result]) -> dict[str, Any]:
    """What `stillhouse list --json` prints."""
    result = run("list", "--json")
    assert result.status == 0, result.err
    printed: dict[str, Any] = json.loads(result.out)
    return printed


@pytest.fixture(scope="session")
def checked(run: Callable[..., Result]) -> Result:
    """What `stillhouse check` does."""
    return run("check")
