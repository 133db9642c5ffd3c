"""The tutorial, followed by somebody who does nothing but what it says."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from .steps import DOCS, commands, steps

TUTORIAL = DOCS / "write-a-backend.md"


@pytest.mark.environment
def test_the_tutorial_does_what_it_says(tmp_path: Path, fresh_environment: Path) -> None:
    ran = 0
    for path, text in steps(TUTORIAL):
        if path != "$":
            target = tmp_path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            continue
        for command, expected in commands(text):
            program, *arguments = shlex.split(command)
            result = subprocess.run(
                [fresh_environment / program, *arguments],
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            printed = (result.stdout + result.stderr).splitlines()
            missing = [line for line in expected if line not in printed]
            assert not missing, f"{command} printed:\n{result.stdout}{result.stderr}"
            if not expected:
                assert result.returncode == 0, result.stderr
            ran += 1
    assert ran >= 8


def test_the_page_has_no_step_that_is_left_out() -> None:
    text = TUTORIAL.read_text(encoding="utf-8")
    found = steps(TUTORIAL)
    assert text.count("```") == 2 * len(found)
    assert all(path for path, _ in found), "a block has no file name before it"
