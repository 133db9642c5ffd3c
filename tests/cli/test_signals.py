"""Signals that stop `stillhouse generate`, and runs on threads that cannot handle them."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Result

PATIENCE = 60.0

needs_sighup = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")


@pytest.fixture
def source(rows_file: Callable[[list[Any]], Path]) -> Path:
    return rows_file([{"prompt": f"row {number}"} for number in range(300)])


def arguments(source: Path, output: Path) -> list[object]:
    return [
        "generate", source, "--llm", "echo", "--set", "latency=0.02", "--max-concurrency", 4, "-o", output
    ]  # fmt: skip


def finished(output: Path) -> int:
    """The number of rows in the state of a run."""
    state = output.with_name(f"{output.name}.run.db")
    address = f"{state.as_uri()}?mode=ro"  # an empty file would be taken for a state that was cut off
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(address, uri=True)) as connection,
    ):
        return int(connection.execute("SELECT count(*) FROM rows").fetchone()[0])
    return 0


def outcomes(output: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(output.with_name(f"{output.name}.run.db"))) as connection:
        return [outcome for (outcome,) in connection.execute("SELECT outcome FROM sessions")]


def wait_for_rows(process: subprocess.Popen[Any], output: Path) -> None:
    ends = time.monotonic() + PATIENCE
    while not finished(output):
        assert process.poll() is None
        assert time.monotonic() < ends
        time.sleep(0.02)


@needs_sighup
def test_sighup_waits_for_the_rows_in_flight(
    start: Any, run: Callable[..., Result], source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    process = start(*arguments(source, output))
    wait_for_rows(process, output)
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert "stopping: waiting for the rows in flight" in err
    assert "run the same command again" in err
    assert 0 < finished(output) < 300
    assert outcomes(output) == ["interrupted"]
    resumed = run(*arguments(source, output))
    assert (resumed.status, "resuming: " in resumed.err) == (0, True), resumed.err


@needs_sighup
def test_sighup_stays_ignored_under_nohup(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    ignore = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
    process = subprocess.Popen(
        [sys.executable, "-c", f"{ignore}from stillhouse.cli import main; main()",
         *map(str, arguments(source, output))],
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        wait_for_rows(process, output)
        process.send_signal(signal.SIGHUP)
        _, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert outcomes(output) == ["complete"]


@needs_sighup
def test_a_terminal_that_is_closed_stops_the_run_like_sigterm(source: Path, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    output = tmp_path / "out.jsonl"
    command = [sys.executable, "-c", "from stillhouse.cli import main; main()"]
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [*command, *map(str, arguments(source, output))])
    ends = time.monotonic() + PATIENCE
    while not finished(output):
        assert time.monotonic() < ends
        os.read(terminal, 1 << 16)
    os.close(terminal)
    os.waitpid(child, 0)
    assert 0 < finished(output) < 300
    assert outcomes(output) == ["interrupted"]


@pytest.mark.parametrize("target", ["file", "standard output"])
def test_a_run_on_another_thread_leaves_the_signals_alone(
    run: Callable[..., Result], rows_file: Any, tmp_path: Path, target: str
) -> None:
    source = rows_file([{"prompt": "a"}] * 3)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    found: list[Result] = []
    output = tmp_path / "out.jsonl" if target == "file" else "-"
    thread = threading.Thread(
        target=lambda: found.append(run("generate", source, "--llm", "echo", "-o", output))
    )
    thread.start()
    thread.join(PATIENCE)
    (result,) = found
    assert result.status == 0, result.err
    assert "Traceback" not in result.err
    assert {number: signal.getsignal(number) for number in before} == before


def test_the_handlers_are_restored_after_a_run(run: Callable[..., Result], rows_file: Any) -> None:
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
    before = [signal.getsignal(getattr(signal, name)) for name in names]
    assert run("generate", rows_file([{"prompt": "a"}]), "--llm", "echo", "-o", "-").status == 0
    assert [signal.getsignal(getattr(signal, name)) for name in names] == before
