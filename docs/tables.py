"""Tables in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["code", "table"]

CODE = re.compile(r"(`[^`]*`)")


def code(text: str) -> str:
    return f"`{text}`"


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """The lines of a table, and an empty one."""
    return [_line(header), _line("---" for _ in header), *map(_line, rows), ""]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    """On one line, with what would end the cell or begin a tag escaped; in code it does neither."""
    parts = CODE.split(" ".join(text.split()))
    parts[::2] = [part.replace("|", "\\|").replace("<", "&lt;") for part in parts[::2]]
    return "".join(parts)
