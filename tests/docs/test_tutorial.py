"""The tutorial, followed by somebody who does nothing but what it says."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "write-a-backend.md"

BLOCK = re.compile(r"(?:^`(?P<path>[^`\n]+)`\n\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S)


def steps() -> list[tuple[str, str]]:
    """What the page asks for, in its order: `(path, content)` of a file, or `("$", transcript)`."""
    found = []
    for block in BLOCK.finditer(TUTORIAL.read_text(encoding="utf-8")):
        if block["language"] == "console":
            found.append(("$", block["text"]))
        else:
            assert block["path"], f"a block of {block['language']} has no file name before it"
            found.append((block["path"], block["text"]))
    return found


def commands(transcript: str) -> list[tuple[str, list[str]]]:
    """The commands of a transcript, each with the lines that it shall print."""
    parsed: list[tuple[str, list[str]]] = []
    for line in transcript.splitlines():
        if line.startswith("$ "):
            parsed.append((line[2:], []))
        else:
            parsed[-1][1].append(line)
    return parsed


@pytest.mark.environment
def test_the_tutorial_does_what_it_says(tmp_path: Path, fresh_environment: Path) -> None:
    ran = 0
    for path, text in steps():
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
    assert text.count("```") == 2 * len(steps())
