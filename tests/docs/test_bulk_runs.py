"""The page on bulk runs: its commands print what it says, one after the other."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from stillhouse.errors import ERROR_KINDS
from stillhouse.jobs.budget import _REFUSED

from .steps import DOCS, commands, steps

PAGE = DOCS / "bulk-runs.md"

NOT_RUN = re.compile(r"<!-- not run: [^>]+ -->\n\n```console\n(.*?)^```$", re.M | re.S)


def test_the_commands_do_what_the_page_says(tmp_path: Path) -> None:
    left_out = set(NOT_RUN.findall(PAGE.read_text(encoding="utf-8")))
    assert len(left_out) == 1
    ran, status = 0, 0
    for path, text in steps(PAGE):
        if path not in ("", "$"):
            (tmp_path / path).write_text(text, encoding="utf-8")
        if path != "$" or text in left_out:
            continue
        for command, expected in commands(text):
            if command == "echo $?":
                assert expected == [str(status)]
                continue
            program, *arguments = shlex.split(command)
            assert program == "stillhouse"
            result = subprocess.run(
                [sys.executable, "-c", "from stillhouse.cli import main; main()", *arguments],
                cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            status = result.returncode
            printed = [" ".join(line.split()) for line in (result.stdout + result.stderr).splitlines()]
            missing = [line for line in expected if " ".join(line.split()) not in printed]
            assert not missing, f"{command} printed:\n{result.stdout}{result.stderr}"
            ran += 1
    assert ran == 7


def test_the_kinds_that_cost_nothing_are_those_of_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    told = re.search(r"the server refused\n  \((.*?)\)", text)
    assert told is not None
    kinds = set(re.findall(r"`(\w+)`", told[1]))
    # A refused key ends the run, and a row that is no input is not sent.
    assert kinds | {"authentication", "invalid_input"} == _REFUSED
    assert set(ERROR_KINDS) >= _REFUSED
