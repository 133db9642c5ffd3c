"""Commands in processes of their own, for the tests of engines: one clear error, and a run that was killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["COMMAND", "assert_a_killed_run_goes_on", "assert_one_error", "environment", "run"]

COMMAND = [sys.executable, "-c", "from stillhouse.cli import main; main()"]


def environment() -> dict[str, str]:
    """That of the tests, without what names a plugin that need not be installed."""
    return {key: text for key, text in os.environ.items() if key != "STILLHOUSE_DISABLE_PLUGINS"}


def run(
    *arguments: Any, code: str = "", timeout: float = 120, **named: Any
) -> subprocess.CompletedProcess[str]:
    """Run `stillhouse`, or code, until it ends.

    Args:
        arguments: of the command line.
        code: of Python, instead of the command.
        timeout: seconds.
        named: further arguments of `subprocess.run`.
    """
    command = [sys.executable, "-c", code] if code else COMMAND
    named = {"env": environment(), **named}
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, **named
    )


def assert_one_error(made: subprocess.CompletedProcess[str], words: str) -> None:
    """The command said what is wrong, what to do, and nothing else."""
    assert made.returncode == 1, made.stderr
    assert words in made.stderr
    assert "Traceback" not in made.stderr
    assert made.stderr.startswith("error: ")
    assert len(made.stderr.strip().splitlines()) == 2, made.stderr
    assert made.stdout == ""


def assert_a_killed_run_goes_on(folder: Path, *options: str, dying: str, **named: Any) -> None:
    """A run that was killed is resumed, and writes what an undisturbed one writes.

    Args:
        folder: an empty one.
        options: of `generate`, without input and output.
        dying: code that does the same, and kills its process in the middle, as by `kill -9`.
        named: as for `run`.
    """
    rows = [{"id": number, "prompt": "river " * (1 + number % 9)} for number in range(60)]
    questions = folder / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    asked = ["generate", questions, *options, "--param", "temperature=0", "--max-concurrency", "4", "-o"]
    whole = run(*asked, folder / "whole.jsonl", **named)
    assert whole.returncode == 0, whole.stderr
    output = folder / "killed.jsonl"
    killed = run(*asked, output, code=dying, **named)
    assert killed.returncode == -9, killed.stderr
    again = run(*asked, output, **named)
    assert again.returncode == 0, again.stderr
    assert output.read_bytes() == (folder / "whole.jsonl").read_bytes()
