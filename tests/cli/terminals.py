"""A command on a terminal of a certain width, as a process of its own, and what the terminal shows in the end."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

PATIENCE = 60.0

_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_pty(
    arguments: Sequence[object], folder: Path, columns: int, keys: str = "", **environment: str
) -> tuple[int, str]:
    """Run the command, and return its status and all that the terminal got.

    Args:
        arguments: those of the command; for a script of Python, with `-c` as the first.
        folder: where it runs.
        columns: how wide the terminal is.
        keys: what is typed.
        environment: variables beside those of this process.
    """
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    import fcntl
    import termios

    command = [str(argument) for argument in arguments]
    if command[:1] != ["-c"]:
        command = [
            "-c",
            "import sys; sys.argv[0] = 'stillhouse'; from stillhouse.cli import main; main()",
            *command,
        ]
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    for name in ("NO_COLOR", "FORCE_COLOR", "CI"):
        inherited.pop(name, None)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, *command], stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder,
        env={**inherited, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **environment},
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, keys.encode())
    got = bytearray()
    with contextlib.suppress(OSError):  # how a terminal ends
        while block := os.read(ours, 1 << 16):
            got += block
    os.close(ours)
    return process.wait(PATIENCE), got.decode()


def plain(text: str) -> str:
    """Return what a terminal got, without colours and movements, each state of a line on a line."""
    lines = _SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line.rstrip() for line in lines)


GOLDEN = Path(__file__).with_name("golden")


def check_golden(name: str, text: str, rewrite: bool) -> None:
    """Compare a text with the one that is checked in; `--rewrite` writes that anew."""
    path = GOLDEN / f"{name}.txt"
    text = "\n".join(line.rstrip() for line in text.splitlines()).strip("\n") + "\n"
    if rewrite:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text
