"""Running the command line, in this process or as a real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse import AsyncLLM, FormattedInput, GenerateOutput
from stillhouse.cli.app import app


@dataclass
class Result:
    status: int
    out: str
    err: str


class NeverLLM(AsyncLLM):
    """An LLM that must not be loaded."""

    @property
    def model_name(self) -> str:
        return "m"

    def load(self) -> None:
        raise AssertionError("it was loaded")

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        raise AssertionError("it was called")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run a command line in this process."""

    def call(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as exited:
            app([str(argument) for argument in arguments], prog_name="stillhouse")
        captured = capsys.readouterr()
        status = exited.value.code
        return Result(status if isinstance(status, int) else 0, captured.out, captured.err)

    return call


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the command as a process of its own."""
    processes = []

    def popen(*arguments: object, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", "from stillhouse.cli import main; main()", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            **options,
        )
        processes.append(process)
        return process

    yield popen
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> stillhouse.Registry:
    """A registry that only these tests register backends in."""
    registry = stillhouse.Registry(entry_points=())
    monkeypatch.setattr("stillhouse.registry.registry._default", registry)
    return registry


def write_rows(path: Path, rows: list[Any]) -> Path:
    """A JSONL file of these rows; a text stands for itself."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def rows_file(tmp_path: Path) -> Callable[[list[Any]], Path]:
    return lambda rows: write_rows(tmp_path / "rows.jsonl", rows)


@pytest.fixture
def read() -> Callable[[Path], list[dict[str, Any]]]:
    return read_rows
