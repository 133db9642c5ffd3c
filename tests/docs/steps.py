"""The steps of a page: its files, and its commands with what they shall print."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["DOCS", "commands", "steps"]

DOCS = Path(__file__).parents[2] / "docs"

BLOCK = re.compile(r"(?:^`(?P<path>[^`\n]+)`\n\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S)


def steps(page: Path) -> list[tuple[str, str]]:
    """What the page asks for, in its order: `(path, content)` of a file, or `("$", transcript)`.

    A block of code without a file name before it is an excerpt, and has an empty path.
    """
    return [
        ("$" if block["language"] == "console" else block["path"] or "", block["text"])
        for block in BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]


def commands(transcript: str) -> list[tuple[str, list[str]]]:
    """The commands of a transcript, each with the lines that it shall print."""
    parsed: list[tuple[str, list[str]]] = []
    for line in transcript.splitlines():
        if line.startswith("$ "):
            parsed.append((line[2:], []))
        else:
            parsed[-1][1].append(line)
    return parsed
