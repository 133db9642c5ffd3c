"""What `stillhouse new` writes is a whole package: it builds, and passes its tests and every check."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..environments import Environment, build_wheels

pytestmark = pytest.mark.environment

BACKENDS = {"waiting": (), "asking": ("--http",), "own-engine": ("--local",)}
HOOKS = {"watching": ("--hook",), "reading": ("--reader",), "writing": ("--writer",)}
KINDS = {**BACKENDS, **HOOKS}


@dataclass(frozen=True)
class Made:
    """Backends that were made from nothing, and the environment in which they are installed."""

    environment: Environment
    folders: dict[str, Path]
    wheels: dict[str, Path]


@pytest.fixture(scope="module")
def made(workshop: Environment, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One of each kind, made by the command, built and installed as a user would have them."""
    root = tmp_path_factory.mktemp("new")
    folders = {name: root / f"stillhouse-{name}" for name in KINDS}
    for name, options in KINDS.items():
        result = workshop.run("stillhouse", "new", name, *options, "--into", root)
        assert result.status == 0, result.err
    build_wheels(root / "wheels", *folders.values())
    wheels = {name: next((root / "wheels").glob(f"*{name.replace('-', '_')}-*.whl")) for name in KINDS}
    workshop.install("--no-deps", "--no-index", *wheels.values())
    return Made(workshop, folders, wheels)


@pytest.fixture(params=KINDS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_new_package_passes_its_own_tests(made: Made, name: str) -> None:
    result = made.environment.run("python", "-m", "pytest", "-q", cwd=made.folders[name])
    assert result.status == 0, result.out + result.err
    summary = result.out.splitlines()[-1]
    assert " passed" in summary
    assert "warning" not in summary, result.out


@pytest.mark.parametrize("check", [("ruff", "check"), ("ruff", "format", "--check"), ("mypy",)], ids=" ".join)
def test_new_package_passes_every_check(made: Made, name: str, check: tuple[str, ...]) -> None:
    result = made.environment.run(*check, cwd=made.folders[name])
    assert result.status == 0, result.out + result.err


def test_new_package_with_a_long_name_passes_the_style_checks(made: Made, tmp_path: Path) -> None:
    for options in KINDS.values():
        name = f"a-rather-long-name-of-a-backend{''.join(options)[1:]}"
        assert made.environment.run("stillhouse", "new", name, *options, "--into", tmp_path).status == 0
    result = made.environment.run("ruff", "format", "--check", tmp_path)
    assert result.status == 0, result.out
    result = made.environment.run("ruff", "check", tmp_path)
    assert result.status == 0, result.out


def test_new_package_is_found_shown_and_checked_by_stillhouse(made: Made, name: str) -> None:
    listed = json.loads(made.environment.run("stillhouse", "list", "--json").out)
    (found,) = [info for info in listed["hooks" if name in HOOKS else "llms"] if info["name"] == name]
    assert (found["status"], found["distribution"]) == ("found", f"stillhouse-{name}")
    shown = made.environment.run("stillhouse", "show", name)
    assert (shown.status, shown.err) == (0, "")
    assert ("hooks: " if name in HOOKS else "max_new_tokens") in shown.out
    checked = made.environment.run("stillhouse", "check", name)
    assert (checked.status, checked.err) == (0, "")


def test_new_package_wheel_has_types_and_licence_and_no_tests(made: Made, name: str) -> None:
    with zipfile.ZipFile(made.wheels[name]) as archive:
        names = archive.namelist()
    module = f"stillhouse_{name.replace('-', '_')}"
    assert f"{module}/py.typed" in names
    assert any(path.endswith("licenses/LICENSE") for path in names)
    assert {path.partition("/")[0] for path in names} == {module, f"{module}-0.1.0.dist-info"}


def test_new_package_without_a_server_generates_at_once(made: Made) -> None:
    result = made.environment.run("stillhouse", "generate", "--llm", "waiting", "--prompt", "the Ucayali")
    assert result.out == "the Ucayali\n", result.err


def test_new_reader_and_writer_work_with_the_command(made: Made, tmp_path: Path) -> None:
    (tmp_path / "questions.txt").write_text("the Ucayali\n", encoding="utf-8")
    target = "writing:answers.json"
    result = made.environment.run(
        "stillhouse", "generate", "reading:questions.txt", "--llm", "echo", "-o", target, cwd=tmp_path
    )
    assert result.status == 0, result.err
    (row,) = json.loads((tmp_path / "answers.json").read_text(encoding="utf-8"))
    assert row["generations"] == ["the Ucayali"]
