"""Files as people have them, and the reader and the command that read them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse.cli.app import app
from stillhouse.jobs.formats.reading import Reading
from stillhouse.jobs.sources.names import Names
from stillhouse.jobs.sources.opening import notes_of, open_input
from stillhouse.protocols import Row


@dataclass
class Rows:
    """What was read: the columns of the rows, the errors of those that failed, and what was told."""

    rows: list[Row]
    notes: list[str]

    @property
    def columns(self) -> list[dict[str, Any]]:
        assert not self.errors, self.errors
        return [row.columns for row in self.rows]

    @property
    def errors(self) -> list[str]:
        return [row.error.message for row in self.rows if row.error is not None]


def rows_of(*names: object, delimiter: str | None = None, encoding: str | None = None) -> Rows:
    """Read files as a run does: what is wrong with one as a whole is found with its digest."""
    reader = open_input(Names(map(str, names)), None, Reading.of(delimiter, encoding))
    with contextlib.closing(reader):
        digest = reader.digest()
        rows = list(reader)
        assert [row.index for row in rows] == list(range(len(rows)))
        assert reader.digest() == digest
        assert [(repr(row.columns), row.digest) for row in reader] == [
            (repr(row.columns), row.digest) for row in rows
        ]
        return Rows(rows, notes_of(reader, str(names[0])))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def written(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return written


@dataclass
class Result:
    status: int
    out: str
    err: str
    output: Path

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.read_bytes().splitlines()]

    @property
    def answers(self) -> list[Any]:
        return [row["generations"][0] for row in self.rows]


@pytest.fixture
def generate(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Result]:
    """Run `stillhouse generate` with `echo`, which answers with the prompt."""
    output = tmp_path / "out" / "out.jsonl"
    output.parent.mkdir()

    def call(*arguments: object, to: Path = output) -> Result:
        with pytest.raises(SystemExit) as exited:
            app(["generate", *map(str, arguments), "--llm", "echo", "-o", str(to)], prog_name="stillhouse")
        captured = capsys.readouterr()
        status = exited.value.code
        return Result(status if isinstance(status, int) else 0, captured.out, captured.err, to)

    return call


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> stillhouse.Registry:
    """A registry without plugins."""
    registry = stillhouse.Registry(entry_points=())
    monkeypatch.setattr("stillhouse.registry.registry._default", registry)
    return registry


@pytest.fixture
def start_piped() -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run the command as a process of its own, with this on its standard input."""

    def call(content: bytes, *arguments: object) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "stillhouse", "generate", "-", "--llm", "echo", *map(str, arguments)]
        return subprocess.run(command, input=content, capture_output=True, timeout=60, check=False)

    return call
