"""`find_delimiter`: what separates the fields of a delimited text, found in its first rows."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable

from stillhouse.errors import ConfigurationError

__all__ = ["DELIMITERS", "check_delimiter", "delimiter_name", "find_delimiter", "said_delimiter"]

DELIMITERS = (",", ";", "\t", "|")
"""Those that are found."""

_NAMES = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|", "space": " "}
_SAMPLE_ROWS = 100

# How many of the first rows must have as many fields as the header, for an unusual delimiter.
_SHARE = 0.6

_SAID = re.compile(r'\A(?:sep=(.)|"sep=(.)")[\r\n]*\Z', re.IGNORECASE)


def check_delimiter(text: str) -> str:
    """Return the delimiter that a text says: a character, or the name of one.

    Raises:
        ConfigurationError: it says none.
    """
    found = _NAMES.get(text.lower(), text)
    if len(found) != 1 or found in '\r\n\0"' or "\ud800" <= found <= "\udfff":
        raise ConfigurationError(
            f"--delimiter cannot be {text!r}", hint="give one character, or comma, semicolon, tab or pipe"
        )
    return found


def delimiter_name(delimiter: str) -> str:
    """Return how a delimiter is named in a message."""
    return "a tab" if delimiter == "\t" else repr(delimiter)


def said_delimiter(line: str) -> str | None:
    """Return the delimiter that a first line says, as Excel writes it: `sep=;`."""
    found = _SAID.match(line)
    return None if found is None else found[1] or found[2]


def find_delimiter(lines: Iterable[str], usual: str) -> str:
    """Return the delimiter of a text.

    It is the one that the header has, if the rows have as many fields with it as the header. So a semicolon
    within the texts of a single column is none.

    Args:
        lines: its first lines, with their ends; the last one may be cut off.
        usual: the delimiter that the name of the file promises.
    """
    lines = list(lines)
    # Quotes that do not go with a delimiter say that it is another one, unless they go with none.
    for strict in (True, False):
        best, best_share = usual, 0.0
        for delimiter in (usual, *(item for item in DELIMITERS if item != usual)):
            share = _fitting(lines, delimiter, strict)
            if share > best_share and (delimiter == usual or share >= _SHARE):
                best, best_share = delimiter, share
        if best_share:
            return best
    return usual


def _fitting(lines: list[str], delimiter: str, strict: bool) -> float:
    """Return how many of the rows have as many fields as the header; 0 where that has one alone."""
    rows: list[list[str]] = []
    reader = csv.reader(lines, delimiter=delimiter, strict=strict)
    while len(rows) < _SAMPLE_ROWS:
        try:
            row = next(reader, None)
        except csv.Error as error:
            if not strict or "end of data" in str(error):  # too long a field; the sample ends within quotes
                break
            row = [""]  # the quotes do not go with this delimiter
        if row is None:
            break
        if row:
            rows.append(row)
    if not rows:
        return 0.0
    header = rows[0]
    columns = _count(header)
    if columns < 2:
        return 0.0
    others = rows[1:-1] if len(rows) > 2 else rows[1:]
    fitting = sum(len(row) == len(header) or _count(row) == columns for row in others)
    return fitting / len(others) if others else 1.0


def _count(row: list[str]) -> int:
    """Count the fields of a row, without empty ones at its end."""
    count = len(row)
    while count and not row[count - 1]:
        count -= 1
    return count
