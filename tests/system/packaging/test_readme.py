"""The first commands of the READMEs, on a copy of the checkout, as on a fresh machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

pytestmark = [
    pytest.mark.environment,
    pytest.mark.skipif(sys.platform == "win32", reason="the commands are for a POSIX shell"),
]


def bash_blocks(readme: Path = ROOT / "README.md") -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```$", readme.read_text(encoding="utf-8"), re.M | re.S)


ENGINES = [
    readme.parent.name
    for readme in sorted(ROOT.glob("plugins/*/README.md"))
    if any("-m venv" in block for block in bash_blocks(readme)[:1])
]
"""The packages whose READMEs begin with what sets up a bare machine."""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    target = tmp_path / "stillhouse"
    shutil.copytree(
        ROOT,
        target,
        ignore=shutil.ignore_patterns(
            ".git", ".tox", ".venv*", ".site", "__pycache__", "*.egg-info", "answers.jsonl", ".*_cache"
        ),
    )
    return target


def run(commands: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run commands in a shell in which no virtual environment is active, not that of tox either."""
    path = [
        entry
        for entry in os.environ["PATH"].split(os.pathsep)
        if not (Path(entry).parent / "pyvenv.cfg").is_file()
    ]
    environment = {**os.environ, "PATH": os.pathsep.join(path)}
    environment.pop("VIRTUAL_ENV", None)
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return result


def test_the_first_command_answers_every_question_in_order(copy: Path) -> None:
    run(bash_blocks()[0], copy)
    questions = [json.loads(line) for line in (copy / "examples/questions.jsonl").read_text().splitlines()]
    answers = [json.loads(line) for line in (copy / "answers.jsonl").read_text().splitlines()]
    assert len(questions) >= 50
    assert [answer["prompt"] for answer in answers] == [question["prompt"] for question in questions]
    for answer in answers:
        assert answer["error"] is None
        assert len(answer["generations"]) == 1
        assert isinstance(answer["generations"][0], str)
        assert answer["statistics"]["input_tokens"][0] > 0
        assert answer["statistics"]["output_tokens"][0] > 0


def test_engines_that_bring_their_libraries_say_how_to_set_them_up() -> None:
    assert {"stillhouse-mlx", "stillhouse-transformers"} <= set(ENGINES)


@pytest.mark.parametrize("package", ENGINES)
def test_the_first_commands_of_an_engine_end_with_an_answer(package: str, copy: Path) -> None:
    result = run(bash_blocks(ROOT / "plugins" / package / "README.md")[0], copy)
    last = result.stdout.splitlines()[-1]
    assert len(last.split()) >= 3, result.stdout[-1000:]  # words of the model
    # Nothing but what a run says on a terminal, and no warning of the libraries.
    assert "Warning" not in result.stderr, result.stderr[-4000:]


def test_second_readme_command_is_one_line() -> None:
    assert len(bash_blocks()[1].strip().splitlines()) == 1
