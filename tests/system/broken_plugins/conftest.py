"""One fresh environment with the core, a stranger's healthy plugin, and a broken one for each code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ...environments import Environment, Result, build_wheels

PACKAGES = Path(__file__).parent / "packages"

TWICE = "broken_w106_twice"


@pytest.fixture(scope="session")
def environment(core_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The environment with everything in it; `broken-w106-twice` is there twice."""
    root = tmp_path_factory.mktemp("broken-plugins")
    wheels = root / "wheels"
    folders = sorted(path for path in PACKAGES.iterdir() if (path / "pyproject.toml").exists())
    build_wheels(wheels, *folders)

    made = Environment.make(root / "environment")
    made.install(core_wheel)
    made.install("--no-deps", "--no-index", *sorted(wheels.glob("*.whl")))

    second = root / "second"
    (twice,) = wheels.glob(f"{TWICE}-*.whl")
    made.install("--no-deps", "--no-index", "--target", second, twice)
    purelib = made.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").out.strip()
    (Path(purelib) / "second.pth").write_text(f"{second}\n", encoding="utf-8")
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
