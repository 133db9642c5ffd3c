"""Every command that writes, at every kind of place: what is refused changes nothing at all on the disk."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

import stillhouse
from stillhouse import ConfigurationError
from stillhouse.jobs.formats.targets import MARKER
from stillhouse.jobs.reporting.report import report_run

Run = Callable[..., Any]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such links and pipes")

ROWS = '{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": "c"}\n'


def snapshot(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Everything below a folder: its kind and permissions, its content, where it leads, when a file changed."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        content: Any = None
        if kind == stat.S_IFREG:
            content = (path.read_bytes(), status.st_mtime_ns, status.st_nlink)
        elif kind == stat.S_IFLNK:
            content = path.readlink()
        found[os.fsdecode(os.path.relpath(path, folder))] = (kind, stat.S_IMODE(status.st_mode), content)
    return found


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Path:
    """A folder with an input, settings, a run that is complete, and much that is the user's."""
    folder = tmp_path / "world"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "in.jsonl").write_text(ROWS)
    (folder / "settings.json").write_text(json.dumps({"llm": "echo"}))
    assert run("generate", "in.jsonl", "--llm", "echo", "-o", "done.jsonl").status == 0
    (folder / "mine" / "sub").mkdir(parents=True)
    (folder / "mine" / "sub" / "thesis.txt").write_text("years of work")
    for suffix in (".jsonl", ".parquet", ".html", ".json"):
        (folder / f"thesis{suffix}").write_text("years of work")
    return folder


# Each command that writes, with the suffix of what it writes.


def generate(run: Run, target: str) -> Any:
    return run("generate", "in.jsonl", "--llm", "echo", "-o", target)


def generate_again(run: Run, target: str) -> Any:
    return run("generate", "in.jsonl", "--config", "settings.json", "-o", target, "--restart")


def generate_from_stdin(run: Run, target: str) -> Any:
    with standard_input("in.jsonl"):
        return run("generate", "-", "--llm", "echo", "-o", target, "--restart")


def report(run: Run, target: str) -> Any:
    return run("report", "done.jsonl", "-o", target)


def save(run: Run, target: str) -> Any:
    """`llm.save`, which raises what a command prints."""

    class Outcome:
        status, err = 0, ""

    try:
        stillhouse.create("echo").save(target)
    except ConfigurationError as error:
        Outcome.status, Outcome.err = 1, f"error: {error}"
    return Outcome


COMMANDS: dict[str, tuple[Callable[[Run, str], Any], str]] = {
    "generate": (generate, ".jsonl"),
    "generate --restart": (generate_again, ".jsonl"),
    "generate - --restart": (generate_from_stdin, ".jsonl"),
    "generate to Parquet": (generate_again, ".parquet"),
    "report": (report, ".html"),
    "save": (save, ".json"),
}


@contextmanager
def standard_input(name: str) -> Iterator[None]:
    saved = os.dup(0)
    descriptor = os.open(name, os.O_RDONLY)
    os.dup2(descriptor, 0)
    before, sys.stdin = sys.stdin, open(0, closefd=False)  # noqa: SIM115
    try:
        yield
    finally:
        sys.stdin = before
        os.dup2(saved, 0)
        os.close(saved)
        os.close(descriptor)


# What a target may be that no command writes to. Each is made, and returns the target.


def link_to_the_users_file(suffix: str) -> str:
    Path(f"link{suffix}").symlink_to(f"thesis{suffix}")
    return f"link{suffix}"


def chain_of_links_to_the_users_file(suffix: str) -> str:
    Path(f"second{suffix}").symlink_to(f"thesis{suffix}")
    Path(f"first{suffix}").symlink_to(f"second{suffix}")
    return f"first{suffix}"


def link_into_a_missing_folder(suffix: str) -> str:
    Path(f"link{suffix}").symlink_to(f"missing/out{suffix}")
    return f"link{suffix}"


def link_to_itself(suffix: str) -> str:
    Path(f"loop{suffix}").symlink_to(f"loop{suffix}")
    return f"loop{suffix}"


def link_to_the_users_folder(suffix: str) -> str:
    Path(f"link{suffix}").symlink_to("mine")
    return f"link{suffix}"


def empty_folder(suffix: str) -> str:
    Path(f"folder{suffix}").mkdir()
    return f"folder{suffix}"


def folder_of_the_users(suffix: str) -> str:
    Path("mine").rename(f"mine{suffix}")
    return f"mine{suffix}"


def pipe(suffix: str) -> str:
    os.mkfifo(f"pipe{suffix}")
    return f"pipe{suffix}"


def socket_(suffix: str) -> str:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"socket{suffix}")
    return f"socket{suffix}"


def link_to_a_device(suffix: str) -> str:
    Path(f"device{suffix}").symlink_to("/dev/full")
    return f"device{suffix}"


def missing_folder(suffix: str) -> str:
    return f"missing/deeper/out{suffix}"


def home_that_no_shell_expanded(suffix: str) -> str:
    return f"~/out{suffix}"


def file_instead_of_a_folder(suffix: str) -> str:
    return f"thesis.html/out{suffix}"


def name_that_is_too_long(suffix: str) -> str:
    return "x" * 300 + suffix


def name_of_a_folder(suffix: str) -> str:
    return f"out{suffix}/"


def folder_that_stillhouse_removes(suffix: str) -> str:
    folder = Path("other.jsonl.partial")
    folder.mkdir()
    (folder / MARKER).write_text("Stillhouse made this folder")
    return f"other.jsonl.partial/out{suffix}"


def folder_above(suffix: str) -> str:
    return ".."


def no_name(suffix: str) -> str:
    return ""


PLACES = [
    link_to_the_users_file, chain_of_links_to_the_users_file, link_into_a_missing_folder, link_to_itself,
    link_to_the_users_folder, empty_folder, folder_of_the_users, pipe, socket_, link_to_a_device, missing_folder,
    home_that_no_shell_expanded, file_instead_of_a_folder, name_that_is_too_long, name_of_a_folder,
    folder_that_stillhouse_removes, folder_above, no_name,
]  # fmt: skip


CASES = [
    pytest.param(command, place, id=f"{command}: {place.__name__}")
    for command in COMMANDS
    for place in PLACES
    # `llm.save` knows nothing of runs.
    if (command, place) != ("save", folder_that_stillhouse_removes)
]


@pytest.mark.parametrize(("command", "place"), CASES)
def test_refused_target_leaves_everything_as_it_was(
    run: Run, world: Path, command: str, place: Callable[[str], str]
) -> None:
    call, suffix = COMMANDS[command]
    target = place(suffix)
    before = snapshot(world)
    result = call(run, target)
    assert snapshot(world) == before, result.err
    assert result.status in (1, 2)
    assert "rror: " in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("restart", [(), ("--restart",)], ids=["", "restart"])
@pytest.mark.parametrize("link", [None, os.symlink, os.link], ids=["itself", "symbolic", "hard"])
@pytest.mark.parametrize("read", ["in.jsonl", "settings.json"])
def test_what_is_read_is_never_written(
    run: Run, world: Path, read: str, link: Any, restart: tuple[str, ...]
) -> None:
    target = read if link is None else "other.jsonl"
    if link is not None:
        link(read, target)
    before = snapshot(world)
    result = run("generate", "in.jsonl", "--config", "settings.json", "-o", target, *restart)
    assert (result.status, snapshot(world)) == (1, before), result.err
    assert " is the input as well" in result.err or "is read" in result.err


@pytest.mark.parametrize(
    "call",
    [
        lambda: stillhouse.run("a\0.jsonl", llm="echo", output="out.jsonl", show_bar=False),
        lambda: stillhouse.run("in.jsonl", llm="echo", output="a\0.jsonl", show_bar=False),
        lambda: report_run("done.jsonl", stillhouse.Registry(entry_points=()).hooks(), "a\0.html"),
        lambda: stillhouse.create("echo").save("a\0.json"),
    ],
    ids=["input", "output", "page", "settings"],
)
def test_path_with_a_nul_is_one_error(world: Path, call: Callable[[], object]) -> None:
    """A command line cannot hold one, and a function can be given one."""
    before = snapshot(world)
    with pytest.raises(ConfigurationError, match="is not a path"):
        call()
    assert snapshot(world) == before


def test_users_file_is_not_replaced_without_being_told_to(run: Run, world: Path) -> None:
    before = snapshot(world)
    for target, call in (("thesis.jsonl", generate), ("thesis.html", report), ("thesis.json", save)):
        result = call(run, target)
        assert result.status == 1
        assert snapshot(world) == before, result.err


def test_input_that_a_shell_gave_as_standard_input_is_not_replaced(run: Run, world: Path) -> None:
    before = snapshot(world)
    result = generate_from_stdin(run, "in.jsonl")
    assert (result.status, snapshot(world)) == (1, before)
    assert "standard input" in result.err


@contextmanager
def redirected(descriptor: int, name: str) -> Iterator[None]:
    """As `N>> NAME` does it."""
    saved, opened = os.dup(descriptor), os.open(name, os.O_WRONLY | os.O_APPEND)
    os.dup2(opened, descriptor)
    try:
        yield
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)
        os.close(opened)


@pytest.mark.parametrize("target", ["-", "out.jsonl"])
@pytest.mark.parametrize(("descriptor", "name"), [(1, "standard output"), (2, "standard error")])
@pytest.mark.parametrize("source", ["in.jsonl", "-"])
def test_stream_that_is_appended_to_the_input_is_refused(
    run: Run, world: Path, descriptor: int, name: str, target: str, source: str
) -> None:
    """Otherwise the run would read what it writes, without an end."""
    before = snapshot(world)
    with standard_input("in.jsonl"), redirected(descriptor, "in.jsonl"):
        result = run("generate", source, "--llm", "echo", "-o", target)
    assert (result.status, snapshot(world)) == (1, before)
    assert f" is {name} as well" in result.err


def test_file_that_the_llm_reads_is_not_replaced(
    run: Run, world: Path, own_registry: stillhouse.Registry
) -> None:
    class Local(stillhouse.LLM):
        files: dict[str, Any] = Field(default_factory=dict)

        @property
        def model_name(self) -> str:
            return "local"

        def generate(self, inputs: Any, num_generations: int = 1) -> Any:
            raise AssertionError

    own_registry.register("local", Local)
    before = snapshot(world)
    options = ["--llm", "local", "--set", 'files={"template": ["thesis.jsonl"]}', "--restart"]
    result = run("generate", "in.jsonl", "-o", "thesis.jsonl", *options)
    assert (result.status, snapshot(world)) == (1, before)


def test_pipe_is_refused_as_an_input_before_it_is_opened(run: Run, world: Path) -> None:
    """Opening it would wait for somebody who writes to it."""
    os.mkfifo("pipe.jsonl")
    before = snapshot(world)
    result = run("generate", "pipe.jsonl", "--llm", "echo", "-o", "out.jsonl")
    assert (result.status, snapshot(world)) == (1, before)
    assert "give it as standard input" in result.err


@pytest.mark.parametrize("is_absolute", [False, True])
def test_working_directory_that_a_backend_changes(
    run: Run, world: Path, own_registry: stillhouse.Registry, is_absolute: bool
) -> None:
    class Moves(stillhouse.LLM):
        @property
        def model_name(self) -> str:
            return "moves"

        def generate(self, inputs: Any, num_generations: int = 1) -> Any:
            os.chdir("mine")
            return [stillhouse.prepare_output(["x"]) for _ in inputs]

    own_registry.register("moves", Moves)
    target = world / "out.jsonl" if is_absolute else "out.jsonl"
    before = snapshot(world / "mine")
    result = run("generate", world / "in.jsonl", "--llm", "moves", "-o", target)
    os.chdir(world)
    assert snapshot(world / "mine") == before
    if is_absolute:
        assert result.status == 0, result.err
        return
    assert (result.status, "the working directory changed" in result.err) == (1, True), result.err
    assert run("generate", world / "in.jsonl", "--llm", "moves", "-o", target).status == 0
    assert (world / "out.jsonl").exists()


def test_name_with_bytes_that_are_no_text_is_written(run: Run, world: Path) -> None:
    name = os.fsdecode(b"caf\xe9\nx.jsonl")
    assert generate(run, name).status == 0
    assert (world / name).read_text().count("\n") == 3
    assert run("report", name, "-o", "page.html").status == 0
    assert not list(world.glob("*.partial"))


def test_link_to_an_output_stays_one(run: Run, world: Path) -> None:
    """As where the output is on another disk: what the link leads to is written, and the run is found there."""
    (world / "disk").mkdir()
    (world / "out.jsonl").symlink_to("disk/out.jsonl")
    assert generate(run, "out.jsonl").status == 0
    assert (world / "out.jsonl").readlink() == Path("disk/out.jsonl")
    assert sorted(path.name for path in (world / "disk").iterdir())[:2] == ["out.jsonl", "out.jsonl.run.db"]
    for command in ("status", "report"):
        assert run(command, "out.jsonl").status == 0
    assert "is complete" in generate(run, "disk/out.jsonl").err
    assert generate_again(run, "out.jsonl").status == 0
    assert (world / "out.jsonl").readlink() == Path("disk/out.jsonl")


@pytest.mark.skipif(not Path("/sys").is_dir(), reason="this system has no folder that nobody can write to")
@pytest.mark.parametrize("command", COMMANDS)
def test_folder_that_cannot_be_written(run: Run, world: Path, command: str) -> None:
    """One that root cannot write to either, as tests may run as root."""
    call, suffix = COMMANDS[command]
    before = snapshot(world)
    result = call(run, f"/sys/out{suffix}")
    assert (result.status, snapshot(world)) == (1, before)
    assert "cannot be written" in result.err
    assert "Traceback" not in result.err


# What a run wrote, and what became of it since.


def put(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text) and None


def change(path: Path) -> None:
    path.write_text(path.read_text() + "my note\n")


def another_of_the_same_size(path: Path) -> None:
    status = path.stat()
    path.write_bytes(b"x" * status.st_size)


@pytest.mark.parametrize(
    "edit", [change, another_of_the_same_size, put("")], ids=["changed", "same size", "empty"]
)
@pytest.mark.parametrize("options", [("--retry", "all"), ("--limit", "2")])
def test_edited_output_is_not_replaced(
    run: Run, world: Path, edit: Callable[[Path], None], options: tuple[str, ...]
) -> None:
    edit(world / "done.jsonl")
    before = snapshot(world)["done.jsonl"]
    result = run("generate", "in.jsonl", "--llm", "echo", "-o", "done.jsonl", *options)
    assert (result.status, snapshot(world)["done.jsonl"]) == (1, before), result.err
    assert "was changed after this run wrote it" in result.err
    # As the hint says: the output is written again, and nothing is generated again.
    (world / "done.jsonl").rename("mine.jsonl")
    result = run("generate", "in.jsonl", "--llm", "echo", "-o", "done.jsonl", *options)
    assert result.status == 0, result.err
    assert snapshot(world)["mine.jsonl"] == before


def test_edited_output_is_replaced_by_a_restart(run: Run, world: Path) -> None:
    whole = (world / "done.jsonl").read_text()
    change(world / "done.jsonl")
    assert run("generate", "in.jsonl", "--llm", "echo", "-o", "done.jsonl", "--restart").status == 0
    assert (world / "done.jsonl").read_text() == whole


def test_output_that_was_only_touched_or_copied_is_the_runs(run: Run, world: Path) -> None:
    os.utime("done.jsonl", (0, 0))
    result = run("generate", "in.jsonl", "--llm", "echo", "-o", "done.jsonl", "--limit", "2")
    assert result.status == 0, result.err


@pytest.mark.parametrize("moment", ["before", "during"])
def test_file_that_appears_where_an_unfinished_run_will_write(
    run: Run, world: Path, own_registry: stillhouse.Registry, moment: str
) -> None:
    class Stops(stillhouse.LLM):
        @property
        def model_name(self) -> str:
            return "stops"

        def generate(self, inputs: Any, num_generations: int = 1) -> Any:
            if not (world / "again").exists():
                raise stillhouse.GenerationError("no", kind="authentication")
            if moment == "during":
                (world / "out.jsonl").write_text("mine")
            return [stillhouse.prepare_output(["x"]) for _ in inputs]

    own_registry.register("stops", Stops)
    assert run("generate", "in.jsonl", "--llm", "stops", "-o", "out.jsonl").status == 1
    (world / "again").touch()
    if moment == "before":
        (world / "out.jsonl").write_text("mine")
    result = run("generate", "in.jsonl", "--llm", "stops", "-o", "out.jsonl")
    assert (result.status, (world / "out.jsonl").read_text()) == (1, "mine"), result.err
    assert "this run did not write it" in result.err
    (world / "out.jsonl").unlink()
    moment = "after"
    assert run("generate", "in.jsonl", "--llm", "stops", "-o", "out.jsonl").status == 0
