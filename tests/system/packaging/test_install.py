"""`stillhouse install` with real installers, in fresh environments, with distributions that are built."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from ...environments import Environment, build_wheels

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.environment


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheels")
    build_wheels(target, ROOT / "core", ROOT / "plugins/stillhouse-cache")
    return target


def names(environment: Environment) -> set[str]:
    listed = json.loads(environment.run("stillhouse", "list", "--json").out)
    return {entry["name"] for entry in listed["hooks"]}


@pytest.mark.skipif(shutil.which("uv") is None, reason="there is no uv")
def test_uv_installs_into_an_environment_without_pip(wheels: Path, tmp_path: Path) -> None:
    environment = Environment.make(tmp_path / "environment")
    environment.install(*wheels.glob("stillhouse-*.whl"))
    (wheel,) = wheels.glob("stillhouse_cache-*.whl")
    result = environment.run("stillhouse", "install", wheel)
    assert result.status == 0, result.err
    assert "uv pip install --python" in result.err
    assert "installed  stillhouse-cache" in result.err
    assert result.out.splitlines()[1].split()[:2] == ["cache", "found"]
    assert names(environment) == {"cache"}


def test_pip_installs_a_folder(wheels: Path, tmp_path: Path) -> None:
    environment = Environment.make(tmp_path / "environment")
    environment.install("pip", *wheels.glob("stillhouse-*.whl"))
    result = environment.run("stillhouse", "install", "./stillhouse-cache", cwd=ROOT / "plugins")
    assert result.status == 0, result.err
    assert "-m pip install" in result.err
    assert names(environment) == {"cache"}


@pytest.mark.skipif(shutil.which("uv") is None, reason="there is no uv")
def test_uv_tool_keeps_what_was_installed_in_an_upgrade(wheels: Path, tmp_path: Path) -> None:
    variables = {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    environment = Environment.make(tmp_path / "environment")
    own = {**environment.variables, **variables}
    (core,) = wheels.glob("stillhouse-*.whl")
    (wheel,) = wheels.glob("stillhouse_cache-*.whl")
    subprocess.run(["uv", "tool", "install", "--quiet", core], env=own, check=True)
    tool = Environment(tmp_path / "tools" / "stillhouse")
    result = tool.run("stillhouse", "install", wheel, **variables)
    assert result.status == 0, result.err
    assert "warning: uv tool does not know" not in result.err
    subprocess.run(["uv", "tool", "upgrade", "--quiet", "stillhouse"], env=own, check=True)
    assert names(tool) == {"cache"}
