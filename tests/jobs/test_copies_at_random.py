"""A copy whose place fails, changes or is slow: the run is not affected, and nothing of others is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

import stillhouse
from stillhouse import AsyncLLM, ConfigurationError
from stillhouse.jobs.copies import copying, restoring
from stillhouse.jobs.copies.copying import StateCopier
from stillhouse.jobs.copies.facts import CopyFact
from stillhouse.jobs.copies.marks import Mark, mark_in
from stillhouse.jobs.copies.target import CopyTarget
from stillhouse.jobs.formats.partial import PartialFolder
from stillhouse.jobs.store.database import store_path

from .conftest import PATIENCE

fsspec = pytest.importorskip("fsspec")
memory = pytest.importorskip("fsspec.implementations.memory")

ROWS = 8
URL, PLACE = "failing://bucket/copy.gz", "/bucket/copy.gz"


class Failing(memory.MemoryFileSystem):  # type: ignore[misc,name-defined]
    """Files of this process, of which every operation can fail."""

    protocol = "failing"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    before: ClassVar[Callable[[str, str], None]] = lambda operation, path: None

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("failing://"))  # type: ignore[no-any-return]

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        Failing.before(f"open {mode}", path)
        stream = super()._open(path, mode, **options)
        return Stream(stream, path) if mode == "wb" else stream

    def cat_file(self, path: str, *args: Any, **options: Any) -> Any:
        Failing.before("read", path)
        return super().cat_file(path, *args, **options)

    def info(self, path: str, **options: Any) -> Any:
        Failing.before("info", path)
        return super().info(path, **options)

    def cp_file(self, path: str, other: str, **options: Any) -> None:
        Failing.before("copy", path)
        super().cp_file(path, other, **options)

    def rm_file(self, path: str) -> None:
        Failing.before("remove", path)
        super().rm_file(path)

    def mv(self, path: str, other: str, **options: Any) -> None:
        Failing.before("move", path)
        self.cp_file(path, other)
        self.rm_file(path)


class Stream:
    def __init__(self, stream: Any, path: str) -> None:
        self._stream, self._path = stream, path

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stream.close()  # as some libraries do: what was written is there
        Failing.before("close", self._path)

    def write(self, content: bytes) -> None:
        Failing.before("write", self._path)
        self._stream.write(content)


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    fsspec.register_implementation("failing", Failing, clobber=True)
    monkeypatch.setattr(Failing, "before", lambda operation, path: None)
    Failing.store.clear()
    yield
    Failing.store.clear()


asked: list[str] = []


class Answering(AsyncLLM):
    """Answers after what happens meanwhile."""

    @property
    def model_name(self) -> str:
        return "answering"

    async def agenerate(self, input: Any, num_generations: int = 1) -> Any:  # type: ignore[override]
        text = input[-1]["content"]
        asked.append(text)
        await meanwhile[0](text)
        return stillhouse.prepare_output([f"{text}!"])


async def nothing(text: str) -> None:
    pass


meanwhile: list[Callable[[str], Any]] = [nothing]


@pytest.fixture(autouse=True)
def calm() -> None:
    asked.clear()
    meanwhile[:] = [nothing]


def run(tmp_path: Path, machine: str = "one", **options: Any) -> stillhouse.Run:
    source = tmp_path / "rows.jsonl"
    if not source.exists():
        source.write_text("".join(json.dumps({"prompt": f"row {number}"}) + "\n" for number in range(ROWS)))
    (tmp_path / machine).mkdir(exist_ok=True)
    return stillhouse.run(
        source, llm=Answering(max_concurrency=1), output=tmp_path / machine / "out.jsonl", show_bar=False,
        state_copy=URL, **options,
    )  # fmt: skip


def texts(tmp_path: Path, machine: str) -> list[str]:
    lines = (tmp_path / machine / "out.jsonl").read_text().splitlines()
    return [json.loads(line)["generations"][0] for line in lines]


WANTED = [f"row {number}!" for number in range(ROWS)]


def content() -> bytes | None:
    found = Failing.store.get(PLACE)
    return None if found is None else bytes(found.getvalue())


def finished_in(copy: bytes, tmp_path: Path) -> set[str]:
    """The rows in a copy, which must be whole."""
    said = mark_in(copy)
    state = gzip.decompress(copy)
    assert said is not None
    assert len(state) == said.size
    path = tmp_path / "looked-at.db"
    path.write_bytes(state)
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {f"row {row}" for (row,) in connection.execute("SELECT row FROM rows")}


class Clock:
    """As the module `time`; the time of day may go backward."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def time(self) -> float:
        return time.time() + self._chance.choice([0.0, 0.0, -5000.0, 9000.0])


PROBLEMS: list[Callable[[], Exception]] = [
    lambda: OSError(5, "input/output error"),
    lambda: PermissionError("denied"),
    lambda: TimeoutError(),
    lambda: RuntimeError("the library has a bug"),
    lambda: KeyError("ETag"),
]


def put(what: bytes | None) -> None:
    """Do to the copy what somebody else may do."""
    if what is None:
        Failing.store.pop(PLACE, None)
    else:
        fsspec.filesystem("failing").pipe_file(PLACE, what)


SEEDS = [*range(12), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(12, 200))]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_completes_whatever_happens_to_its_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(copying, "COPY_SECONDS", 0.001)
    monkeypatch.setattr(copying, "MAX_SHARE_OF_TIME", 1.0)
    monkeypatch.setattr(copying, "time", Clock(chance))
    attempts = [0]
    copy = StateCopier._copy

    def counted(copier: StateCopier, connection: Any, **options: Any) -> None:
        try:
            copy(copier, connection, **options)
        finally:
            attempts[0] += 1

    monkeypatch.setattr(StateCopier, "_copy", counted)
    failing = chance.choice([0.0, 0.1, 0.3, 0.6])
    foreign: list[bytes] = []

    def before(operation: str, path: str) -> None:
        if chance.random() < failing:
            raise chance.choice(PROBLEMS)()

    async def happens(text: str) -> None:
        if len(asked) == 1:
            Failing.before = before
        number = attempts[0]
        ends = time.monotonic() + PATIENCE
        while attempts[0] == number and len(asked) > 1 and not foreign:
            assert time.monotonic() < ends
            await asyncio.sleep(0.001)
        if text == "row 5" and chance.random() < 0.5:
            what = chance.choice([None, b"", b"mine", gzip.compress(b"mine")])
            Failing.before = lambda operation, path: None
            put(what)
            Failing.before = before
            if what is not None:
                foreign.append(what)

    meanwhile[:] = [happens]
    assert run(tmp_path).counts.done == ROWS
    assert texts(tmp_path, "one") == WANTED
    monkeypatch.setattr(Failing, "before", lambda operation, path: None)
    meanwhile[:] = [nothing]
    there = content()
    if foreign and there == foreign[0]:
        with pytest.raises(ConfigurationError, match="is not a copy that Stillhouse made"):
            run(tmp_path, "two")
        assert content() == there
        return
    # A copy that was under way may have replaced what came meanwhile; it is whole in any case.
    finished = set() if there is None else finished_in(there, tmp_path)
    asked.clear()
    assert run(tmp_path, "two").counts.done == ROWS
    assert {*asked} == {f"row {number}" for number in range(ROWS)} - finished
    assert texts(tmp_path, "two") == WANTED


@pytest.mark.parametrize("operation", ["open wb", "write", "close", "read", "move", "copy", "remove", "info"])
def test_an_operation_that_always_fails_is_a_warning_once_the_run_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, operation: str
) -> None:
    def before(done: str, path: str) -> None:
        if done == operation:
            raise PermissionError("denied")

    async def happens(text: str) -> None:
        Failing.before = before

    meanwhile[:] = [happens]
    with caplog.at_level(logging.WARNING, "stillhouse.jobs"):
        assert run(tmp_path).counts.done == ROWS
    monkeypatch.setattr(Failing, "before", lambda operation, path: None)
    there = content()
    assert there is not None
    finished = finished_in(there, tmp_path)
    asked.clear()
    meanwhile[:] = [nothing]
    run(tmp_path, "two")
    assert len(asked) == ROWS - len(finished)
    assert len(finished) == (ROWS if operation in ("remove", "info") else 0)


class Killed(BaseException):
    """As if the process was killed."""


STEPS = [
    (CopyTarget, "save"), (CopyTarget, "_save"), (restoring.StateCopy, "_checked"), (restoring, "put_aside"),
    (restoring.os, "replace"), (StateCopier, "start"), (StateCopier, "finish"),
]  # fmt: skip


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name"), STEPS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_restore_that_was_killed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, is_after: bool
) -> None:
    run(tmp_path, limit=3)
    (tmp_path / "one").rename(tmp_path / "two")  # a backup of the machine, from before
    state = store_path(tmp_path / "two" / "out.jsonl")
    early = state.read_bytes()
    run(tmp_path, "two", limit=5)
    state.write_bytes(early)
    asked.clear()
    function = getattr(owner, name)

    def killed(*args: Any, **options: Any) -> Any:
        if is_after:
            function(*args, **options)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed)
        if owner is not StateCopier:  # which has ended what was restored
            patch.setattr(PartialFolder, "remove", lambda folder: None)
        with pytest.raises(Killed):
            run(tmp_path, "two")
    done = {*asked}
    run(tmp_path, "two")
    assert sorted(asked) == sorted({*asked})
    assert {*asked} == {f"row {number}" for number in range(5, ROWS)}
    assert done <= {*asked}
    assert texts(tmp_path, "two") == WANTED
    assert not [path for path in (tmp_path / "two").iterdir() if path.name.endswith(".partial")]


MARK = Mark("0" * 32, "1" * 32, 1, 1.5, False, 5, 3, "out.jsonl", "host", 7, 60.0, 2.0, 64)


def test_a_process_that_looks_at_an_address_does_not_disturb_another_ones_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is about to take the run over, and checks first whether it can write there."""
    (tmp_path / "state").write_bytes(b"12345")

    def before(operation: str, path: str) -> None:
        if operation == "move":
            monkeypatch.setattr(Failing, "before", lambda operation, path: None)
            CopyTarget(URL, "").probe("2" * 32)

    monkeypatch.setattr(Failing, "before", before)
    CopyTarget(URL, "").write(tmp_path / "state", MARK)
    found = content()
    assert found is not None
    assert (mark_in(found), gzip.decompress(found)) == (MARK, b"12345")
    assert {*Failing.store} == {PLACE}


@pytest.mark.parametrize("failing", ["write", "close"])
def test_an_address_that_has_no_room_is_refused_and_left_clean(
    failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def before(operation: str, path: str) -> None:
        if operation == failing:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Failing, "before", before)
    with pytest.raises(ConfigurationError, match=r"cannot be written: .*No space"):
        CopyTarget(URL, "").probe("2" * 32)
    assert not Failing.store


def test_what_a_killed_process_left_beside_its_copy_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def before(operation: str, path: str) -> None:
        if operation == "close" and len(asked) == ROWS:
            monkeypatch.setattr(Failing, "before", lambda operation, path: None)
            raise OSError(5, "killed")

    monkeypatch.setattr(Failing, "before", before)
    run(tmp_path)
    assert len(Failing.store) == 2
    run(tmp_path)
    run(tmp_path, "two")
    assert {*Failing.store} == {PLACE}


def test_a_run_says_that_it_waits_for_its_last_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "NOTICE_SECONDS", 0.0)
    said, waiting = list[str](), threading.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())
            if "the last copy" in said[-1]:
                waiting.set()

    def before(operation: str, path: str) -> None:
        if operation == "close" and len(asked) == ROWS:
            assert waiting.wait(PATIENCE)

    monkeypatch.setattr(Failing, "before", before)
    handler = Handler()
    logging.getLogger("stillhouse.jobs").addHandler(handler)
    try:
        run(tmp_path)
    finally:
        logging.getLogger("stillhouse.jobs").removeHandler(handler)
    head = (
        f"waiting for the last copy of the state to be written to {URL}; an interrupt ends the run without it"
    )
    assert [text for text in said if "the last copy" in text and not text.startswith(head)] == []


def test_an_interrupt_ends_the_wait_for_a_copy_and_no_second_one_is_begun(tmp_path: Path) -> None:
    """Two at a time would write to one place."""

    class Uploading:
        def is_alive(self) -> bool:
            return True

        def join(self) -> None:
            raise KeyboardInterrupt

    state = tmp_path / "state.db"
    sqlite3.connect(state).close()
    state.touch()
    copier = StateCopier(
        CopyTarget(URL, ""), state, "out", CopyFact("0" * 32), None, writer="1" * 32, stored=lambda: 0,
        window=1, on_lost=print,
    )  # fmt: skip
    copier._is_begun = True
    copier._thread = Uploading()  # type: ignore[assignment]
    copier.stop()
    told = copier.finish()
    assert told is not None
    assert told.startswith(f"the last copy of the state was not written to {URL}: interrupted; ")
    assert Failing.store == {}
