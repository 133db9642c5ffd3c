"""`stillhouse new`: which names it takes, and that it writes all or nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import importlib_metadata
import pytest

import stillhouse
from stillhouse.scaffold import Package

Run = Callable[..., Any]


def test_new_creates_one_folder_and_prints_the_next_steps(run: Run, tmp_path: Path) -> None:
    result = run("new", "my-backend", "--into", tmp_path)
    assert (result.status, result.err) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["stillhouse-my-backend"]
    assert f"cd {tmp_path / 'stillhouse-my-backend'}" in result.out
    assert "pytest" in result.out


@pytest.mark.parametrize(
    ("kind", "entry_point"),
    [
        ("hook", 'rivers = "stillhouse_rivers:plugin"'),
        ("reader", 'rivers = "stillhouse_rivers"'),
        ("writer", 'rivers = "stillhouse_rivers"'),
    ],
)
def test_new_creates_hooks_readers_and_writers(run: Run, tmp_path: Path, kind: str, entry_point: str) -> None:
    result = run("new", "rivers", f"--{kind}", "--into", tmp_path)
    assert (result.status, result.err) == (0, "")
    assert f"has the {kind} rivers" in result.out
    text = (tmp_path / "stillhouse-rivers/pyproject.toml").read_text(encoding="utf-8")
    assert f'[project.entry-points."stillhouse.hooks"]\n{entry_point}\n' in text


def test_a_hook_may_have_the_name_of_a_backend(run: Run, tmp_path: Path) -> None:
    result = run("new", "echo", "--hook", "--into", tmp_path)
    assert (result.status, result.err) == (0, "")


def test_new_accepts_a_name_with_the_stillhouse_prefix(run: Run, tmp_path: Path) -> None:
    assert run("new", "stillhouse-rivers", "--into", tmp_path).status == 0
    text = (tmp_path / "stillhouse-rivers/pyproject.toml").read_text(encoding="utf-8")
    assert 'name = "stillhouse-rivers"' in text
    assert 'rivers = "stillhouse_rivers:RiversLLM"' in text


@pytest.mark.parametrize("name", ["My-Backend", "my_backend", "-x", "x-", "a--b", "a b", "../up", ""])
def test_a_name_that_no_backend_can_have_is_refused(run: Run, tmp_path: Path, name: str) -> None:
    result = run("new", "--into", tmp_path, "--", name)
    assert result.status == 2
    assert f"error: {name!r} cannot be the name of a backend" in result.err
    assert list(tmp_path.iterdir()) == []


def test_the_built_in_name_is_refused(run: Run, tmp_path: Path) -> None:
    result = run("new", "echo", "--into", tmp_path)
    assert result.status == 2
    assert "built into stillhouse" in result.err
    assert list(tmp_path.iterdir()) == []


def test_new_leaves_an_existing_folder_unchanged(run: Run, tmp_path: Path) -> None:
    mine = tmp_path / "stillhouse-rivers" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    result = run("new", "rivers", "--into", tmp_path)
    assert result.status == 1
    assert "already exists" in result.err
    assert [path.name for path in tmp_path.rglob("*")] == ["stillhouse-rivers", "mine.txt"]


def test_nothing_is_left_when_writing_fails(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    really = Path.write_text

    def write_text(self: Path, *args: Any, **kwargs: Any) -> int:
        written.append(self)
        if len(written) == 4:
            raise OSError(28, "No space left on device")
        return really(self, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", write_text)
    result = run("new", "rivers", "--into", tmp_path)
    assert result.status == 1
    assert "No space left on device" in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_new_reports_a_folder_that_is_not_writable(run: Run, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    result = run("new", "rivers", "--into", tmp_path)
    tmp_path.chmod(0o700)
    assert result.status == 1
    assert "cannot be written" in result.err


def test_a_name_of_another_package_is_warned_of(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = importlib_metadata.EntryPoint("rivers", "acme:Rivers", "stillhouse.llms")
    monkeypatch.setattr(
        "stillhouse.registry.registry._default", stillhouse.Registry(entry_points=[with_dist(acme)])
    )
    result = run("new", "rivers", "--into", tmp_path)
    assert result.status == 0
    assert "warning: acme-rivers has a backend rivers too" in result.err


def with_dist(entry_point: importlib_metadata.EntryPoint) -> importlib_metadata.EntryPoint:
    class Acme(importlib_metadata.Distribution):
        def read_text(self, filename: str) -> str | None:
            return "Name: acme-rivers\nVersion: 1.0\n" if filename == "METADATA" else None

        def locate_file(self, path: Any) -> Any:
            return Path(path)

    vars(entry_point)["dist"] = Acme()
    return entry_point


def test_new_warns_about_a_name_of_this_project_that_is_not_installed(run: Run, tmp_path: Path) -> None:
    assert "stillhouse-openai has a backend groq too" in run("new", "groq", "--into", tmp_path).err
    assert "a package stillhouse-openai already" in run("new", "openai", "--into", tmp_path).err


@pytest.mark.parametrize(
    ("core", "expected"),
    [("0.1.0", ">=0.1,<0.2"), ("0.7.3rc1", ">=0.7,<0.8"), ("1.0.0", ">=1.0,<2"), ("2.3.1.dev4", ">=2.3,<3")],
)
def test_new_backend_depends_on_the_compatible_core_range(core: str, expected: str) -> None:
    assert Package("rivers", "async", core).range == expected


@pytest.mark.parametrize("name", ["4th", "class", "json", "a1"])
def test_backend_name_gives_valid_module_class_and_variable_names(name: str) -> None:
    package = Package(name, "http", "0.1.0")
    assert package.module.isidentifier()
    assert package.class_name.isidentifier()
    assert package.variable.isidentifier()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such links and pipes")
@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link", "link to itself", "pipe"])
@pytest.mark.parametrize("option", [(), ("--http",), ("--local",), ("--hook",)])
def test_new_replaces_nothing(run: Run, tmp_path: Path, kind: str, option: tuple[str, ...]) -> None:
    mine, target = tmp_path / "mine", tmp_path / "stillhouse-rivers"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    if kind == "file":
        target.write_text("mine")
    elif kind == "folder":
        target.mkdir()
    elif kind == "pipe":
        os.mkfifo(target)
    else:
        target.symlink_to({"link": mine, "dangling link": "nowhere", "link to itself": target}[kind])
    before = sorted(tmp_path.rglob("*")), target.lstat()
    result = run("new", "rivers", "--into", tmp_path, *option)
    assert (result.status, "already exists" in result.err) == (1, True), result.err
    after = sorted(tmp_path.rglob("*")), target.lstat()
    assert (after[0], after[1].st_ino, after[1].st_mtime_ns) == (
        before[0], before[1].st_ino, before[1].st_mtime_ns,
    )  # fmt: skip


def test_the_name_is_refused_before_the_folder(run: Any, tmp_path: Path) -> None:
    result = run("new", "Bad Name", "--into", tmp_path / "missing")
    assert (result.status, "'Bad Name' cannot be the name" in result.err) == (2, True), result.err
    result = run("new", "rivers", "--into", tmp_path / "missing")
    assert (result.status, "missing is not a folder" in result.err) == (2, True), result.err
    assert not (tmp_path / "missing").exists()
