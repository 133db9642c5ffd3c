"""What an interrupt leaves unsent, and the status of whatever is interrupted, from its first moment on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stillhouse.testing.server import Reply, ScriptedServer

from .conftest import read_rows, write_rows
from .test_signals import PATIENCE, finished

BACKENDS = Path(__file__).with_name("odd_backends.py")

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

Start = Callable[..., subprocess.Popen[str]]


class Gate(ScriptedServer):
    """A server that answers when it is let to.

    Attributes:
        per_request: how many texts it gives for one request at most.
    """

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.per_request = 100
        super().__init__(self._respond_when_open)

    def _respond_when_open(self, path: str, body: Any) -> Any:
        assert self.opened.wait(PATIENCE)
        return {"texts": [f"re: {body['prompt']}"] * min(body["n"], self.per_request)}

    def wait_for(self, count: int) -> None:
        ends = time.monotonic() + PATIENCE
        while len(self.requests) < count:
            assert time.monotonic() < ends, len(self.requests)
            time.sleep(0.01)


@pytest.fixture
def server() -> Iterator[Gate]:
    server = Gate()
    yield server
    server.opened.set()
    server.close()


@pytest.fixture
def backends() -> Iterator[Start]:
    processes = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(BACKENDS), *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def begin(backends: Start, server: Gate, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start a run of 40 rows against the server, eight at a time."""

    def begin(*options: object, llm: str = "remote", output: object = None, rows: int = 40) -> Any:
        source = write_rows(tmp_path / "in.jsonl", [{"prompt": f"row {number}"} for number in range(rows)])
        return backends(
            "generate", source, "--llm", llm, "--set", f"base_url={server.origin}", "--max-concurrency", 8,
            "-o", output or tmp_path / "out.jsonl", *options,
        )  # fmt: skip

    return begin


def wait_for_line(process: subprocess.Popen[str], beginning: str) -> None:
    """Read standard error up to a line that begins so."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(beginning):
            return
    raise AssertionError(f"the process ended without {beginning!r}")


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in err
    assert "Aborted" not in err
    return process.returncode, err


@pytest.mark.parametrize("number", SIGNALS)
def test_nothing_that_was_not_sent_is_sent_after_a_signal(
    begin: Any, server: Gate, tmp_path: Path, number: signal.Signals
) -> None:
    process = begin()
    server.wait_for(8)
    process.send_signal(number)
    wait_for_line(process, "stopping: ")
    server.opened.set()
    status, err = ended(process)
    assert (status, len(server.requests)) == (130, 8), err
    assert "8 finished rows" in err
    assert finished(tmp_path / "out.jsonl") == 8


def test_a_stopped_run_goes_on_and_asks_for_every_row_once(begin: Any, server: Gate, tmp_path: Path) -> None:
    process = begin()
    server.wait_for(8)
    process.send_signal(signal.SIGINT)
    wait_for_line(process, "stopping: ")
    server.opened.set()
    assert ended(process)[0] == 130
    assert ended(begin())[0] == 0
    asked = [request.body["prompt"] for request in server.requests]
    assert sorted(asked) == sorted(f"row {number}" for number in range(40))
    assert [row["generations"] for row in read_rows(tmp_path / "out.jsonl")] == [
        [f"re: row {number}"] for number in range(40)
    ]


def test_rows_in_flight_are_printed_and_no_others(begin: Any, server: Gate) -> None:
    process = begin(output="-")
    server.wait_for(8)
    process.send_signal(signal.SIGINT)
    wait_for_line(process, "stopping: ")
    server.opened.set()
    out, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, len(server.requests)) == (130, 8)
    assert [json.loads(line)["prompt"] for line in out.splitlines()] == [f"row {n}" for n in range(8)]


def test_a_request_that_waits_for_its_next_attempt_is_not_made(begin: Any, server: Gate) -> None:
    server.always = Reply(503, {"error": "busy"}, {"retry-after": "600"})
    process = begin("--set", "retry_timeout=3600")
    server.wait_for(8)
    process.send_signal(signal.SIGINT)
    wait_for_line(process, "stopping: ")
    status, err = ended(process)
    assert (status, len(server.requests)) == (130, 8), err
    assert "0 finished rows" in err


def test_a_request_that_waits_for_its_turn_is_not_made(begin: Any, server: Gate) -> None:
    server.opened.set()
    process = begin("--set", "requests_per_minute=1")
    server.wait_for(1)
    process.send_signal(signal.SIGINT)
    wait_for_line(process, "stopping: ")
    status, err = ended(process)
    assert status == 130, err
    assert len(server.requests) == finished_in(err) <= 2


def finished_in(err: str) -> int:
    return int(err.partition("interrupted: ")[2].partition(" ")[0])


@pytest.mark.parametrize("llm", ["remote", "single"])
def test_generations_by_several_requests_are_kept_and_the_rest_is_asked_for_later(
    begin: Any, server: Gate, tmp_path: Path, llm: str
) -> None:
    server.per_request = 1
    process = begin("-n", 3, llm=llm, rows=4)
    expected = 4 if llm == "remote" else 8  # calls of one generation each are all in flight at once
    server.wait_for(expected)
    process.send_signal(signal.SIGINT)
    wait_for_line(process, "stopping: ")
    server.opened.set()
    status, err = ended(process)
    assert (status, len(server.requests)) == (130, expected), err
    assert ended(begin("-n", 3, llm=llm, rows=4))[0] == 0
    assert len(server.requests) == 12
    assert all(len(row["generations"]) == 3 for row in read_rows(tmp_path / "out.jsonl"))


def test_a_second_signal_stops_at_once(begin: Any, server: Gate, tmp_path: Path) -> None:
    process = begin()
    server.wait_for(8)
    process.send_signal(signal.SIGINT)
    wait_for_line(process, "stopping: ")
    process.send_signal(signal.SIGINT)
    status, err = ended(process)
    assert (status, len(server.requests)) == (130, 8), err
    assert "0 finished rows" in err


def test_signals_without_end_give_no_other_status(begin: Any, server: Gate) -> None:
    process = begin()
    server.wait_for(8)
    ends = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < ends:
        process.send_signal(signal.SIGINT)
    assert process.returncode == 130


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("where", ["load", "call"])
def test_a_signal_outside_a_run_is_an_interrupt(backends: Start, number: signal.Signals, where: str) -> None:
    process = backends("generate", "--prompt", "a", "--llm", "waiting", "--set", f"where={where}")
    wait_for_line(process, "loading" if where == "load" else "calling")
    process.send_signal(number)
    assert ended(process)[0] == 130


EARLY = """
import os, signal, sys

class Interrupting:
    # Interrupts the process when it imports a certain module.
    def find_spec(self, name, path=None, target=None):
        if name == module:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

module = sys.argv[1]
sys.meta_path.insert(0, Interrupting())
from stillhouse.cli import main
sys.argv = ["stillhouse", *sys.argv[2:]]
main()
"""


@pytest.mark.parametrize(
    "module", ["click", "stillhouse.cli.app", "pydantic", "stillhouse.registry.validation"]
)
def test_an_interrupt_while_anything_is_imported_is_one(module: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", EARLY, module, "generate", "--prompt", "a", "--llm", "echo"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert ended(process)[0] == 130


def test_watching_a_status_ends_with_the_status_of_an_interrupt(
    begin: Any, backends: Start, server: Gate, tmp_path: Path
) -> None:
    run = begin()
    server.wait_for(8)
    watch = backends("status", tmp_path / "out.jsonl", "--watch")
    assert watch.stdout is not None
    assert watch.stdout.readline().startswith("state")
    watch.send_signal(signal.SIGINT)
    assert ended(watch)[0] == 130
    run.kill()


def test_watching_a_status_ends_with_the_run(
    begin: Any, backends: Start, server: Gate, tmp_path: Path
) -> None:
    run = begin()
    server.wait_for(8)
    watch = backends("status", tmp_path / "out.jsonl", "--watch")
    assert watch.stdout is not None
    assert watch.stdout.readline().startswith("state  running (process ")
    server.opened.set()
    assert ended(run)[0] == 0
    text = watch.communicate(timeout=PATIENCE)[0]
    assert watch.returncode == 0
    assert re.search("^state +complete$", text, re.M)
    assert re.search("^rows finished +40 of 40$", text, re.M)
