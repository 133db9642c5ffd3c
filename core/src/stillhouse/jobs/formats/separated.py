"""`SeparatedWriter`: rows as CSV or TSV, whose columns are known when all rows are."""

from __future__ import annotations

import json
import re
import struct
import tempfile
from pathlib import Path
from typing import Any

from stillhouse.jobs.formats.columns import ResultColumns
from stillhouse.jobs.formats.compression import compression_of
from stillhouse.jobs.formats.narrow import Narrowed
from stillhouse.jobs.formats.partial import PartialFile
from stillhouse.jobs.formats.targets import cannot_be_written
from stillhouse.jobs.formats.writers import to_json
from stillhouse.protocols import OutputColumns

__all__ = ["SeparatedWriter"]

_MARK = "\ufeff"
_QUOTE, _QUOTES = '"', '""'

# What JSON writes without a quote, a separator or the end of a line in it.
_PLAIN = (float, bool)

# Python does not write a number of any length.
_LARGE = 10**100

# What is in front of the cells of a row in the temporary file: how many cells of the input there are, and
# their bytes, and the same of those that the output adds.
_HEAD = struct.Struct("<IQIQ")


class SeparatedWriter:
    r"""Writes rows as text with a separator between the cells, in UTF-8; the first line names the columns.

    A text is written as it is, in quotes where it has a quote, a separator or the end of a line in it; a list
    or an object is JSON text; numbers, `true` and `false` are those of JSON. Null is an empty cell, an empty
    text `""`. Lines end with `\n`. The columns are those of all rows: the input's in the order in which they
    appear, then those that the output adds. A file that is not ASCII begins with a byte order mark, by which
    spreadsheets know UTF-8.

    Rows are kept in a temporary file until the columns are known, so memory is bounded by a row.

    Args:
        target: the path.
        separator: between two cells.
        columns: the columns that the output adds.

    Raises:
        ConfigurationError: it cannot be written.
    """

    def __init__(self, target: str, separator: str, columns: OutputColumns | None = None) -> None:
        self._columns = ResultColumns() if columns is None else columns
        self._separator = separator
        self._special = re.compile(rf'["\r\n{separator}]|\A\ufeff')
        self._narrowed = Narrowed(self._columns.given, self._columns)
        self._given = {name: place for place, name in enumerate(self._columns.given)}
        self._added = {name: place for place, name in enumerate(self._columns.names)}
        self._is_ascii = True
        self._file = PartialFile(Path(target), compression_of(target))
        try:
            self._spool = tempfile.TemporaryFile(dir=self._file.folder)  # noqa: SIM115
        except OSError as error:
            self._file.abandon()
            raise cannot_be_written(Path(target), error) from None

    def write(self, record: dict[str, Any]) -> None:
        given, added = [""] * len(self._given), [""] * len(self._added)
        own = self._columns.names
        for name, value in self._narrowed(record).items():
            places, cells = (self._added, added) if name in own else (self._given, given)
            place = places.get(name)
            if place is None:
                places[name] = len(places)
                cells.append(self._cell(value))
            else:
                cells[place] = self._cell(value)
        one, other = self._line(given), self._line(added)
        self._spool.write(_HEAD.pack(len(given), len(one), len(added), len(other)))
        self._spool.write(one)
        self._spool.write(other)

    def finish(self) -> None:
        for name in self._columns.names:
            self._added.setdefault(name, len(self._added))
        stream = self._file.stream
        header = [self._cell(name) for name in (*self._given, *self._added)]
        line = self._line(header)
        if not self._is_ascii:
            stream.write(_MARK.encode())
        stream.write(line + b"\n")
        self._spool.seek(0)
        while head := self._spool.read(_HEAD.size):
            given, size, added, other = _HEAD.unpack(head)
            stream.write(self._filled(self._spool.read(size), given, len(self._given)))
            if self._given:
                stream.write(self._separator.encode())
            stream.write(self._filled(self._spool.read(other), added, len(self._added)) + b"\n")
        self._spool.close()
        self._file.finish()

    def abandon(self) -> None:
        self._spool.close()
        self._file.abandon()

    def _cell(self, value: Any) -> str:
        if value is None:
            return ""
        if type(value) is str:
            if value and not self._special.search(value):
                return value
            return f'"{value.replace(_QUOTE, _QUOTES)}"'
        if type(value) is int and -_LARGE < value < _LARGE:
            return int.__repr__(value)
        text = to_json(value)
        if text == "null":  # a number that is none
            return ""
        if type(value) in _PLAIN:
            return text
        # A date, say, is a text in JSON.
        return self._cell(json.loads(text) if text[0] == _QUOTE else text)

    def _line(self, cells: list[str]) -> bytes:
        line = self._separator.join(cells)
        if line.isascii():
            return line.encode()
        self._is_ascii = False
        try:
            return line.encode()
        except UnicodeEncodeError:  # the halves of surrogate pairs, which are no text
            return line.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()

    def _filled(self, line: bytes, cells: int, wanted: int) -> bytes:
        """Return a line with an empty cell for each column that was not known when it was written."""
        missing = wanted - (cells or min(wanted, 1))
        return line + self._separator.encode() * missing
