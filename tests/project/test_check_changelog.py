"""tools/check_changelog.py, in a small repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org"]
    subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True)


def write(folder: Path, path: str, text: str = "changed\n") -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text, encoding="utf-8")


def check(folder: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, ROOT / "tools/check_changelog.py", "--root", folder, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write(tmp_path, "pyproject.toml", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    write(tmp_path, "changelog.d/README.md")
    write(tmp_path, "changelog.d/+old.feature.md")
    write(tmp_path, "CHANGELOG.md")
    write(tmp_path, "core/src/stillhouse/llm.py", "first\n")
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "First")
    git(tmp_path, "switch", "--quiet", "--create", "change")
    return tmp_path


def test_the_fragments_of_this_checkout_are_well_named() -> None:
    assert check(ROOT) == (0, "")


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize(
    "path",
    ["core/src/stillhouse/llm.py", "core/src/stillhouse/new.py", "plugins/stillhouse-x/pyproject.toml"],
)
def test_a_change_of_a_package_without_a_fragment_is_seen(
    repository: Path, path: str, committed: bool
) -> None:
    write(repository, path)
    if committed:
        git(repository, "add", "--all")
        git(repository, "commit", "--quiet", "--message", "Change")
    status, told = check(repository, "main")
    assert status == 1
    assert path in told
    assert "add changelog.d/+NAME.TYPE.md" in told


def test_package_change_with_a_fragment_passes(repository: Path) -> None:
    write(repository, "core/src/stillhouse/llm.py")
    write(repository, "changelog.d/+mine.misc.md")
    assert check(repository, "main") == (0, "")


def test_fragment_of_an_earlier_change_does_not_count(repository: Path) -> None:
    write(repository, "core/src/stillhouse/llm.py")
    (repository / "changelog.d/+old.feature.md").unlink()
    assert check(repository, "main")[0] == 1


def test_a_release_removes_the_fragments(repository: Path) -> None:
    write(repository, "core/pyproject.toml")
    write(repository, "CHANGELOG.md", "released\n")
    (repository / "changelog.d/+old.feature.md").unlink()
    assert check(repository, "main") == (0, "")


@pytest.mark.parametrize(
    "path", ["tests/test_it.py", "docs/page.md", "plugins/stillhouse-x/tests/test_it.py", "tox.ini"]
)
def test_change_outside_the_packages_needs_no_fragment(repository: Path, path: str) -> None:
    write(repository, path)
    assert check(repository, "main") == (0, "")


def test_later_changes_on_the_base_branch_do_not_count(repository: Path) -> None:
    git(repository, "switch", "--quiet", "main")
    write(repository, "core/src/stillhouse/llm.py")
    git(repository, "commit", "--quiet", "--all", "--message", "Another")
    git(repository, "switch", "--quiet", "change")
    assert check(repository, "main") == (0, "")


@pytest.mark.parametrize(
    "name",
    ["csv.feature.md", "+csv.md", "+csv.novelty.md", "+CSV.feature.md", "+csv.feature.rst", "12.feature.md"],
)
def test_misnamed_fragment_is_reported(repository: Path, name: str) -> None:
    write(repository, f"changelog.d/{name}")
    status, told = check(repository)
    assert status == 1
    assert f"changelog.d/{name}: name it +NAME.TYPE.md" in told


def test_empty_fragment_is_reported(repository: Path) -> None:
    write(repository, "changelog.d/+csv.feature.md", " \n")
    status, told = check(repository)
    assert status == 1
    assert "is empty" in told


def test_missing_base_revision_is_reported(repository: Path) -> None:
    status, told = check(repository, "nowhere")
    assert status == 2
    assert "git does not know nowhere" in told
