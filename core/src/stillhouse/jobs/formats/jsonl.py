"""`JsonlReader`: the rows of a JSONL file, an object on each line; a broken line is one row."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any, BinaryIO

from stillhouse.errors import GenerationError
from stillhouse.jobs.formats.files import FileReader
from stillhouse.jobs.formats.json_values import MAX_ROW_BYTES, JsonValues, kind_of_value
from stillhouse.jobs.formats.marks import Mark
from stillhouse.jobs.formats.rows import Row, digest_of, invalid_row

__all__ = ["JsonlReader"]

SHOWN_CHARACTERS = 20
"""How much of a broken line is shown: what stands before the character that is wrong."""


class JsonlReader(FileReader):
    """The rows of a JSONL file, or of standard input for `-`. Blank lines are skipped."""

    def __iter__(self) -> Iterator[Row]:
        return self._rows(self.content.text(), Mark(), 0)

    def marks(self) -> Generator[Mark, None, int]:
        """Yield a mark for each row; only the first one if the text cannot be read from a place within."""
        content = self.content
        can_jump = content.can_jump
        stream = content.text()
        index, offset = 0, content.text_start
        for number, line in enumerate(_lines(stream), 1):
            if line.strip():
                if can_jump or index == 0:
                    yield Mark(index, number, offset)
                index += 1
            offset = stream.tell() if len(line) == MAX_ROW_BYTES else offset + len(line)
        return index

    def rows_from(self, mark: Mark, first: int) -> Iterator[Row]:
        """Yield the rows from the index `first` on; see `stillhouse.jobs.formats.marks`."""
        content = self.content
        if not content.can_jump:
            return self._rows(content.text(), Mark(), first)
        return self._rows(content.text_at(mark.offset), mark, first)

    def _rows(self, stream: BinaryIO, mark: Mark, first: int) -> Iterator[Row]:
        """Yield the rows of a text that begins at a mark, without those before the index `first`."""
        values, met = JsonValues(), self.content.met
        index = mark.row
        for number, line in enumerate(_lines(stream), mark.line):
            if not line.strip():
                continue
            if index < first:
                index += 1
                continue
            if line.startswith(BOM_UTF8) and number > 1:
                line = line[len(BOM_UTF8) :]
                values.odd = "a byte-order mark, as of files that were joined, is left out"
            columns, error = _object(values.decode, line, number, values)
            if values.odd:
                if not met:
                    met.append(f"line {number}: {values.odd}")
                values.odd = ""
            yield Row(index, number, columns, error, digest_of(line.rstrip(b"\r\n")))
            index += 1


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines; of one that is too long, its beginning."""
    for line in iter(partial(stream.readline, MAX_ROW_BYTES), b""):
        yield line
        if len(line) == MAX_ROW_BYTES:
            while len(line) == MAX_ROW_BYTES and not line.endswith(b"\n"):
                line = stream.readline(MAX_ROW_BYTES)


def _object(
    decode: Callable[[str], Any], line: bytes, number: int, values: JsonValues
) -> tuple[dict[str, Any], GenerationError | None]:
    """Return the columns on a line, or none and the error that says why."""
    try:
        columns = decode(line.decode())
    except json.JSONDecodeError as error:
        if len(line) == MAX_ROW_BYTES:
            return {}, invalid_row(number, f"longer than {MAX_ROW_BYTES >> 20} MiB, which no model takes")
        problem = f"not valid JSON: {error.msg.removesuffix(' at')} at character {error.pos + 1}"
        if error.pos:
            problem += f", after {error.doc[max(0, error.pos - SHOWN_CHARACTERS) : error.pos]!r}"
        if error.msg == "Extra data" and error.doc[error.pos] in "{[":
            problem = "several JSON values on one line: jq -c . FILE writes each on its own"
        return {}, invalid_row(number, problem)
    except UnicodeDecodeError as error:
        return {}, invalid_row(number, f"not valid JSON: byte {error.start + 1} is not UTF-8")
    except ValueError:
        return _object(values.decode_all, line, number, values)
    except RecursionError:
        return {}, invalid_row(number, "not usable JSON: nested too deeply")
    if not isinstance(columns, dict):
        return {}, invalid_row(number, f"not a JSON object but {kind_of_value(columns)}")
    return columns, None
