"""What Stillhouse did not make it neither removes nor overwrites, whatever its name is."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse import ConfigurationError
from stillhouse.cli.app import app
from stillhouse.jobs.formats.partial import MARKER, PartialFile, PartialFolder
from stillhouse.jobs.formats.rows import Row
from stillhouse.jobs.store.places import check_places, written_places
from stillhouse.jobs.store.store import SqliteStore

SUFFIXES = (
    ".partial", ".run.db", ".run.db-wal", ".run.db-shm", ".run.db-journal", ".run.db.lock", ".run.db-reserve",
    ".run.db.partial", ".run.input.partial",
)  # fmt: skip
needs_links = pytest.mark.skipif(sys.platform == "win32", reason="Windows lets few users create links")

# A file must not be written through a link to nowhere either.
LINKS = ("link", "dangling link", "link to a device", "pipe")
KINDS = ("file", "folder", *(pytest.param(kind, marks=needs_links) for kind in LINKS))


@pytest.fixture
def generate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """`stillhouse generate ARGUMENTS --llm echo` in a folder with an input of three rows: status and messages."""
    monkeypatch.setattr("stillhouse.registry.registry._default", stillhouse.Registry(entry_points=()))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": "c"}\n')

    def call(*arguments: object, command: str = "generate", llm: bool = True) -> tuple[int, str]:
        options = ["--llm", "echo"] if command == "generate" and llm else []
        with pytest.raises(SystemExit) as exited:
            app([command, *map(str, arguments), *options], prog_name="stillhouse")
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return int(exited.value.code or 0), captured.err

    return call


def snapshot(folder: Path) -> dict[str, bytes | str]:
    """Everything below a folder: names, contents, and where links lead."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = path.read_bytes()
        else:
            found[name] = "a folder" if path.is_dir() else "a pipe"
    return found


def put(path: Path, kind: str, folder: Path) -> None:
    """Something of the user's under a name."""
    if kind == "folder":
        (path / "sub").mkdir(parents=True)
        (path / "sub" / "thesis.txt").write_text("years of work")
    elif kind == "file":
        path.write_text("years of work")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a device":
        path.symlink_to("/dev/null")
    elif kind == "link":
        (folder / "target.txt").write_text("years of work")
        path.symlink_to(folder / "target.txt")
    else:
        path.symlink_to(folder / "nowhere.txt")


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_users_file_at_a_name_stillhouse_uses_is_not_touched(
    generate: Any, tmp_path: Path, suffix: str, kind: str, restart: bool
) -> None:
    put(tmp_path / f"out.jsonl{suffix}", kind, tmp_path)
    before = snapshot(tmp_path)
    status, err = generate("in.jsonl", "-o", "out.jsonl", *(["--restart"] if restart else []))
    after = snapshot(tmp_path)
    assert {name: after.get(name) for name in before} == before
    if suffix == ".run.input.partial":  # only for standard input
        assert status == 0, err
        return
    if suffix == ".run.db" and kind in ("link", "dangling link"):  # the state may be on another disk
        return
    assert status == 1, err
    assert f"out.jsonl{suffix}" in err
    assert set(after) == set(before)


@pytest.mark.parametrize("restart", [False, True])
def test_users_database_at_the_state_path_is_not_touched(
    generate: Any, tmp_path: Path, restart: bool
) -> None:
    state = tmp_path / "out.jsonl.run.db"
    with contextlib.closing(sqlite3.connect(state)) as connection:
        connection.execute("CREATE TABLE mine (x)")
    before = state.read_bytes()
    status, err = generate("in.jsonl", "-o", "out.jsonl", *(["--restart"] if restart else []))
    assert (status, state.name in err) == (1, True)
    assert state.read_bytes() == before


def test_files_of_a_killed_process_are_taken_over(generate: Any, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "out.jsonl", "echo")
    store.set("command", {})
    store.start()
    file = PartialFile(tmp_path / "out.jsonl")
    file.stream.write(b"half a line")
    file.stream.close()
    PartialFolder(tmp_path / "out.jsonl.run.input")
    # As if the process had ended here.
    store._upkeep.close()
    store.connection.close()
    store._lock.release()
    assert (tmp_path / "out.jsonl.run.db-reserve").stat().st_size
    status, err = generate("in.jsonl", "-o", "out.jsonl", "--restart")
    assert status == 0, err
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"in.jsonl", "out.jsonl", "out.jsonl.run.db", "out.jsonl.run.input.partial"}


@pytest.mark.parametrize("name", [".", "..", "/", "sub/.."])
def test_an_output_without_a_name_of_its_own(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="no name of its own"):
        check_places([], Path(name))


def test_a_folder_of_the_users_is_not_taken_for_one_of_ours(tmp_path: Path) -> None:
    folder = tmp_path / "out.partial"
    folder.mkdir()
    (folder / MARKER).write_text("a file of the user's with that name\n")
    with pytest.raises(ConfigurationError, match="did not make it"):
        PartialFolder(tmp_path / "out")
    assert (folder / MARKER).read_text() == "a file of the user's with that name\n"
    (folder / MARKER).unlink()
    assert PartialFolder(tmp_path / "out").path == folder  # an empty one holds nothing to lose


def test_settings_that_are_read_are_not_replaced(generate: Any, tmp_path: Path) -> None:
    folder = tmp_path / "out.jsonl.partial"
    folder.mkdir()
    settings = folder / "settings.json"
    settings.write_text(json.dumps({"llm": "echo"}))
    (folder / MARKER).write_text("Stillhouse made this folder")  # so that nothing else would keep it
    before = snapshot(tmp_path)
    status, err = generate("in.jsonl", "--config", settings, "-o", "out.jsonl", "--restart", llm=False)
    assert (status, "settings.json is read" in err) == (1, True)
    assert snapshot(tmp_path) == before


def test_a_page_that_is_no_report_is_not_replaced(generate: Any, tmp_path: Path) -> None:
    assert generate("in.jsonl", "-o", "out.jsonl")[0] == 0
    page = tmp_path / "out.jsonl.report.html"
    page.write_text("<title>my own page</title>")
    status, err = generate("out.jsonl", command="report")
    assert (status, "not a report" in err) == (1, True)
    assert page.read_text() == "<title>my own page</title>"
    page.unlink()
    for _ in range(2):  # one of ours is
        assert generate("out.jsonl", command="report")[0] == 0
    (tmp_path / "out.jsonl.report.html.partial").write_text("mine")
    status, err = generate("out.jsonl", command="report")
    assert (status, "did not make it" in err) == (1, True)
    assert (tmp_path / "out.jsonl.report.html.partial").read_text() == "mine"


def placements(folder: Path, seed: int) -> Iterator[tuple[Path, Path]]:
    """Pairs of an input and an output, of the kinds that lie in each other and have other names."""
    chance = random.Random(seed)
    (folder / "a" / "b" / "c").mkdir(parents=True)
    (folder / "link").symlink_to(folder / "a")
    names = ["a", "a/b", "a/b/c", "link", "link/b", "a/../a/b", "x", "a/x", "link/x", "a/b/../x", "./a/b/c/x"]
    names += [f"{name}{suffix}" for name in ("a/x", "x", "a/b") for suffix in SUFFIXES]
    for _ in range(200):
        yield folder / chance.choice(names), folder / chance.choice(names)


@needs_links
def test_input_paths_inside_output_paths_are_refused(tmp_path: Path) -> None:
    """The rule, by the real paths of all places; compared over 200 placements."""
    refused = 0
    for read, output in placements(tmp_path, seed=1):
        real = Path(os.path.realpath(read))
        places = [Path(os.path.realpath(place)) for place in written_places(output)]
        clash = any(place == real or place in real.parents for place in places) or (
            read.is_dir() and real in places[0].parents
        )
        try:
            check_places([read], output)
        except ConfigurationError:
            refused += 1
            assert clash, (read, output)
        else:
            assert not clash, (read, output)
    assert 20 < refused < 180


def test_output_that_is_another_name_of_the_input_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("")
    os.link(source, tmp_path / "other.jsonl")
    for output in ("other.jsonl", "in.jsonl", "sub/../in.jsonl"):
        with pytest.raises(ConfigurationError, match="is the input as well"):
            check_places([source], tmp_path / output)
    os.link(source, tmp_path / "out.jsonl.partial")
    with pytest.raises(ConfigurationError, match="writes a file of that name"):
        check_places([source], tmp_path / "out.jsonl")


def test_an_output_that_another_program_holds_keeps_the_rows(
    generate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where a file that is open cannot be replaced."""
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if target.name == "out.jsonl":
            raise PermissionError(13, "Permission denied")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        status, err = generate("in.jsonl", "-o", "out.jsonl")
    assert (status, "close the program that has it open" in err) == (1, True)
    assert "3 finished rows are saved in" in err
    assert generate("in.jsonl", "-o", "out.jsonl")[0] == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3


def test_a_reserve_that_does_not_fit_on_the_disk_leaves_its_room_to_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullDisk(io.FileIO):
        def write(self, data: Any) -> int:
            super().write(bytes(1000))
            raise OSError(28, "No space left on device")

    open_file = Path.open

    def opened(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if path.name.endswith("-reserve") and "x" in mode:
            return FullDisk(path, "x")
        return open_file(path, mode, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opened)
        store = SqliteStore(tmp_path / "out.jsonl", "echo")
        store.set("command", {})
        store.start()
    assert not (tmp_path / "out.jsonl.run.db-reserve").exists()
    store.put(Row(0, 1), {"generations": ["x"], "statistics": {}}, 1.0)
    store.commit()
    assert store.problem is None
    store.close("stopped")


@pytest.mark.parametrize("written", ["", "Stillhouse ma"])
def test_a_marker_that_was_not_written_whole_is_taken_over_if_nothing_else_is_there(
    tmp_path: Path, written: str
) -> None:
    folder = tmp_path / "out.partial"
    folder.mkdir()
    (folder / MARKER).write_text(written)
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigurationError, match="did not make it"):
        PartialFolder(tmp_path / "out")
    (folder / "thesis.txt").unlink()
    assert PartialFolder(tmp_path / "out").path == folder


def test_a_disk_that_is_full_at_the_marker_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str, **_: Any) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(ConfigurationError, match="No space left"):
            PartialFolder(tmp_path / "out")
    assert not list(tmp_path.iterdir())
