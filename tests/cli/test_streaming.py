"""`stillhouse generate --prompt` prints the text as it comes, into a pipe and on a terminal alike."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .terminals import on_pty

PATIENCE = 60.0
BACKENDS = str(Path(__file__).with_name("odd_backends.py"))

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    processes = []

    def popen(model: str, *arguments: object) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, BACKENDS, *command(model), *map(str, arguments)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
        )  # fmt: skip
        processes.append(process)
        return process

    yield popen
    for process in processes:
        process.kill()
        process.communicate()


def command(model: str) -> list[str]:
    return ["generate", "--llm", "pieces", "--set", f"model={model}", "--prompt", "x"]


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out.decode(), err.decode()


def test_a_pipe_gets_a_piece_before_the_next_one_is_made(start: Start) -> None:
    process = start("one |two|wait")
    assert process.stdout is not None
    got = process.stdout.read(4)
    while len(got) < 7 and (more := process.stdout.read(7 - len(got))):
        got += more
    assert got == b"one two"  # now it waits for a minute
    process.send_signal(signal.SIGINT)
    status, rest, err = ended(process)
    assert (status, rest) == (130, "\n"), err


def test_pieces_are_one_line_in_the_end(start: Start) -> None:
    assert ended(start("one |two\n| three")) == (0, "one two\n three\n", "")


def test_a_warning_does_not_break_the_line() -> None:
    process = subprocess.run(
        [sys.executable, BACKENDS, *command("one |warn|two")],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE,
        text=True, check=True,
    )  # fmt: skip
    assert process.stdout == "one two\nit is slow\n"


def test_an_error_follows_what_was_printed(start: Start) -> None:
    status, out, err = ended(start("one |fail"))
    assert (status, out) == (1, "one \n")
    assert "error: " in err
    assert "the stream broke" in err


def test_a_text_that_is_withdrawn_is_said_to_be_none(start: Start) -> None:
    status, out, err = ended(start("one|none"))
    assert (status, out) == (3, "one\n")
    assert "no text (finish reason: content_filter)" in err


def test_several_generations_come_whole(start: Start) -> None:
    assert ended(start("one |two", "-n", 2)) == (0, "one two\none two\n", "")


def test_a_reader_that_leaves_ends_the_request(start: Start) -> None:
    process = start("|".join(["x" * 500] * 200), "--traceback")
    assert process.stdout is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait(PATIENCE) == 0
    assert process.stderr is not None
    assert process.stderr.read() == b""


PIECES = ["a\x1b", "]0;title", "\x07b\x1b[", "2Jc\n", "\rover", "\x9b", "2J\x08", "\r", "\nend"]


def test_a_sequence_across_pieces_does_nothing_on_a_terminal(tmp_path: Path) -> None:
    run = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    status, got = on_pty(["-c", run, BACKENDS, *command("|".join(PIECES))], tmp_path, 80)
    assert status == 0, got
    text = got.replace("\r\n", "\n")
    assert text == "a\\x1b]0;title\\x07b\\x1b[2Jc\n\\x0dover\\u009b2J\\x08\\x0d\nend\n"


def test_a_pipe_gets_pieces_as_they_are(start: Start) -> None:
    process = start("|".join(PIECES))
    out, err = process.communicate(timeout=PATIENCE)
    assert out.decode() == "".join(PIECES) + "\n"
    assert err == b""


def test_offline_batches_are_not_streamed(run: Any) -> None:
    result = run("generate", "--llm", "echo", "--set", "use_offline_batch_generation=true", "--prompt", "x")
    assert "cannot be streamed" not in result.err
