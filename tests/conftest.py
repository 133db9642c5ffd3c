"""What tests in several folders need."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from .environments import Environment

ROOT = Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite", action="store_true", help="write what is checked in for comparison anew, and pass"
    )


@pytest.fixture
def rewriting(request: pytest.FixtureRequest) -> bool:
    """Whether a test shall write what it compares with, after a deliberate change."""
    return bool(request.config.getoption("--rewrite"))


def scripts_of(environment: Path) -> Path:
    """The folder of an environment's commands."""
    return environment / ("Scripts" if sys.platform == "win32" else "bin")


@pytest.fixture(scope="session")
def core_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core, built as a wheel from this checkout."""
    folder = tmp_path_factory.mktemp("wheels")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT / "core"],
        check=True,
    )
    (wheel,) = folder.glob("stillhouse-*.whl")
    return wheel


@pytest.fixture
def fresh_environment(tmp_path: Path, core_wheel: Path) -> Path:
    """The commands of a new virtual environment in which only the core is installed."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    scripts = scripts_of(environment)
    subprocess.run([scripts / "python", "-m", "pip", "install", "--quiet", core_wheel], check=True)
    return scripts


@pytest.fixture(scope="session")
def workshop(core_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What the author of a plugin has: an environment with the core, and the tools that check one."""
    made = Environment.make(tmp_path_factory.mktemp("workshop") / "environment")
    made.install(f"{core_wheel}[http,schema,testing]", "-r", ROOT / "tests/author-requirements.txt")
    return made
