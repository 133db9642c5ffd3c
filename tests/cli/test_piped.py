"""A prompt on standard input: `--prompt -`, and what is piped into a command without INPUT."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .terminals import PATIENCE, on_pty

Piped = Callable[..., tuple[int, str, str]]


@pytest.fixture
def piped(tmp_path: Path) -> Piped:
    def call(data: bytes, *arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "stillhouse", "generate", "--llm", "echo", *arguments],
            input=data, capture_output=True, cwd=tmp_path, timeout=PATIENCE,
        )  # fmt: skip
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return call


@pytest.mark.parametrize("arguments", [[], ["--prompt", "-"]])
def test_what_is_piped_is_the_prompt(piped: Piped, arguments: list[str]) -> None:
    assert piped("\ufeffWie hei\u00dft der Fluss?\nUnd der See?\n".encode(), *arguments) == (
        0, "Wie hei\u00dft der Fluss?\nUnd der See?\n", "",
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [[], ["--prompt", "-"]])
def test_a_prompt_that_is_none_is_refused(piped: Piped, arguments: list[str]) -> None:
    status, out, err = piped(b" \n", *arguments)
    assert (status, out, "the prompt on standard input is empty" in err) == (2, "", True)
    status, out, err = piped(b"\xff\xfe\xfa", *arguments)
    assert (status, out, "the prompt on standard input is not UTF-8" in err) == (2, "", True)


def test_a_run_reads_rows_only_where_they_are_named(piped: Piped, tmp_path: Path) -> None:
    status, _, err = piped(b'{"prompt": "a"}\n', "-o", "out.jsonl")
    assert (status, "give either INPUT, which is - for rows on standard input" in err) == (2, True)
    assert not (tmp_path / "out.jsonl").exists()
    assert piped(b'{"prompt": "a"}\n', "-", "-o", "out.jsonl")[0] == 0
    assert (tmp_path / "out.jsonl").exists()


def test_a_prompt_that_is_given_is_not_mixed_with_what_is_piped(piped: Piped) -> None:
    assert piped(b"x", "--prompt", "a") == (0, "a\n", "")


@pytest.mark.parametrize("stdin", ["</dev/null", "<&-"])
def test_nothing_piped_is_nothing_to_do(tmp_path: Path, stdin: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m stillhouse generate --llm echo {stdin}"],
        capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE,
    )  # fmt: skip
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: there is nothing to do")


def test_a_terminal_is_not_waited_for_unless_the_prompt_is_to_be_typed(tmp_path: Path) -> None:
    status, got = on_pty(["generate", "--llm", "echo"], tmp_path, 80)
    assert (status, "there is nothing to do" in got) == (2, True)
    status, got = on_pty(["generate", "--llm", "echo", "--prompt", "-"], tmp_path, 80, keys="typed\n\x04")
    assert (status, got.splitlines()[-1]) == (0, "typed")
