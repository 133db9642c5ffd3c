"""Texts and lists of settings for the width of a terminal. In a pipe they are as they are."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby

from stillhouse.cli.output import print_line, print_styled, print_table
from stillhouse.cli.standard import output

__all__ = ["print_entries", "print_text"]

# A table with a column of descriptions is readable from this width on; below it, each entry is a paragraph.
MIN_TABLE_WIDTH = 110

# Longer lines are hard to read.
MAX_TEXT_WIDTH = 100

# On a terminal that is narrower, lines are as for this one, and the terminal breaks them.
MIN_WIDTH = 30


def print_text(text: str) -> None:
    """Print paragraphs, wrapped on a terminal. What is indented, or a list, stays as it is."""
    width = _width()
    if width is None:
        print_line(text)
        return
    for is_blank, lines in groupby(text.split("\n"), lambda line: not line.strip()):
        paragraph = list(lines)
        if is_blank or any(line.startswith((" ", "- ", "* ", "|", "```")) for line in paragraph):
            print_line("\n".join(paragraph))
        else:
            print_line(_wrapped(" ".join(paragraph), min(width, MAX_TEXT_WIDTH)))


def print_entries(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print settings: a table, or on a narrow terminal the name, type and default of each above its text.

    Args:
        header: four titles, for the name, the type, the default and the description.
        rows: the settings.
    """
    width = _width()
    if width is None or width >= MIN_TABLE_WIDTH:
        print_table(header, rows)
        return
    for name, kind, default, description in rows:
        value = {"required": "required", "-": ""}.get(default, f"default {default}")
        details = "; ".join(filter(None, (kind, value)))
        first, *rest = _wrapped(f"{name}  {details}", width, "      ").split("\n")
        # The name is seen at once; what follows it is not wrapped into it.
        print_styled(first[: len(name)], "bold", first[len(name) :])
        for line in rest:
            print_line(line)
        if description:
            print_line(_wrapped(f"    {description}", min(width, MAX_TEXT_WIDTH), "    "))


def _wrapped(text: str, width: int, indent: str = "") -> str:
    return textwrap.fill(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False,
        replace_whitespace=False,
    )  # fmt: skip


def _width() -> int | None:
    """Return how wide lines may be; `None` where nobody sees where they break."""
    if not output().isatty():
        return None
    return max(MIN_WIDTH, shutil.get_terminal_size().columns - 1)
