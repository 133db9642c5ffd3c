"""Texts, tables and lists of settings for the width of a terminal. In a pipe they are as they are."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from stillhouse.cli.output import console_of, has_styles, print_line, print_styled
from stillhouse.cli.standard import output
from stillhouse.cli.streams import shown

__all__ = ["print_entries", "print_table", "print_text"]

# A table with a column of descriptions is readable from this width on; below it, each entry is a paragraph.
MIN_TABLE_WIDTH = 110

# Longer lines are hard to read.
MAX_TEXT_WIDTH = 100

# On a terminal that is narrower, lines are as for this one, and the terminal breaks them.
MIN_WIDTH = 19

# A column of sentences has room for a few words.
MIN_SENTENCE_WIDTH = 20

GAP = "  "
INDENT = "    "

_STATUSES = {
    "loaded": "green",
    "built-in": "green",
    "failed": "red",
    "conflict": "red",
    "incompatible": "red",
    "disabled": "yellow",
    "settled": "yellow",
    "not": "dim",
}


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


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: aligned with spaces in a pipe, and in the width of a terminal.

    A terminal that is too narrow for the words of the columns gets the cells of a row below each other.
    """
    lines = [list(header), *map(list, rows)]
    width = _width()
    if has_styles(output()):
        lines = [[shown(cell) for cell in line] for line in lines]
    if width is None:
        _print_aligned(lines)
        return
    widths = _least_widths(lines)
    if sum(widths) + len(GAP) * (len(widths) - 1) > width + 1:
        _print_stacked(lines, width)
        return
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    # Names are copied, so they are never cut off.
    table.add_column(lines[0][0], no_wrap=True, min_width=widths[0])
    for title, least in zip(lines[0][1:], widths[1:], strict=True):
        table.add_column(title, overflow="fold", min_width=least)
    for line in lines[1:]:
        table.add_row(*(_cell(title, cell) for title, cell in zip(lines[0], line, strict=True)))
    stream = output()
    stream.flush()
    console_of(stream, width + 1).print(table)


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
        _print_named(name, details, width)
        if description:
            print_line(_wrapped(description, min(width, MAX_TEXT_WIDTH), INDENT, INDENT))


def _least_widths(lines: Sequence[Sequence[str]]) -> list[int]:
    """Return the least width of each column in which no word is broken, nor the first cell of a row."""
    from rich.cells import cell_len

    columns = list(zip(*lines, strict=True))
    widths = [max(map(cell_len, columns[0]))]
    for column in columns[1:]:
        widths.append(max(cell_len(word) for cell in column for word in cell.split() or [""]))
    if len(columns) > 1:
        longest = max(map(cell_len, columns[-1]))
        widths[-1] = max(min(longest, MIN_SENTENCE_WIDTH), min(widths[-1], MIN_SENTENCE_WIDTH))
    return widths


def _print_aligned(lines: Sequence[Sequence[str]]) -> None:
    """Print lines with each column as wide as its longest cell; `FORCE_COLOR` gives them styles."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for place, line in enumerate(lines):
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        if not has_styles(output()):
            print_line(GAP.join(cells).rstrip())
            continue
        _print_parts(
            (cell, "bold" if place == 0 else _style(title, cell))
            for title, cell in zip(lines[0], cells, strict=True)
        )


def _print_parts(parts: Iterable[tuple[str, str]]) -> None:
    """Print texts on a line, each in a style."""
    from rich.text import Text

    text = Text(GAP).join(Text(part, style) for part, style in parts)
    text.rstrip()
    stream = output()
    stream.flush()
    console_of(stream).print(text, highlight=False, soft_wrap=True)


def _print_stacked(lines: Sequence[Sequence[str]], width: int) -> None:
    """Print each row as its first two cells, and the others below them."""
    for place, line in enumerate(lines):
        name, *others = line
        _print_named(
            name, others[0] if others else "", width, _style(lines[0][1], others[0]) if place else "bold"
        )
        for cell in others[1:]:
            if cell.strip():
                text = _wrapped(cell, width, INDENT, INDENT)
                if place:
                    print_line(text)
                else:
                    print_styled(text, "bold", "")


def _print_named(name: str, details: str, width: int, style: str = "") -> None:
    """Print a name, which is seen at once, with what belongs to it."""
    first, *rest = _wrapped(f"{name}{GAP}{details}", width, "      ").split("\n")
    # What follows the name is not wrapped into it.
    if style:
        _print_parts([(first[: len(name)], "bold"), (first[len(name) :].strip(), style)])
    else:
        print_styled(first[: len(name)], "bold", first[len(name) :])
    for line in rest:
        print_line(line)


def _cell(title: str, text: str) -> Any:
    """Return a cell of a table for a terminal."""
    from rich.text import Text

    return Text(text, _style(title, text))


def _style(title: str, text: str) -> str:
    return _STATUSES.get(text.split(" ", 1)[0].strip(), "") if title == "STATUS" else ""


def _wrapped(text: str, width: int, indent: str = "", first: str = "") -> str:
    return textwrap.fill(
        text, width, initial_indent=first, subsequent_indent=indent, break_long_words=False,
        break_on_hyphens=False, replace_whitespace=False,
    )  # fmt: skip


def _width() -> int | None:
    """Return how wide lines may be; `None` where nobody sees where they break."""
    stream = output()
    if not stream.isatty():
        return None
    columns = 0
    if not os.environ.get("COLUMNS", "").isdecimal():
        # The descriptor 1 may be another one's: only the command has the terminal.
        try:
            columns = os.get_terminal_size(stream.fileno()).columns
        except (OSError, ValueError):
            columns = 0
    return max(MIN_WIDTH, (columns or shutil.get_terminal_size().columns) - 1)
