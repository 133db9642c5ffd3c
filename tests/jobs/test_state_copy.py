"""`--state-copy URL`: a copy of a run's state elsewhere, and a run that resumes from it on another machine."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import logging
import os
import re
import shutil
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

import stillhouse
from stillhouse import AsyncLLM, ConfigurationError
from stillhouse.cli.app import app
from stillhouse.jobs.copies import copying
from stillhouse.jobs.copies.copying import StateCopier
from stillhouse.jobs.copies.facts import CopyFact
from stillhouse.jobs.copies.marks import Mark, NewerMarkError, mark_in, pack
from stillhouse.jobs.copies.target import CopyTarget
from stillhouse.jobs.store.database import store_path

from .conftest import PATIENCE, Server

fsspec = pytest.importorskip("fsspec")
memory = pytest.importorskip("fsspec.implementations.memory")

MARK = Mark("0" * 32, "1" * 32, 1, 1.5, False, 5, 3, "out.jsonl", "host", 7, 60.0, 2.0, 64)


class Memory(memory.MemoryFileSystem):  # type: ignore[misc,name-defined]
    """Files of this process, of which writing can fail."""

    protocol = "kept"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    writes: ClassVar[list[str]] = []
    fails_with: Exception | None = None
    fails_after = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        place = path.partition("?")[0].removeprefix("kept://").rpartition("@")[2]
        return super()._strip_protocol(place)  # type: ignore[no-any-return]

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        stream = super()._open(path, mode, **options)
        if mode == "wb":
            self.writes.append(path)
            if self.fails_with is not None:
                return Failing(stream, self.fails_with, self.fails_after)
        return stream


class Failing:
    """A file that takes some bytes and no more."""

    def __init__(self, stream: Any, problem: Exception, left: int) -> None:
        self._stream, self._problem, self._left = stream, problem, left

    def __enter__(self) -> Failing:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stream.close()  # as some libraries do: what was written is there

    def write(self, content: bytes) -> None:
        self._stream.write(content[: max(0, self._left)])
        self._left -= len(content)
        if self._left < 0:
            raise self._problem


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    fsspec.register_implementation("kept", Memory, clobber=True)
    monkeypatch.setattr(Memory, "fails_with", None)
    Memory.store.clear()
    Memory.writes.clear()
    yield Memory.store
    Memory.store.clear()


URL = "kept://bucket/copy.gz"
PLACE = "/bucket/copy.gz"


def put(content: bytes, place: str = PLACE) -> None:
    Memory().pipe_file(place, content)


def content(place: str = PLACE) -> bytes:
    return bytes(Memory().cat_file(place))


def mark() -> Mark:
    found = mark_in(content())
    assert found is not None
    return found


def prompts_in(copy: bytes, tmp_path: Path) -> set[int]:
    """The rows that the state in a copy has."""
    path = tmp_path / "looked-at.db"
    path.write_bytes(gzip.decompress(copy))
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found = {row for (row,) in connection.execute("SELECT row FROM rows")}
    path.unlink()
    return found


class Counting(AsyncLLM):
    """Answers, and knows what it was asked; something may happen before an answer."""

    model: str = "counting"

    @property
    def model_name(self) -> str:
        return self.model

    async def agenerate(self, input: Any, num_generations: int = 1, tone: str = "") -> Any:  # type: ignore[override]
        text = input[-1]["content"]
        asked.append(text)
        await before_answer(text)
        return stillhouse.prepare_output([f"{text}{tone}!"])


asked: list[str] = []


async def _nothing(text: str) -> None:
    pass


before_answer: Callable[[str], Any] = _nothing


@pytest.fixture(autouse=True)
def llm(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = stillhouse.Registry(entry_points=())
    registry.register("counting", Counting)
    monkeypatch.setattr("stillhouse.registry.registry._default", registry)
    asked.clear()
    meanwhile(_nothing)


def meanwhile(happens: Callable[[str], Any]) -> None:
    """Set what happens before an answer."""
    global before_answer
    before_answer = happens


async def until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < ends
        await asyncio.sleep(0.005)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"row {number}"}) + "\n" for number in range(20)))
    return path


Generate = Callable[..., stillhouse.Run]


@pytest.fixture
def generate(source: Path, tmp_path: Path) -> Generate:
    """A run on a machine, which is a folder."""

    def call(machine: str = "one", **options: Any) -> stillhouse.Run:
        (tmp_path / machine).mkdir(exist_ok=True)
        output = tmp_path / machine / "out.jsonl"
        given = {"llm": "counting", "output": output, "state_copy": URL, "max_concurrency": 1} | options
        return stillhouse.run(source, show_bar=False, **given)

    return call


def lose(machine: Path) -> None:
    shutil.rmtree(machine)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exited:
            app([str(argument) for argument in arguments], prog_name="stillhouse")
        captured = capsys.readouterr()
        return int(exited.value.code or 0), captured.out, captured.err

    return call


# The copy


def test_a_run_leaves_a_whole_copy_and_nothing_else(generate: Generate, tmp_path: Path) -> None:
    generate()
    assert prompts_in(content(), tmp_path) == {*range(20)}
    assert (mark().is_final, mark().output, mark().process) == (True, "out.jsonl", os.getpid())
    assert {*Memory.store} == {PLACE}
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"out.jsonl", "out.jsonl.run.db"}


def test_a_copy_is_made_while_the_run_works_and_not_if_nothing_changed(
    generate: Generate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "COPY_SECONDS", 0.01)
    monkeypatch.setattr(copying, "MAX_SHARE_OF_TIME", 1.0)
    looks: list[int] = []
    version = copying._version
    monkeypatch.setattr(copying, "_version", lambda connection: looks.append(1) or version(connection))

    async def wait(text: str) -> None:
        number = int(text.split()[1])
        if number == 5:
            await until(lambda: 3 in prompts_in(content(), tmp_path))
            assert not mark().is_final
        if number == 6:
            await until(lambda: 4 in prompts_in(content(), tmp_path))
            written, looked = len(Memory.writes), len(looks)
            await until(lambda: len(looks) > looked + 5)
            assert len(Memory.writes) <= written + 1  # one may have begun

    meanwhile(wait)
    assert generate().counts.done == 20
    numbers = mark().number
    assert numbers >= 3
    assert mark().pace is not None


def test_a_copy_that_takes_long_makes_the_next_one_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    class Wake(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or 0)
            raise StopIteration

    target = type("Target", (), {"shown": "x"})()
    copier = StateCopier(
        target,
        Path("x"),
        "x",
        CopyFact("0" * 32),
        None,
        writer="1" * 32,
        stored=lambda: 0,
        window=1,
        on_lost=print,
    )
    copier._wake = Wake()
    for took in (1.0, 20.0):
        copier._took = took
        with contextlib.closing(sqlite3.connect(":memory:")) as connection, pytest.raises(StopIteration):
            copier._work(connection)
    assert waited == [60.0, pytest.approx(180.0)]


def test_a_folder_gets_a_copy_for_each_output_so_that_shards_can_share_it(
    generate: Generate, tmp_path: Path
) -> None:
    for shard in ("1/2", "2/2"):
        name = f"part-{shard[0]}.jsonl"
        generate(output=tmp_path / "one" / name, shard=shard, state_copy="kept://bucket/copies/")
    assert {*Memory.store} == {f"/bucket/copies/part-{number}.jsonl.run.db.gz" for number in (1, 2)}


def test_shards_with_one_address_are_refused(generate: Generate, tmp_path: Path) -> None:
    generate(shard="1/2")
    before = content()
    with pytest.raises(ConfigurationError) as refused:
        generate("two", shard="2/2")
    assert "copy of a run with other settings" in refused.value.message
    assert "shard: it was" in refused.value.message
    assert "each shard, needs a copy of its own" in (refused.value.hint or "")
    assert content() == before
    assert list((tmp_path / "two").iterdir()) == []


# Resuming


def test_another_machine_resumes_from_the_copy(
    command: Any, source: Path, tmp_path: Path, generate: Generate
) -> None:
    generate(limit=12)
    lose(tmp_path / "one")
    asked.clear()
    (tmp_path / "two").mkdir()
    status, _, err = command(
        "generate", source, "--llm", "counting", "-o", tmp_path / "two" / "out.jsonl", "--state-copy", URL
    )
    assert status == 0, err
    assert f"state restored from {URL}: the copy of " in err
    assert "12 finished rows" in err
    assert "paid again" not in err  # the process had ended
    assert "resuming: 12 rows finished" in err
    assert sorted(asked) == sorted(f"row {number}" for number in range(12, 20))
    generate("calm", state_copy=None)
    outputs = [(tmp_path / machine / "out.jsonl").read_bytes() for machine in ("two", "calm")]
    assert outputs[0] == outputs[1]


OFTEN = {
    "stillhouse.jobs.copies.copying.COPY_SECONDS": 0.05,
    "stillhouse.jobs.copies.copying.MAX_SHARE_OF_TIME": 1.0,
}


def test_a_killed_run_whose_machine_is_gone(
    start: Any, server: Server, rows: Callable[[int], Path], tmp_path: Path
) -> None:
    """What is asked again is what came after the copy, and the output is that of an undisturbed run."""
    source, copy = rows(300), tmp_path / "elsewhere.gz"
    for machine in ("one", "two", "calm"):
        (tmp_path / machine).mkdir()
    outputs = {machine: tmp_path / machine / "out.jsonl" for machine in ("one", "two", "calm")}
    copying = ("--state-copy", copy)
    process = start(source, "-o", outputs["one"], *copying, concurrency=4, constants=OFTEN)
    ends = time.monotonic() + PATIENCE
    while not copy.exists() or len(prompts_in(copy.read_bytes(), tmp_path)) < 40:
        assert time.monotonic() < ends, process.err
        server.wait_for(len(server.asked) + 5, 1.0)
    server.hold()
    process.kill()
    assert process.wait() == -signal.SIGKILL
    server.let_go()
    lose(tmp_path / "one")
    saved = prompts_in(copy.read_bytes(), tmp_path)
    assert 40 <= len(saved) < 300
    before = len(server.asked)
    process = start(source, "-o", outputs["two"], *copying, concurrency=4)
    assert process.wait() == 0, process.err
    assert sorted(server.asked[before:]) == sorted(f"row {number}" for number in {*range(300)} - saved)
    assert re.search("about [0-9,]+ rows may be generated and paid again: those that process ", process.err)
    assert "if that process still works, it stops at its next copy" in process.err
    assert start(source, "-o", outputs["calm"], concurrency=4).wait() == 0
    assert outputs["two"].read_bytes() == outputs["calm"].read_bytes()
    left = {path.name for path in tmp_path.glob("elsewhere*")}
    assert left - {"elsewhere.gz"} == set()


def test_the_state_of_this_machine_wins_where_it_is_newer(
    generate: Generate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(StateCopier, "finish", lambda self: None)  # as if it was killed
        generate(limit=12)
    assert not mark().is_final
    assert prompts_in(content(), tmp_path) == set()
    asked.clear()
    generate()
    assert len(asked) == 8
    assert prompts_in(content(), tmp_path) == {*range(20)}


def test_a_run_that_continued_elsewhere_is_taken_from_there(
    generate: Generate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    generate(limit=5)
    shutil.copytree(tmp_path / "one", tmp_path / "backup")
    generate(limit=15)
    lose(tmp_path / "one")
    (tmp_path / "backup").rename(tmp_path / "one")
    asked.clear()
    with caplog.at_level(logging.INFO, "stillhouse.jobs"):
        generate()
    assert len(asked) == 5
    assert "the older state is kept as" in caplog.text
    assert (tmp_path / "one" / "out.jsonl.run.db.older").exists()


def test_a_damaged_state_is_replaced_by_the_copy_and_kept(generate: Generate, tmp_path: Path) -> None:
    generate(limit=15)
    state = store_path(tmp_path / "one" / "out.jsonl")
    state.write_bytes(b"SQLite format 3\0" + bytes(4000))
    asked.clear()
    generate()
    assert len(asked) == 5
    assert state.with_name(f"{state.name}.older").read_bytes().startswith(b"SQLite format 3\0\0")


def test_an_output_that_is_there_without_its_state(generate: Generate, tmp_path: Path) -> None:
    generate()
    (tmp_path / "one" / "out.jsonl.run.db").unlink()
    asked.clear()
    assert generate().counts.done == 20
    assert asked == []
    Memory.store.clear()
    (tmp_path / "one" / "out.jsonl.run.db").unlink()
    with pytest.raises(ConfigurationError, match="already exists and does not belong to a run"):
        generate()
    assert Memory.store == {}


def test_a_run_without_rows_binds_nobody(generate: Generate, tmp_path: Path) -> None:
    with pytest.raises(stillhouse.StillhouseError):
        generate(max_tokens_total=1, param={"tone": "?"})
    asked.clear()
    lose(tmp_path / "one")
    assert generate(param={"tone": "?"}).counts.done == 20


# Two processes


def test_the_one_that_began_earlier_stops_and_does_not_begin_again(
    generate: Generate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, released, lost = threading.Event(), threading.Event(), threading.Event()
    other: list[BaseException | stillhouse.Run] = []
    copiers: list[StateCopier] = []
    loops: list[Any] = []
    begin = StateCopier.start

    def start(copier: StateCopier) -> None:
        tell = copier._on_lost
        copier._on_lost = lambda problem: (tell(problem), lost.set())[0]
        copiers.append(copier)
        begin(copier)

    monkeypatch.setattr(StateCopier, "start", start)

    def elsewhere() -> None:
        try:
            other.append(generate("two"))
        except BaseException as error:  # for the assertion
            other.append(error)

    thread = threading.Thread(target=elsewhere)

    async def wait(text: str) -> None:
        loop = asyncio.get_running_loop()
        if text == "row 3" and not began.is_set():  # of the first machine
            began.set()
            loops.append(loop)
            first = mark()
            thread.start()
            await until(lambda: mark().writer != first.writer)
            copiers[0].request()  # or a minute later
            await until(lost.is_set)
        elif text == "row 10" and loop not in loops:
            await until(released.is_set)

    meanwhile(wait)
    with pytest.raises(ConfigurationError) as stopped:
        generate()
    assert "another process continues with the copy" in stopped.value.message
    assert f"process {os.getpid()} on " in stopped.value.message
    assert "works on the same run" in stopped.value.message
    with pytest.raises(ConfigurationError) as refused:  # a loop that starts it again
        generate()
    assert "this run continues elsewhere" in refused.value.message
    assert "wait until it ends" in (refused.value.hint or "")
    released.set()
    thread.join(PATIENCE)
    assert isinstance(other[0], stillhouse.Run), other
    assert other[0].counts.done == 20
    generate()  # it has ended: its state is taken
    assert (tmp_path / "one" / "out.jsonl").read_bytes() == (tmp_path / "two" / "out.jsonl").read_bytes()


# What cannot be written


def test_a_copy_that_fails_in_the_middle_is_a_warning_and_the_earlier_one_stays(
    generate: Generate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    command: Any,
) -> None:  # fmt: skip
    monkeypatch.setattr(copying, "COPY_SECONDS", 0.01)
    monkeypatch.setattr(copying, "MAX_SHARE_OF_TIME", 1.0)
    seen: list[str] = []

    async def wait(text: str) -> None:
        if text == "row 5":
            await until(lambda: 3 in prompts_in(content(), tmp_path))
            monkeypatch.setattr(Memory, "fails_after", 700)
            monkeypatch.setattr(Memory, "fails_with", OSError("no route to me:SECRET-123@there"))
        if text == "row 7":
            before = len(Memory.writes)
            await until(lambda: len(Memory.writes) > before + 3)
            assert {*range(4)} <= prompts_in(content(), tmp_path)
            seen.append(command("status", tmp_path / "one" / "out.jsonl")[1])

    meanwhile(wait)
    with caplog.at_level(logging.WARNING, "stillhouse.jobs"):
        run = generate(state_copy="kept://me:SECRET-123@bucket/copy.gz?token=SECRET-456")
    assert run.counts.done == 20
    (warning,) = caplog.messages  # once, however often it fails
    assert "the copy of the state cannot be written to kept://bucket/copy.gz: OSError: no route" in warning
    assert "the copy that is there is " in warning
    assert f"copy of the state  {URL}, " in seen[0]
    assert "cannot be written: OSError: no route" in seen[0]
    facts = json.loads(command("status", tmp_path / "one" / "out.jsonl", "--json")[1])
    assert facts["state_copy"]["problem"].startswith("OSError")
    assert facts["state_copy"]["age"] >= 0
    assert prompts_in(content(), tmp_path) < {*range(20)}
    state = (tmp_path / "one" / "out.jsonl.run.db").read_bytes()
    assert b"SECRET" not in state
    assert "SECRET" not in str(seen) + caplog.text + json.dumps(facts)


def test_the_last_copy_that_fails_is_told(
    command: Any, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(text: str) -> None:
        monkeypatch.setattr(Memory, "fails_with", OSError("full"))

    meanwhile(fail)
    (tmp_path / "one").mkdir()
    arguments = ["generate", source, "--llm", "counting", "-o", tmp_path / "one" / "out.jsonl"]
    status, _, err = command(*arguments, "--state-copy", URL)
    assert status == 0
    assert (
        "warning: the last copy of the state was not written to kept://bucket/copy.gz: OSError: full" in err
    )
    assert (tmp_path / "one" / "out.jsonl").exists()
    monkeypatch.setattr(Memory, "fails_with", None)
    assert command(*arguments, "--state-copy", URL)[0] == 0  # nothing to do but to copy
    assert prompts_in(content(), tmp_path) == {*range(20)}


def test_an_address_that_cannot_be_written_is_an_error_before_the_first_row(
    command: Any, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "one" / "out.jsonl"
    output.parent.mkdir()

    def refused(url: object) -> str:
        status, out, err = command("generate", source, "--llm", "counting", "-o", output, "--state-copy", url)
        assert (status, out, asked, list(output.parent.iterdir())) == (1, "", [], []), err
        assert "SECRET" not in err
        assert "Traceback" not in err
        return str(err)

    assert "cannot be written: FileNotFoundError" in refused(tmp_path / "nowhere" / "copy.gz")
    assert "is not the address of one file" in refused("kept://bucket/copy*.gz")
    assert "kept://bucket/x.gz cannot be written: PermissionError: denied to **" in refused_by(
        PermissionError("denied to me:SECRET-123"), refused, monkeypatch
    )
    assert "cannot be used: ValueError: Protocol not known: nothing" in refused("nothing://bucket/x")
    status, _, err = command("generate", source, "--llm", "counting", "-o", output, "--state-copy", " ")
    assert (status, "--state-copy: it is no address" in err) == (2, True)
    assert "is a file that the run reads or writes" in refused(output)
    assert "is a file that the run reads or writes" in refused(source)
    (tmp_path / "folder").mkdir()
    assert "IsADirectoryError" in refused(tmp_path / "folder")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert "stillhouse install s3fs" in refused("s3://key:SECRET-123@bucket/copy.gz")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    err = refused("s3://key:SECRET-123@bucket/copy.gz?token=SECRET-456")
    assert "--state-copy: s3://bucket/copy.gz needs fsspec, which is not installed" in err
    assert 'stillhouse install "stillhouse[remote]"' in err


def refused_by(problem: Exception, refused: Callable[[object], str], monkeypatch: pytest.MonkeyPatch) -> str:
    with monkeypatch.context() as patch:
        patch.setattr(Memory, "fails_with", problem)
        return refused("kept://me:SECRET-123@bucket/x.gz")


# What is there already


def copy_with(tmp_path: Path, *statements: str) -> None:
    """Change the state in the copy."""
    path = tmp_path / "changed.db"
    path.write_bytes(gzip.decompress(content()))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
    put_state(path, mark())


def put_state(path: Path, said: Mark) -> None:
    with Memory().open(PLACE, "wb") as stream, path.open("rb") as state:
        pack(state, replace(said, size=said.size or path.stat().st_size), stream)


@pytest.mark.parametrize(
    "what", [b"", b"{}", b"SQLite format 3\0", gzip.compress(b"mine"), MARK.run.encode()]
)
def test_a_file_that_stillhouse_did_not_make_is_left_alone(generate: Generate, what: bytes) -> None:
    put(what)
    with pytest.raises(ConfigurationError, match="exists, and is not a copy that Stillhouse made"):
        generate()
    assert (content(), asked, {*Memory.store}) == (what, [], {PLACE})
    with pytest.raises(ConfigurationError, match="exists, and is not a copy that Stillhouse made"):
        generate(restart=True)
    assert content() == what


def test_the_copy_of_another_run_is_left_alone(generate: Generate, tmp_path: Path, source: Path) -> None:
    generate(limit=5)
    before = content()
    for options, said in (
        ({"param": {"tone": "?"}}, "tone: it was null"),
        ({"output": tmp_path / "two" / "other.jsonl"}, "is the copy of another run, of out.jsonl"),
    ):
        with pytest.raises(ConfigurationError) as refused:
            generate("two", **options)
        assert said in refused.value.message
        assert refused.value.hint
        assert list((tmp_path / "two").iterdir()) == []
    generate("three", state_copy=None, limit=6)
    with pytest.raises(ConfigurationError, match=f"{URL} is the copy of another run, of out.jsonl"):
        generate("three")
    with pytest.raises(ConfigurationError, match="is not on this machine; restart=True does not discard it"):
        generate("three", restart=True)
    with source.open("a") as stream:
        stream.write('{"prompt": "row 20"}\n')
    with pytest.raises(ConfigurationError, match="input: it changed") as refused:
        generate("two")
    assert "with extend=True if rows were added" in (refused.value.hint or "")
    assert content() == before
    assert generate("two", extend=True).counts.done == 21


def test_a_restart_replaces_the_copy_of_the_run_that_it_discards(generate: Generate, tmp_path: Path) -> None:
    generate(limit=5)
    run = mark().run
    generate(restart=True, param={"tone": "?"})
    assert mark().run != run
    assert prompts_in(content(), tmp_path) == {*range(20)}


@pytest.mark.parametrize("share", [0.5, 0.999])
def test_a_copy_that_was_cut_off_is_not_restored(generate: Generate, tmp_path: Path, share: float) -> None:
    generate(limit=5)
    cut = content()[: int(len(content()) * share)]
    put(cut)
    with pytest.raises(ConfigurationError, match="is not whole: it was cut off or damaged") as refused:
        generate("two")
    assert "earlier version" in (refused.value.hint or "")
    assert (content(), list((tmp_path / "two").iterdir())) == (cut, [])
    generate()  # where the state is, the copy is replaced
    assert prompts_in(content(), tmp_path) == {*range(20)}


def test_a_hostile_copy_is_not_restored(
    generate: Generate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(limit=5)
    good, said = content(), mark()
    state = tmp_path / "good.db"
    state.write_bytes(gzip.decompress(good))

    def refused(match: str) -> None:
        with pytest.raises(ConfigurationError, match=match):
            generate("two")
        assert list((tmp_path / "two").iterdir()) == []

    put_state(state, replace(said, size=said.size - 1))  # it grows when it is unpacked
    refused("is not whole")
    put_state(state, replace(said, size=1 << 49))
    refused("the state in the copy has 536,870,912 MiB, and the disk of .* has .* MiB left")
    put_state(state, replace(said, schema=said.schema + 1))
    refused("was written by a newer version of stillhouse")
    put_state(state, replace(said, schema=1))
    refused("was written by an earlier version of stillhouse")
    put_state(state, replace(said, run="a" * 32))
    refused("its record of its copies is missing")
    (tmp_path / "text").write_bytes(b"text" * 1000)
    put_state(tmp_path / "text", replace(said, size=4000))
    refused("cannot be used: the state in it is damaged")
    put(good)
    copy_with(tmp_path, "CREATE TRIGGER t AFTER INSERT ON rows BEGIN DELETE FROM rows; END")
    said_now = (tmp_path / "changed.db").stat().st_size
    put_state(tmp_path / "changed.db", replace(said, size=said_now))
    refused("it has tables that Stillhouse does not create")
    put(good.replace(b'"stillhouse_state_copy": 1', b'"stillhouse_state_copy": 2'))
    refused("was written by a newer version of stillhouse")
    put(good)
    assert generate("two").counts.done == 20


@pytest.mark.parametrize(
    "change",
    [
        {"run": "x"}, {"run": 1}, {"writer": "../" * 8}, {"number": -1}, {"number": True}, {"taken": "1"},
        {"taken": float("nan")}, {"taken": 1e300}, {"is_final": 1}, {"size": -1}, {"size": 1 << 60},
        {"output": None}, {"host": 3}, {"pace": "fast"}, {"pace": float("inf")}, {"window": 1.5},
        {"due": None}, {"process": None}, {"schema": "3"},
    ],
    ids=str,
)  # fmt: skip
def test_a_mark_with_an_odd_value_is_no_mark(change: dict[str, Any], tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.write_bytes(b"12345")
    packed = tmp_path / "packed"
    with state.open("rb") as source, packed.open("wb") as target:
        pack(source, replace(MARK, **change), target)
    assert mark_in(packed.read_bytes()) is None


def test_a_mark_is_read_from_the_beginning_of_a_gzip_file(tmp_path: Path) -> None:
    state, packed = tmp_path / "state", tmp_path / "packed"
    state.write_bytes(b"12345")
    said = replace(MARK, output="out\x1b[31m.jsonl", host="h" * 500)
    with state.open("rb") as source, packed.open("wb") as target:
        pack(source, said, target)
    found = mark_in(packed.read_bytes())
    assert found == replace(MARK, output="out?[31m.jsonl", host="h" * 200)
    assert gzip.decompress(packed.read_bytes()) == b"12345"
    assert (found.repeats, replace(found, pace=None).repeats) == (64 + 120, None)
    assert replace(found, is_final=True).repeats == 0
    newer = packed.read_bytes().replace(b'copy": 1', b'copy": 9')
    with pytest.raises(NewerMarkError):
        mark_in(newer)


def test_a_copy_that_is_replaced_while_it_is_read_is_read_again(
    generate: Generate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(limit=5)
    early = content()
    generate(limit=9)
    late = content()
    put(early)
    save = CopyTarget._save

    def replaced(target: CopyTarget, path: Path, said: Mark) -> None:
        put(late)
        save(target, path, said)

    monkeypatch.setattr(CopyTarget, "_save", replaced)
    path = tmp_path / "state.db"
    assert CopyTarget(URL, "").save(path) == mark_in(late)
    assert path.read_bytes() == gzip.decompress(late)


# What is shown


def test_a_secret_in_the_address_is_nowhere(command: Any, source: Path, tmp_path: Path) -> None:
    output, metrics = tmp_path / "one" / "out.jsonl", tmp_path / "run.prom"
    output.parent.mkdir()
    url = "kept://me:SECRET-123@bucket/copy.gz?sig=SECRET-456"
    arguments = ["generate", source, "--llm", "counting", "-o", output, "--metrics", metrics]
    status, out, err = command(*arguments, "--state-copy", url, "--limit", 5)
    assert status == 0, err
    report = tmp_path / "report.html"
    printed = [
        out, err, *command("status", output)[1:], *command("status", output, "--json")[1:],
        *command("report", output, "-o", report)[1:], report.read_text(), metrics.read_text(),
        command("generate", source, "--llm", "counting", "-o", tmp_path / "b.jsonl", "--state-copy", url)[2],
    ]  # fmt: skip
    assert "SECRET" not in "".join(printed)
    state = output.with_name(f"{output.name}.run.db").read_bytes()
    assert b"SECRET" not in state
    assert b"kept://bucket/copy.gz" in state
    assert b"SECRET" not in content()
    stillhouse.run(source, llm="counting", output=tmp_path / "c.jsonl", show_bar=False,
                   state_copy="kept://me:SECRET-123@bucket/c.gz?sig=SECRET-456")  # fmt: skip
    assert b"SECRET" not in (tmp_path / "c.jsonl.run.db").read_bytes()


def test_the_metrics_have_the_time_of_the_last_copy(generate: Generate, tmp_path: Path) -> None:
    generate(metrics=tmp_path / "run.prom")
    lines = (tmp_path / "run.prom").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("stillhouse_state_copy_timestamp_seconds{"))
    assert float(line.rpartition(" ")[2]) == mark().taken
    generate("two", metrics=tmp_path / "two.prom", state_copy=None)
    assert "state_copy" not in (tmp_path / "two.prom").read_text()


def test_a_run_without_an_output_has_no_copy(source: Path) -> None:
    with pytest.raises(ConfigurationError, match="state_copy is for a run that can be resumed") as refused:
        stillhouse.run(source, llm="counting", state_copy=URL)
    assert refused.value.hint == "give output"
    assert Memory.store == {}
