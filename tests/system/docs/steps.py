"""The code blocks of a page, in its order: files, commands with what they print, and Python.

A block of `console` is a transcript, one of `bash` commands alone; they run in a shell. A block whose
name stands on a line before it, in backquotes, is a file. Any other block of `python` runs in the
page's own process, where what the blocks before it defined is there; a block of `text` right after it
is what it prints. A block that cannot run says why, in a comment before it:

    <!-- not run: it needs an account -->
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DOCS", "ROOT", "Block", "blocks", "commands", "missing"]

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S
)
NAME = re.compile(r"^`([^`\n]+)`\s*\Z", re.M)
REASON = re.compile(r"<!-- not run: ([^>]+?) -->\s*\Z")


@dataclass
class Block:
    """A code block: its line in the page, its language and text, and what was said before it.

    `path` is the name of the file that it is, `reason` why it is not run, and `expected` what the
    block right after it says that it prints.
    """

    line: int
    language: str
    text: str
    path: str = ""
    reason: str = ""
    expected: str | None = None

    @property
    def runs(self) -> bool:
        return self.language in ("bash", "console", "python") and not self.path and not self.reason


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page, what a block prints taken into that block."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    end = 0
    for fence in FENCE.finditer(text):
        between = text[end : fence.start()]
        end = fence.end()
        language = fence["language"]
        if found and found[-1].language == "python" and language == "text" and not between.strip():
            found[-1].expected = fence["text"]
            continue
        name, reason = NAME.search(between), REASON.search(between)
        found.append(
            Block(
                line=text.count("\n", 0, fence.start()) + 1,
                language=language,
                text=re.sub(rf"^{fence['indent']}", "", fence["text"], flags=re.M),
                path=name[1] if name else "",
                reason=reason[1] if reason else "",
            )
        )
    return found


def commands(transcript: str) -> list[tuple[str, list[str]]]:
    r"""The commands of a transcript, each with the lines that it must print.

    A line that ends in `\` continues on the next one.
    """
    parsed: list[tuple[str, list[str]]] = []
    for line in transcript.splitlines():
        if parsed and not parsed[-1][1] and parsed[-1][0].endswith("\\"):
            parsed[-1] = (f"{parsed[-1][0]}\n{line}", [])
        elif line.startswith("$ "):
            parsed.append((line[2:], []))
        else:
            parsed[-1][1].append(line)
    return parsed


def missing(expected: list[str], printed: str) -> str | None:
    """The first expected line that was not printed after those before it.

    `…` stands for any text, and the width of columns is no matter: it depends on what else is there.
    """
    lines = iter(" ".join(line.split()) for line in printed.splitlines())
    for wanted in expected:
        pattern = re.compile(".*".join(map(re.escape, " ".join(wanted.split()).split("…"))))
        if wanted.strip() and not any(pattern.fullmatch(line) for line in lines):
            return wanted
    return None
