"""What is done to the pages after they are rendered.

The copy button of a transcript copies its commands alone. Short code, such as an option, stays on one line.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

__all__ = ["finish", "finished"]

BLOCK = re.compile(
    r'<div class="(?P<classes>[^"]*\bhighlight\b[^"]*)">(?P<inside><pre>.*?</pre></div>)', re.S
)
PROMPT = '<span class="gp">'
PROMPTS = re.compile(rf"{PROMPT}.*?</span>", re.S)
OUTPUT = re.compile(r'<span class="go">.*?</span>\n?', re.S)
TAG = re.compile(r"<[^>]+>")
SHORT = re.compile(r"<code>(?=[^<>\n]{1,26}</code>)")


def finish(folder: Path) -> None:
    """Finish each page of a built site."""
    for page in folder.rglob("*.html"):
        page.write_text(finished(page.read_text(encoding="utf-8")), encoding="utf-8")


def finished(page: str) -> str:
    """The page, each transcript with the attribute `data-copy`, which the copy button prefers to the text."""
    return SHORT.sub('<code class="short">', BLOCK.sub(_with_commands, page))


def _with_commands(block: re.Match[str]) -> str:
    if PROMPT not in block["inside"]:
        return block[0]
    typed = html.unescape(TAG.sub("", PROMPTS.sub("", OUTPUT.sub("", block["inside"]))))
    commands = "\n".join(line for line in typed.splitlines() if line.strip())
    return f'<div class="{block["classes"]}" data-copy="{html.escape(commands)}">{block["inside"]}'
