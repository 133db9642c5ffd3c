"""`JsonArrayReader`: the objects of a JSON array, one after the other.

The array is not loaded: the decoder of Python's library is given a part of the text that holds the next
element, and a longer one if it does not. So a value is the same as on a line of JSONL, and the memory holds
one element.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, cast

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.content import Content
from stillhouse.jobs.formats.files import FileReader
from stillhouse.jobs.formats.json_values import MAX_ROW_BYTES, JsonValues, kind_of_value
from stillhouse.jobs.formats.rows import Row, digest_of, invalid_row

__all__ = ["JsonArrayReader"]

CHUNK_BYTES = 1 << 18

_SPACE = re.compile(r"[ \t\r\n]*")

# How far before its end a text may seem wrong that is only cut off: within a word or an escape.
_CUT = 16


@dataclass(frozen=True)
class ElementRow(Row):
    """A row of an array, whose lines say little: it may have one for all."""

    @property
    def place(self) -> str:
        return f"element {self.index + 1} (line {self.line})"


class JsonArrayReader(FileReader):
    """The rows of a file that is one JSON array of objects.

    Raises:
        ConfigurationError: while it is read: it is not valid JSON from some line on. An element that is no
            object fails alone.
    """

    def __init__(self, source: str | Content) -> None:
        super().__init__(source)
        self._is_checked = False

    def digest(self) -> str:
        """As that of other files; the first time, the array is read to its end, and so checked."""
        digest = super().digest()
        if not self._is_checked:
            for _ in _Array(self.content.text(), self.content.name):
                pass
            self._is_checked = True
        return digest

    def __iter__(self) -> Iterator[Row]:
        met = self.content.met
        for index, (columns, text, line, odd) in enumerate(_Array(self.content.text(), self.content.name)):
            if odd and not met:
                met.append(f"element {index + 1} (line {line}): {odd}")
            problem = ""
            try:
                content = text.encode()
            except UnicodeEncodeError:
                content, problem = text.encode("utf-8", "surrogateescape"), "not valid UTF-8"
            if not isinstance(columns, dict):
                problem = f"not a JSON object but {kind_of_value(columns)}"
            if not problem:
                yield ElementRow(index, line, columns, digest=digest_of(content))
                continue
            error = invalid_row(f"element {index + 1} (line {line})", problem)
            yield ElementRow(index, line, error=error, digest=digest_of(content))


class _Element(NamedTuple):
    value: Any
    text: str
    line: int
    odd: str


class _Array:
    """The elements of an array, each with its text, the line that it begins at, and what is odd about it."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream, self._name = stream, name
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text, self._position, self._line = "", 0, 1
        self._has_ended = False

    def __iter__(self) -> Iterator[_Element]:
        values = JsonValues()
        self._expect("[")
        if self._next() == "]":
            self._advance(self._position + 1)
        else:
            while True:
                yield self._element(values)
                mark = self._expect(",]")
                if mark == "]":
                    break
        if self._next():
            raise self._wrong("there is more after the array's end")

    def _element(self, values: JsonValues) -> _Element:
        """Decode the next element, and go to its end."""
        self._next()
        while True:
            text, start = self._text, self._position
            values.odd = ""
            try:
                value, end = values.raw_decode(text, start)
            except json.JSONDecodeError as error:
                is_cut = error.msg.startswith("Unterminated string") or error.pos >= len(text) - _CUT
                if is_cut and self._read_more():
                    continue
                raise self._wrong(error.msg.removesuffix(" at"), error.pos) from None
            except RecursionError:
                raise self._wrong("nested too deeply") from None
            if end >= len(text) - 2 and not isinstance(value, (dict, list, str)) and self._read_more():
                continue  # a number may go on
            if end - start > MAX_ROW_BYTES:
                raise self._too_long()
            line = self._line
            self._advance(end)
            return _Element(value, text[start:end], line, values.odd)

    def _expect(self, marks: str) -> str:
        """Go past one of these characters, and return it."""
        found = self._next()
        if not found or found not in marks:
            wanted = " or ".join(repr(mark) for mark in marks)
            raise self._wrong(f"{wanted} is expected" + ("" if found else ", and the file ends"))
        self._advance(self._position + 1)
        return found

    def _next(self) -> str:
        """Go past white space, and return the next character; nothing at the end."""
        while True:
            match = _SPACE.match(self._text, self._position)
            assert match is not None
            self._advance(match.end())
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._read_more():
                return ""

    def _advance(self, position: int) -> None:
        self._line += self._text.count("\n", self._position, position)
        self._position = position

    def _read_more(self) -> bool:
        """Read as much again as is left of the text, at least a part; whether there was more."""
        if self._has_ended:
            return False
        rest = self._text[self._position :]
        if len(rest) > MAX_ROW_BYTES:
            raise self._too_long()
        parts = [rest]
        size = 0
        while size <= len(rest) and not self._has_ended:
            data = cast("io.BufferedReader", self._stream).read1(CHUNK_BYTES)
            self._has_ended = not data
            parts.append(self._decoder.decode(data, self._has_ended))
            size += len(data)
        self._text, self._position = "".join(parts), 0
        return True

    def _too_long(self) -> ConfigurationError:
        return self._wrong(f"an element is longer than {MAX_ROW_BYTES >> 20} MiB, or does not end")

    def _wrong(self, problem: str, position: int | None = None) -> ConfigurationError:
        line = self._line
        if position is not None:
            line += self._text.count("\n", self._position, position)
        return ConfigurationError(
            f"{self._name}, line {line}: not a valid JSON array: {problem}",
            hint="correct the file; an object on each line is JSONL, whose rows fail alone",
        )
