"""Worker processes whose backend does to its process what no backend should do."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse import GenerationError
from stillhouse.jobs.executors import Died, Setup, Workers, processes
from stillhouse.jobs.executors.messages import Begin, Inputs, Ready, Results
from stillhouse.jobs.executors.pickling import pickled
from stillhouse.jobs.executors.processes import ProcessWorker

from .conftest import PATIENCE, read_jsonl
from .test_executors import wait_until_gone, write

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it looks at its files there")

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)

import worker_llms  # noqa: E402 - workers import it by this name


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Iterator[None]:
    yield
    sys.path.remove(HERE)


def generate(tmp_path: Path, words: list[str], workers: int = 1) -> list[dict[str, Any]]:
    prompts = [f"{word} {number}" for number, word in enumerate(words)]
    source = write(tmp_path / "in.jsonl", prompts)
    stillhouse.run(
        source, llm=worker_llms.Unruly(), output=tmp_path / "o.jsonl", executor="processes", workers=workers,
        show_bar=False, max_failures=0,
    )  # fmt: skip
    return read_jsonl(tmp_path / "o.jsonl")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("garbage", "its message cannot be read: ValueError: something else than a message is in the pipe"),
        ("half", "status 0"),
        ("closed", "status"),
        ("malign", "its message cannot be read: ValueError: it raised SystemExit: 3"),
        ("fork", "killed by SIGKILL"),
    ],
)
def test_a_backend_that_spoils_its_worker_is_its_death(word: str, said: str) -> None:
    """Else the run would wait for it for ever. What follows a death, other tests show."""
    ready, ended, messages = threading.Event(), threading.Event(), list[Any]()

    def deliver(message: Any) -> None:
        messages.append(message)
        if isinstance(message, (Ready, Died)):
            ready.set()
        if isinstance(message, Died):
            ended.set()

    worker = ProcessWorker(Setup(pickled(worker_llms.Unruly())), deliver)
    try:
        assert ready.wait(PATIENCE)
        worker.send(Begin(1, {}, False))
        worker.send(Inputs([(0, [{"role": "user", "content": word}])]))
        assert ended.wait(PATIENCE)
    finally:
        worker.close(at_once=True)
    assert not [message for message in messages if isinstance(message, Results)]
    assert said in messages[-1].reason


def test_what_a_backend_does_to_its_process_changes_no_row(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    words = ["format", "place", "read", "folder", "signals", "thread", "large", "surrogate", "exit", "row"]
    with caplog.at_level(logging.WARNING, "stillhouse"):
        rows = generate(tmp_path, words)
    made = {word: row["generations"] for word, row in zip(words, rows, strict=True)}
    assert made.pop("read") == ["read ''"]
    assert made.pop("large") == ["x" * (16 << 20)]
    assert made.pop("surrogate") in (["\ufffd"], ["\ud83d"])
    assert made.pop("exit") is None
    assert "SystemExit: 4" in rows[words.index("exit")]["error"]["message"]
    assert made == {word: [f"{word} {words.index(word)}!"] for word in made}
    assert not capfd.readouterr().out
    assert "at a place" in caplog.messages
    said = [message for message in caplog.messages if "could not unload" in message]
    assert len(said) == 1
    assert "ZeroDivisionError: no way to unload" in said[0]


def test_processes_that_a_dead_worker_has_forked_are_ended(tmp_path: Path) -> None:
    """They would hold its memory, and the pipe whose end says that it is gone."""
    ended, said = threading.Event(), list[Any]()

    def deliver(message: Any) -> None:
        said.append(message)
        if isinstance(message, Died):
            ended.set()

    worker = ProcessWorker(Setup(pickled(worker_llms.Forking(says=str(tmp_path / "child")))), deliver)
    assert ended.wait(PATIENCE)
    worker.close(at_once=True)
    assert len(said) == 1
    assert said[0].reason.startswith("killed by SIGKILL")
    wait_until_gone(int((tmp_path / "child").read_text()))


def test_a_worker_that_was_stopped_by_a_signal_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost, and leaving in the middle does not wait for it for long."""
    monkeypatch.setattr(processes, "INTERRUPT_SECONDS", 0.2)
    chats = [[{"role": "user", "content": f"row {number}"}] for number in range(300)]
    with Workers(worker_llms.Fragile(says_process=True), 2, ProcessWorker) as workers:
        found, process = dict[int, Any](), 0
        for group in workers.iter_finished(chats, ordered=False):
            for index, output, _ in group:
                found[index] = output["generations"]
            if not process:
                process = int(output["generations"][0])
                os.kill(process, signal.SIGSTOP)
                threading.Timer(0.3, os.kill, (process, signal.SIGCONT)).start()
        assert len(found) == 300
        os.kill(process, signal.SIGSTOP)
        # In order, the first row might be with the worker that is stopped.
        groups = workers.iter_finished(chats * 9, ordered=False)
        next(groups)
        groups.close()
    wait_until_gone(process)


def test_workers_generate_again_after_an_error_that_stopped_them() -> None:
    """As for a program that gives lists of rows, and handles their errors."""

    def chats(*texts: str) -> list[Any]:
        return [[{"role": "user", "content": text}] for text in texts]

    with Workers(worker_llms.Fragile(), 2, ProcessWorker) as workers:
        for _ in range(2):
            with pytest.raises(GenerationError, match="the key was refused"):
                list(workers.iter_finished(chats("a", "refuse", "b"), on_error="yield"))
            groups = workers.iter_finished(chats("c", "d"))
            found = [output["generations"] for group in groups for _, output, _ in group]
            assert found == [["c!"], ["d!"]]
