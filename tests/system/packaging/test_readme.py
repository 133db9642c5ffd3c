"""The first command of the README, on a copy of the checkout, as on a fresh machine."""

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


def bash_blocks() -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)


def test_the_first_command_answers_every_question_in_order(tmp_path: Path) -> None:
    copy = tmp_path / "stillhouse"
    shutil.copytree(
        ROOT,
        copy,
        ignore=shutil.ignore_patterns(
            ".git", ".tox", ".venv", ".site", "__pycache__", "*.egg-info", "answers.jsonl", ".*_cache"
        ),
    )
    # A shell in which no virtual environment is active, as on a fresh machine; not that of tox either.
    path = [
        entry
        for entry in os.environ["PATH"].split(os.pathsep)
        if not (Path(entry).parent / "pyvenv.cfg").is_file()
    ]
    environment = {**os.environ, "PATH": os.pathsep.join(path)}
    environment.pop("VIRTUAL_ENV", None)
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", bash_blocks()[0]],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
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


def test_second_readme_command_is_one_line() -> None:
    assert len(bash_blocks()[1].strip().splitlines()) == 1
