"""Completion in a shell, as the shell asks for it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .terminals import PATIENCE

ROOT = Path(__file__).parents[2]

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


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., str]:
    """Run a script in a shell that reads no file of a user, and return what it prints."""
    command = tmp_path / "stillhouse"
    command.write_text(f"#!{sys.executable}\n{MAIN}\n")
    command.chmod(0o755)

    def shell(*arguments: str) -> str:
        if shutil.which(arguments[0]) is None:
            pytest.skip(f"there is no {arguments[0]}")
        done = subprocess.run(
            arguments, capture_output=True, text=True, timeout=PATIENCE, cwd=tmp_path,
            env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "TERM": "xterm",
                 "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return shell


def documented(name: str) -> str:
    """Return the line that the documentation gives for a shell."""
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    line = re.search(rf"^\| {name}[^|]*\|[^|]*\| `(.*)` \|$", page, re.M)
    assert line is not None
    return line[1].replace("\\|", "|")


def test_bash_takes_the_script_and_completes(shell: Callable[..., str]) -> None:
    script = f"""
{documented("bash")}
COMP_WORDS=(stillhouse generate --llm ech); COMP_CWORD=3
_stillhouse_completion stillhouse
echo "${{COMPREPLY[@]}}"
"""
    assert shell("bash", "--norc", "-c", script).strip() == "echo"


# An interactive shell on a terminal of its own. A key prints what stands on its line, after the completion.
ZSH = """
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z 'told() {{ zle -I; print -r -- "line<$BUFFER>"; BUFFER= }}; zle -N told; bindkey "^X^T" told'
zpty -w z {line}
zpty -w z 'echo rea""dy'
zpty -r -m z out '*ready*'
for text in "stillhouse generate --llm ech" "stillhouse gen" "stillhouse generate --llm echo --set failure_r"; do
  zpty -w -n z "$text"$'\t\\C-x\\C-t'
  zpty -r -m z out '*line<still*>*'
  print -r -- "$out"
done
"""


def test_zsh_takes_the_script_and_completes(shell: Callable[..., str]) -> None:
    script = ZSH.format(line=shlex.quote(documented("zsh").replace("compinit &&", "compinit -u -D &&")))
    lines = re.findall("line<(stillhouse.*?) *>", shell("zsh", "-f", "-c", script))
    assert lines == [
        "stillhouse generate --llm echo",
        "stillhouse generate",
        "stillhouse generate --llm echo --set failure_rate=",
    ]


def test_fish_takes_the_script_and_completes(shell: Callable[..., str]) -> None:
    script = f"""
{documented("fish")}
complete -C "stillhouse generate --llm ech"
complete -C "stillhouse gen"
complete -C "stillhouse generate --llm echo --set failure_r"
"""
    lines = [line.partition("\t")[0] for line in shell("fish", "--no-config", "-c", script).splitlines()]
    assert lines == ["echo", "generate", "failure_rate="]
