"""The state of a run: complete in the file that the docs name, one process's at a time, and told for what it is."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse import AsyncLLM, FormattedInput, GenerateOutput, prepare_output
from stillhouse.cli.app import app
from stillhouse.jobs.formats.rows import Row, RowFormatter
from stillhouse.jobs.runs.bulk import BulkRun, open_bulk_run
from stillhouse.jobs.runs.command import Command
from stillhouse.jobs.runs.online import RunStatistics
from stillhouse.jobs.store.database import LostError, StoreError, store_path, translated
from stillhouse.jobs.store.lock import RunLock, acquire, is_worked_on, lock_path
from stillhouse.jobs.store.salvage import open_sound
from stillhouse.jobs.store.store import SqliteStore

from .conftest import PATIENCE, Server, read_jsonl
from .test_resuming import committed

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def write_rows(path: Path, count: int) -> Path:
    path.write_text("".join(json.dumps({"prompt": f"row {number}"}) + "\n" for number in range(count)))
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", 40)


@pytest.fixture
def stillhouse_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """A command in this process: its status, what it prints, and its messages."""
    monkeypatch.setattr("stillhouse.registry.registry._default", stillhouse.Registry(entry_points=()))

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exited:
            app([str(argument) for argument in arguments], prog_name="stillhouse")
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return int(exited.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def generate(stillhouse_command: Any, tmp_path: Path, source: Path) -> Callable[..., tuple[int, str, str]]:
    def call(*options: object, output: str = "out.jsonl") -> tuple[int, str, str]:
        result: tuple[int, str, str] = stillhouse_command(
            "generate", source, "--llm", "echo", "-o", tmp_path / output, *options
        )
        return result

    return call


def until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.01)


# Complete in one file


def rows_in(path: Path) -> int:
    """How many rows the file has without the files beside it."""
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM rows").fetchone()[0])


@needs_fork
def test_the_file_alone_is_the_state_within_a_second(
    start: Any, server: Server, rows: Callable[[int], Path], tmp_path: Path
) -> None:
    source, output = rows(300), tmp_path / "out.jsonl"
    process = start(source, "-o", output)
    assert server.wait_for(200)
    server.hold()
    finished = 0

    def is_written_through() -> bool:
        nonlocal finished
        finished = len(committed(output))
        return finished > 100 and rows_in(store_path(output)) == finished

    until(is_written_through)
    process.kill()
    process.wait()
    server.let_go()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(store_path(output), elsewhere)
    asked = len(server.asked)
    process = start(source, "-o", elsewhere / "out.jsonl")
    assert process.wait() == 0, process.err
    assert f"resuming: {finished} rows finished" in process.err
    assert len(server.asked) - asked == 300 - finished
    assert len(read_jsonl(elsewhere / "out.jsonl")) == 300


def test_a_run_leaves_its_output_and_its_state(generate: Any, tmp_path: Path) -> None:
    assert generate()[0] == 0
    left = {"rows.jsonl", "out.jsonl", "out.jsonl.run.db"}
    assert names(tmp_path) == left
    assert generate()[0] == 0
    assert generate("--param", "max_new_tokens=3")[0] == 1
    assert generate("--restart")[0] == 0
    assert names(tmp_path) == left


def test_looking_at_a_run_leaves_nothing(generate: Any, stillhouse_command: Any, tmp_path: Path) -> None:
    for command in ("status", "report", "batches"):
        status, _, err = stillhouse_command(command, tmp_path / "out.jsonl")
        assert (status, "there is no run of this output" in err) == (1, True)
    assert names(tmp_path) == {"rows.jsonl"}
    assert generate()[0] == 0
    before = names(tmp_path)
    assert stillhouse_command("status", tmp_path / "out.jsonl")[0] == 0
    assert names(tmp_path) == before


def test_a_run_of_no_rows(generate: Any, stillhouse_command: Any, source: Path, tmp_path: Path) -> None:
    source.write_text("")
    status, _, err = generate()
    assert status == 0, err
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    status, out, _ = stillhouse_command("status", tmp_path / "out.jsonl")
    assert (status, "complete" in out) == (0, True)
    assert stillhouse_command("report", tmp_path / "out.jsonl")[0] == 0
    assert generate()[0] == 0
    assert names(tmp_path) == {
        "rows.jsonl", "out.jsonl", "out.jsonl.run.db", "out.jsonl.report.html",
    }  # fmt: skip


def test_what_a_killed_process_left_goes(generate: Any, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    killed = threading.Event()

    def work() -> None:
        store = SqliteStore(output, "echo")
        store.set("command", {})
        store.start()
        killed.wait(PATIENCE)

    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    child = os.fork()
    if child == 0:
        threading.Thread(target=work).start()
        signal.pause()
    until(lambda: (tmp_path / "out.jsonl.run.db-reserve").exists() and is_worked_on(store_path(output)))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert {"out.jsonl.run.db.lock", "out.jsonl.run.db-reserve", "out.jsonl.run.db-wal"} <= names(tmp_path)
    # As if it had been killed while it put a new state in its place.
    (tmp_path / "out.jsonl.run.db.partial").mkdir()
    assert generate()[0] == 0
    assert names(tmp_path) == {"rows.jsonl", "out.jsonl", "out.jsonl.run.db"}


# What a state is


def edit(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


def without_tables(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (lambda path: path.write_bytes(b""), "is empty", "put a copy"),
        (without_tables, "has no tables", "put that file beside it again"),
        (lambda path: edit(path, "PRAGMA user_version = 999"), "newer version of stillhouse", "--upgrade"),
        (lambda path: edit(path, "PRAGMA user_version = 2"), "earlier version of stillhouse", "--restart"),
        (lambda path: path.write_bytes(b"text" * 3000), "is damaged", "move it away"),
    ],
)
def test_a_state_is_told_for_what_it_is(
    generate: Any, stillhouse_command: Any, tmp_path: Path, change: Any, message: str, hint: str
) -> None:
    assert generate("--limit", 10)[0] == 0
    path = tmp_path / "out.jsonl.run.db"
    change(path)
    before, output = path.read_bytes(), (tmp_path / "out.jsonl").read_bytes()
    for command in ("generate", "status", "report"):
        status, _, err = (
            generate() if command == "generate" else stillhouse_command(command, tmp_path / "out.jsonl")
        )
        assert status == 1
        assert message in err
        assert hint in err
        assert err.count("error:") == 1
    assert path.read_bytes() == before
    assert (tmp_path / "out.jsonl").read_bytes() == output
    assert names(tmp_path) == {"rows.jsonl", "out.jsonl", "out.jsonl.run.db"}


def test_a_state_cut_to_half_keeps_what_is_in_it(
    generate: Any, stillhouse_command: Any, source: Path, tmp_path: Path
) -> None:
    source.write_text("".join(f'{{"prompt": "row {number} {"x" * 500}"}}\n' for number in range(200)))
    assert generate()[0] == 0
    output, path = (tmp_path / "out.jsonl").read_bytes(), tmp_path / "out.jsonl.run.db"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    status, out, _ = stillhouse_command("status", tmp_path / "out.jsonl")
    assert status == 0
    assert "rows can be read and kept, and the others are generated again" in out
    facts = json.loads(stillhouse_command("status", tmp_path / "out.jsonl", "--json")[1])
    assert facts["damaged"] == {"rows": None, "kept": facts["rows"]}
    assert 50 < facts["rows"] < 150
    status, _, err = generate()
    assert status == 0
    assert "warning: the run's state was damaged" in err
    assert f"resuming: {facts['rows']} rows finished" in err
    assert (tmp_path / "out.jsonl").read_bytes() == output
    assert names(tmp_path) == {"rows.jsonl", "out.jsonl", "out.jsonl.run.db", "out.jsonl.run.db.damaged"}


def test_a_state_that_was_copied_for_another_output(
    generate: Any, stillhouse_command: Any, tmp_path: Path
) -> None:
    assert generate()[0] == 0
    shutil.copy(tmp_path / "out.jsonl.run.db", tmp_path / "other.jsonl.run.db")
    (tmp_path / "other.jsonl").write_text("mine\n")
    status, _, err = generate(output="other.jsonl")
    assert status == 1
    assert "is the state of another output, out.jsonl" in err
    assert (tmp_path / "other.jsonl").read_text() == "mine\n"
    assert "out.jsonl: it was copied or renamed" in stillhouse_command("status", tmp_path / "other.jsonl")[1]
    # Moved with its folder it is the same.
    (tmp_path / "moved").mkdir()
    for name in ("out.jsonl", "out.jsonl.run.db"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    assert "is complete" in generate(output="moved/out.jsonl")[2]


def test_a_link_to_nowhere_is_not_written_through(generate: Any, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.run.db").symlink_to(tmp_path / "nowhere")
    status, _, err = generate()
    assert (status, "out.jsonl.run.db" in err) == (1, True)
    assert not (tmp_path / "nowhere").exists()


# One process at a time


def test_a_lock_that_is_removed_lets_nobody_in_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillhouse.jobs.store.upkeep.SECONDS", 0.01)
    output = tmp_path / "out.jsonl"
    store = SqliteStore(output, "m")
    store.set("command", {})
    store.start()
    lock = lock_path(store.path)
    inode = lock.stat().st_ino
    for removed in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(RunLock, "put_back", lambda _: None)
            if removed:
                lock.unlink()
            with pytest.raises(StoreError, match="another process"):
                SqliteStore(output, "m")
        until(lambda: is_worked_on(store.path))
    assert lock.stat().st_ino != inode or os.name == "nt"
    store.close("stopped")
    assert names(tmp_path) == {"out.jsonl.run.db"}


@needs_fork
def test_a_second_process_asks_for_nothing_without_the_lock(
    start: Any, server: Server, rows: Callable[[int], Path], tmp_path: Path
) -> None:
    source, output = rows(200), tmp_path / "out.jsonl"
    process = start(source, "-o", output)
    assert server.wait_for(50)
    server.hold()
    for path in tmp_path.glob("*.lock"):
        path.unlink()
    asked = Command(str(source), str(output), RowFormatter())
    with stillhouse.create("echo") as llm, pytest.raises(StoreError, match="another process"):
        open_bulk_run(llm, asked)
    with stillhouse.create("echo") as llm, pytest.raises(StoreError, match="another process"):
        open_bulk_run(llm, Command(str(source), str(output), RowFormatter(), restart=True))
    server.let_go()
    assert process.wait() == 0, process.err
    assert len(server.asked) == 200
    assert len(read_jsonl(output)) == 200


def test_a_lock_whose_file_was_removed_locks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the one that had it removed it after this one had opened it."""
    path = tmp_path / "out.jsonl.run.db"
    first = acquire(path)
    opened = threading.Event()

    def lock(descriptor: int) -> bool:
        if not opened.is_set():
            opened.set()
            first.release()
        return plain(descriptor)

    from stillhouse.jobs.store import lock as module

    plain = module._lock
    monkeypatch.setattr(module, "_lock", lock)
    second = acquire(path)
    assert second.is_in_place
    with pytest.raises(StoreError, match="another process"):
        acquire(path)
    second.release()
    assert names(tmp_path) == set()


def test_a_lock_that_is_removed_while_a_run_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have opened it as well: one of the two has to stop before it asks for anything."""

    def opened(path: Path) -> Any:
        found = open_sound(path)
        lock_path(path).unlink()
        return found

    output = tmp_path / "out.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr("stillhouse.jobs.store.store.open_sound", opened)
        with pytest.raises(StoreError, match="lock of this run was removed"):
            SqliteStore(output, "m")
    SqliteStore(output, "m").close("stopped")
    assert names(tmp_path) == set()


class MovingLLM(AsyncLLM):
    """Does something at its tenth row, and answers from then on when the run has noticed it."""

    _count: int = 0

    @property
    def model_name(self) -> str:
        return "moving"

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        self._count += 1
        if self._count == 10:
            AT_TENTH[0](BULK[0])
        if self._count >= 10:
            ends = time.monotonic() + PATIENCE
            while BULK[0].store.problem is None and time.monotonic() < ends:  # noqa: ASYNC110 - of a thread
                await asyncio.sleep(0.01)
        return prepare_output([str(input[-1]["content"])])  # type: ignore[index]


AT_TENTH: list[Callable[[BulkRun], object]] = []
BULK: list[BulkRun] = []


@pytest.fixture
def interfere(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[BulkRun], object]], int]:
    """Do something at the tenth of forty rows; returns how many were asked for when the run has stopped."""
    monkeypatch.setattr("stillhouse.jobs.store.upkeep.SECONDS", 0.01)

    def call(act: Callable[[BulkRun], object]) -> int:
        registry = stillhouse.Registry(entry_points=())
        registry.register("moving", MovingLLM)
        AT_TENTH[:] = [act]
        command = Command(str(source), str(tmp_path / "out.jsonl"), RowFormatter())
        llm = registry.create("moving", max_concurrency=2)
        with llm, open_bulk_run(llm, command) as bulk:
            BULK[:] = [bulk]
            with pytest.raises(LostError, match="was moved, removed or replaced"):
                bulk.work(RunStatistics())
        return int(llm._count)

    return call


@pytest.mark.skipif(os.name == "nt", reason="Windows moves no file that is open")
def test_a_state_that_is_moved_stops_the_run_and_loses_nothing(
    interfere: Any, source: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def move(bulk: BulkRun) -> None:
        for path in tmp_path.glob("out.jsonl.run.db*"):
            path.rename(elsewhere / path.name)

    asked = interfere(move)
    assert asked < 20
    for path in elsewhere.iterdir():
        if path.name.endswith((".db", "-wal")):
            path.rename(tmp_path / path.name)
    store = SqliteStore(tmp_path / "out.jsonl", "moving")
    assert len(list(store.finished_rows())) == asked
    store.close("stopped")


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no file that is open")
@pytest.mark.parametrize("what", ["state", "folder"])
def test_a_state_that_vanishes_stops_the_run(interfere: Any, source: Path, tmp_path: Path, what: str) -> None:
    def remove(bulk: BulkRun) -> None:
        for path in tmp_path.iterdir():
            if what == "state" and path.name.startswith("out.jsonl.run.db"):
                path.unlink()
        if what == "folder":
            shutil.rmtree(tmp_path)

    assert interfere(remove) < 20
    if what == "state":
        assert names(tmp_path) == {"rows.jsonl"}


# An input that changes under the run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("truncated", "it has fewer rows than were generated"),
        ("overwritten", "25 of 40 rows differ; the first is on line 16"),
        ("removed rows that were not read", "it changed, but not in the"),
    ],
)
def test_an_input_that_changes_is_told_truly(
    stillhouse_command: Any,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    message: str,
) -> None:
    before = source.read_bytes()
    lines = before.splitlines(keepends=True)
    puts = 0
    put = SqliteStore.put

    def changing(store: SqliteStore, row: Row, *rest: Any) -> None:
        nonlocal puts
        puts += 1
        if puts == (40 if change != "removed rows that were not read" else 1):
            if change == "truncated":
                source.write_bytes(b"".join(lines[:20]))
            elif change == "overwritten":
                source.write_bytes(
                    b"".join([*lines[:15], *(line.upper() for line in lines[15:])]).replace(
                        b"PROMPT", b"prompt"
                    )
                )
            else:
                os.truncate(source, before.index(lines[30]))
        put(store, row, *rest)

    if change == "removed rows that were not read":  # more than is read ahead
        lines = [
            json.dumps({"prompt": f"row {number} {'x' * 30_000}"}).encode() + b"\n" for number in range(40)
        ]
        before = b"".join(lines)
        source.write_bytes(before)
    arguments = ("generate", source, "--llm", "echo", "-o", tmp_path / "out.jsonl", "--max-concurrency", 1)
    with monkeypatch.context() as patch:
        patch.setattr(SqliteStore, "put", changing)
        status, _, err = stillhouse_command(*arguments)
    assert status == 1
    assert "the input changed during the run" in err
    assert message in err
    assert "restore the input" in err
    # Before that, it is not true.
    assert "; run the same command again" not in err
    assert not (tmp_path / "out.jsonl").exists()
    assert stillhouse_command(*arguments)[0] == 1
    source.write_bytes(before)
    status, _, err = stillhouse_command(*arguments)
    assert status == 0, err
    assert len(read_jsonl(tmp_path / "out.jsonl")) == 40


# Small and unwritable disks


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    folder = tmp_path / "disk"
    folder.mkdir()

    def call(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if (
            shutil.which("mount") is None
            or subprocess.run(command, capture_output=True, check=False).returncode
        ):
            pytest.skip("mounting a disk needs root")
        return folder

    yield call
    while folder.is_mount():
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_with_little_room_is_enough_for_a_small_run(generate: Any, mount: Any) -> None:
    folder = mount("size=400k")
    status, _, err = generate(output="disk/out.jsonl")
    assert status == 0, err
    assert names(folder) == {"out.jsonl", "out.jsonl.run.db"}


def test_the_output_gets_the_room_of_the_reserve(stillhouse_command: Any, tmp_path: Path, mount: Any) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(f'{{"prompt": "{"x" * 20_000}"}}\n' for _ in range(100)))
    folder = mount("size=8500k")  # 2 MB of results, in the state and its log, and twice as much of output
    status, _, err = stillhouse_command("generate", source, "--llm", "echo", "-o", folder / "out.jsonl")
    assert status == 0, err
    assert names(folder) == {"out.jsonl", "out.jsonl.run.db"}


def test_a_reserve_without_room_is_removed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a small disk, where none can be mounted."""
    opened = Path.open

    class Full:
        def __enter__(self) -> Full:
            return self

        def __exit__(self, *exc_info: object) -> None:
            pass

        def write(self, content: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    def open_full(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if path.name.endswith("-reserve") and "x" in mode:
            opened(path, mode).close()
            return Full()
        return opened(path, mode, *rest, **named)

    store = SqliteStore(tmp_path / "out.jsonl", "m")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_full)
        store.start()
    assert "out.jsonl.run.db-reserve" not in names(tmp_path)
    store.close("stopped")


def test_a_folder_that_is_read_only(generate: Any, mount: Any) -> None:
    folder = mount("size=1m")
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    status, _, err = generate(output="disk/out.jsonl")
    assert (status, err.count("error:"), "check the folder and its permissions" in err) == (1, 1, True), err
    assert names(folder) == set()


def test_a_finished_run_in_a_read_only_folder_can_be_looked_at(
    generate: Any, stillhouse_command: Any, mount: Any
) -> None:
    folder = mount("size=1m")
    assert generate(output="disk/out.jsonl")[0] == 0
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    status, out, err = stillhouse_command("status", folder / "out.jsonl")
    assert (status, "complete" in out) == (0, True), err


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (sqlite3.SQLITE_FULL, "make room, then repeat the command to resume"),
        (sqlite3.SQLITE_IOERR, "fix that, then repeat the command to resume"),
        (sqlite3.SQLITE_READONLY, "check the folder and its permissions"),
    ],
)
def test_what_to_do_about_an_error_of_the_disk(tmp_path: Path, code: int, hint: str) -> None:
    error = sqlite3.OperationalError("no")
    error.sqlite_errorcode = code
    with pytest.raises(StoreError) as caught, translated(tmp_path / "state"):
        raise error
    assert caught.value.hint == hint
