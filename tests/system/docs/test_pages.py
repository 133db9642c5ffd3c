"""Every code block of every page, run by somebody who does nothing but what the page says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from .steps import DOCS, ROOT, Block, blocks, commands, missing

PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
SHOWN = {"csv", "html", "ini", "json", "jsonl", "text", "toml", "yaml"}
SECONDS = 300
END = "-- the end of a step --"

PYTHON = f"""
import json, sys, traceback
variables = {{"__name__": "__main__"}}
for line in sys.stdin:
    status = 0
    try:
        exec(compile(json.loads(line), "<the page>", "exec"), variables)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stderr.flush()
    print("{END}", status, flush=True)
"""


class Python:
    """The process in which a page's blocks of Python run, one after the other."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["python", "-u", "-c", PYTHON], cwd=folder, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, code: str) -> tuple[int, str]:
        """Its exit status, 0 or 1, and what it printed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        printed = []
        timer = threading.Timer(SECONDS, self._process.kill)
        timer.start()
        self._process.stdin.write(json.dumps(code) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith(END):
                timer.cancel()
                return int(line.split()[-1]), "".join(printed)
            printed.append(line)
        timer.cancel()
        return 1, "".join([*printed, "the process ended\n"])

    def __enter__(self) -> Python:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


def run_in_shell(
    block: Block, folder: Path, environment: dict[str, str]
) -> list[tuple[str, list[str], int, str]]:
    """The commands of a block, in one shell: each with what it shall print, its status, what it printed."""
    steps = commands(block.text) if block.language == "console" else [(block.text, [])]
    end = f'status=$?; echo "{END} $status"; (exit $status)'
    result = subprocess.run(
        ["bash", "-c", "\n".join(f"{command}\n{end}" for command, _ in steps)],
        cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    done = []
    parts: list[Any] = result.stdout.split(END)
    assert len(parts) == len(steps) + 1, result.stdout
    for (command, expected), printed, after in zip(steps, parts, parts[1:], strict=False):
        own = printed.partition("\n")[2] if done else printed
        done.append((command, expected, int(after.split()[0]), own))
    return done


def test_a_block_runs_or_says_why_not() -> None:
    silent = [
        f"{page.relative_to(ROOT)}:{block.line}: {block.language or 'no language'}"
        for page in PAGES
        for block in blocks(page)
        if not (block.runs or block.path or block.reason or block.language in SHOWN)
    ]
    assert not silent, "name the file before the block, or write <!-- not run: why -->"


def test_no_block_is_overlooked() -> None:
    for page in PAGES:
        found = blocks(page)
        printed = sum(block.expected is not None for block in found)
        assert page.read_text(encoding="utf-8").count("```") == 2 * (len(found) + printed), page


@pytest.mark.environment
@pytest.mark.skipif(sys.platform == "win32", reason="the commands are for a POSIX shell")
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(block.runs for block in blocks(page))],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_code_blocks_of_a_page_print_what_it_shows(
    page: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    with Python(tmp_path, environment) as python:
        for block in blocks(page):
            where = f"{page.relative_to(ROOT)}:{block.line}"
            if block.path and not block.reason:
                target = tmp_path / block.path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(block.text, encoding="utf-8")
            elif block.runs and block.language == "python":
                status, printed = python.run(block.text)
                assert status == 0, f"{where}:\n{printed}"
                lost = missing((block.expected or "").splitlines(), printed)
                assert lost is None, f"{where}: {lost!r} is not printed:\n{printed}"
            elif block.runs:
                for command, expected, status, printed in run_in_shell(block, tmp_path, environment):
                    lost = missing(expected, printed)
                    assert lost is None, f"{where}: {command}\ndoes not print {lost!r}:\n{printed}"
                    assert expected or status == 0, f"{where}: {command}\nexits with {status}:\n{printed}"
