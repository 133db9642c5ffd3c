"""Completion in a shell, as the shell asks for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .terminals import PATIENCE

MAIN = "import sys; sys.argv[0] = 'stillhouse'; from stillhouse.cli import main; main()"


def completed(words: str, **environment: str) -> list[str]:
    """What the command answers to bash for the last of these words."""
    done = subprocess.run(
        [sys.executable, "-c", MAIN], capture_output=True, text=True, timeout=PATIENCE,
        env={**os.environ, "_STILLHOUSE_COMPLETE": "bash_complete", "COMP_WORDS": words,
             "COMP_CWORD": str(len(words.split(" ")) - 1), **environment},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("stillhouse gen", ["generate"]),
        ("stillhouse generate --llm ech", ["echo"]),
        ("stillhouse show ech", ["echo"]),
        ("stillhouse generate --llm echo --set fail", ["failure_kind=", "failure_rate="]),
        ("stillhouse generate --llm echo:x --param max", ["max_new_tokens="]),
        ("stillhouse generate --set fail", []),
        ("stillhouse generate --llm none --set fail", []),
        ("stillhouse generate --llm echo --set latency=", []),
        ("stillhouse generate --quie", ["--quiet"]),
    ],
)
def test_what_is_completed(words: str, expected: list[str]) -> None:
    assert completed(words) == expected


def test_a_name_is_completed_without_importing_a_plugin(tmp_path: Path) -> None:
    info = tmp_path / "trap-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: trap\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[stillhouse.llms]\ntrap = trap_plugin:TrapLLM\n")
    (tmp_path / "trap_plugin.py").write_text("print('imported'); raise SystemExit(3)\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    assert completed("stillhouse generate --llm tra", PYTHONPATH=path) == ["trap"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_takes_the_script_and_completes(tmp_path: Path) -> None:
    command = tmp_path / "stillhouse"
    command.write_text(f"#!{sys.executable}\n{MAIN}\n")
    command.chmod(0o755)
    script = """
eval "$(_STILLHOUSE_COMPLETE=bash_source stillhouse)"
COMP_WORDS=(stillhouse generate --llm ech); COMP_CWORD=3
_stillhouse_completion stillhouse
echo "${COMPREPLY[@]}"
"""
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, timeout=PATIENCE,
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("echo", "")
