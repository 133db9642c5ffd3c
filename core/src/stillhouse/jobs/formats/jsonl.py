"""`JsonlReader`: the rows of a JSONL file, an object on each line; a broken line is one row."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO

from stillhouse.errors import GenerationError
from stillhouse.jobs.formats.files import FileReader
from stillhouse.jobs.formats.json_values import MAX_ROW_BYTES, JsonValues, kind_of_value
from stillhouse.jobs.formats.rows import Row, digest_of, invalid_row

__all__ = ["JsonlReader"]


class JsonlReader(FileReader):
    """The rows of a JSONL file, or of standard input for `-`. Blank lines are skipped."""

    def __iter__(self) -> Iterator[Row]:
        values, met = JsonValues(), self.content.met
        index = 0
        for number, line in enumerate(_lines(self.content.text()), 1):
            if not line.strip():
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
