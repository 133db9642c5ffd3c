"""`CsvReader`: the rows of a text whose fields are separated by a character, as CSV and TSV are.

Over 300 lines: where a row begins, where it ends and what is wrong with it come from one pass over one text.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import threading
from collections.abc import Generator, Iterator
from typing import Any, BinaryIO, Literal, TextIO, cast

from stillhouse._wording import number_of
from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.content import HEAD_BYTES, Content
from stillhouse.jobs.formats.delimiters import delimiter_name, find_delimiter, said_delimiter
from stillhouse.jobs.formats.encodings import encoding_of_all
from stillhouse.jobs.formats.files import FileReader
from stillhouse.jobs.formats.json_values import MAX_ROW_BYTES
from stillhouse.jobs.formats.marks import Mark
from stillhouse.jobs.formats.rows import Row, digest_of, invalid_row, is_encodable

__all__ = ["CsvReader"]

# So many rows show whether a header that ends with a delimiter has a column without a name.
_ROWS_SHOWN = 100


class CsvReader(FileReader):
    """The rows of a CSV file whose first line has the names of the columns; Python's `csv` reads it.

    An empty field is no value. Fields beyond the header are left out if they are empty. A row with fewer or
    more fails alone, and so does one that is not valid UTF-8.

    Args:
        source: its path, or its content.
        delimiter: what separates the fields; `None` finds it.
        usual: the one that the name of the file promises.

    Attributes:
        names: the columns; empty if the file is.
        delimiter: what separates the fields.

    Raises:
        ConfigurationError: it cannot be read, its encoding is not known, or a column has no name or that of
            another one. While it is read: a quoted field has no end.
    """

    def __init__(self, source: str | Content, delimiter: str | None = None, usual: str = ",") -> None:
        super().__init__(source)
        self._is_checked = False
        self._quoting: Literal[0, 3] = csv.QUOTE_MINIMAL
        try:
            self._find_encoding()
            self._lines_before = 0
            sample = self._text().read(HEAD_BYTES)
            lines = list(io.StringIO(sample, newline=""))
            said = said_delimiter(lines[0]) if lines else None
            if said is not None:
                self._lines_before = 1
                del lines[0]
            self.delimiter = delimiter or said or find_delimiter(lines, usual)
            if self.delimiter != usual and delimiter is None:
                self.found.append(f"its fields are separated by {delimiter_name(self.delimiter)}")
            self.names = self._header(lines)
        except BaseException:
            self.close()
            raise

    def digest(self) -> str:
        """As that of other files; the first time, it is read to its end: a quote may have none."""
        digest = super().digest()
        self._check()
        return digest

    def __iter__(self) -> Iterator[Row]:
        if self.delimiter == "\t":
            self._check()
        fields = self._fields()
        next(fields, None)  # the header
        return self._rows(fields, 0, 0)

    def marks(self) -> Generator[Mark, None, int]:
        """Yield a mark for each row; only the first one if the text cannot be read from a place within."""
        if self.delimiter == "\t":
            self._check()
        can_jump = self.content.can_jump
        lines = self._lines()
        index, offset = -1, lines.read  # the header
        for line, _ in self._fields(lines):
            if index == 0 or (can_jump and index > 0):
                yield Mark(index, line, offset)
            index, offset = index + 1, lines.read
        return max(index, 0)

    def rows_from(self, mark: Mark, first: int) -> Iterator[Row]:
        """Yield the rows from the index `first` on; see `stillhouse.jobs.formats.marks`."""
        if mark.offset == 0 or not self.content.can_jump:
            return itertools.islice(iter(self), first, None)
        if self.delimiter == "\t":
            self._check()
        lines = _Lines(_as_text(self.content.text_at(mark.offset)), 0)
        return self._rows(self._fields(lines, mark.line - 1), mark.row, first)

    def _rows(self, fields: Iterator[tuple[int, list[str] | str]], start: int, first: int) -> Iterator[Row]:
        """Yield the rows of fields whose first row has the index `start`, without those before `first`."""
        names = self.names
        for index, (line, values) in enumerate(fields, start):
            if index < first:
                continue
            if isinstance(values, str):
                problem = f"not valid CSV: {values}"
                yield Row(index, line, error=invalid_row(line, problem), digest=digest_of(problem.encode()))
            elif values[0].startswith("\ufeff") and [values[0][1:], *values[1:]] == names:
                problem = "a byte-order mark and the header again: files were joined; give each as an INPUT"
                yield Row(index, line, error=invalid_row(line, problem), digest=digest_of(problem.encode()))
            else:
                yield _row(index, line, names, values)

    def _check(self) -> None:
        """Read the text to its end once; find out whether the quotes of a TSV file are text."""
        if self._is_checked:
            return
        may_be_text = self.delimiter == "\t" and len(self.names) > 1
        is_odd, problem = False, None
        try:
            for _, values in self._fields():
                if may_be_text and not is_odd:
                    # A quote may also seem to be closed, by one of a later line.
                    is_odd = isinstance(values, str) or any("\n" in value for value in values)
        except ConfigurationError as error:
            is_odd, problem = True, error
        if is_odd and may_be_text:
            self._quoting = csv.QUOTE_NONE
            fields = self._fields()
            if next(fields)[1] == self.names and all(self._is_unquoted(values) for _, values in fields):
                self.found.append("its fields are not quoted: a quote is a character of the text")
                problem = None
            else:
                self._quoting = csv.QUOTE_MINIMAL
        if problem is not None:
            raise problem
        self._is_checked = True

    def _is_unquoted(self, values: list[str] | str) -> bool:
        """Return whether a line that was split at every tab is a row, and nothing in it shows quoting."""
        return len(values) == len(self.names) and not any(
            value.startswith('"') and '""' in value[1:-1] for value in values
        )

    def _find_encoding(self) -> None:
        content = self.content
        if content.is_encoding_known:
            return
        found = encoding_of_all(content.data(), content.data)
        if found is None:
            raise ConfigurationError(
                f"the encoding of {content.name} is unknown: it is neither UTF-8 nor UTF-16, and does not "
                "look like Western text (cp1252)",
                hint="give it with --encoding, such as cp1251, gb18030 or shift_jis; or save it as UTF-8",
            )
        content.encoding, content.is_encoding_known = found, True
        if found != "utf-8":
            self.found.append(f"its encoding is {found}")

    def _text(self) -> TextIO:
        return _as_text(self.content.text())

    def _lines(self) -> _Lines:
        """Return the lines of the text, without one before the header."""
        return _Lines(self._text(), self._lines_before, self.content.text_start)

    def _header(self, lines: list[str]) -> list[str]:
        fields = self._fields()
        line, values = next(fields, (0, []))
        if isinstance(values, str):
            raise self._wrong(line, f"the header is not valid CSV: {values}")
        names = list(values)
        while names and not names[-1].strip():
            names.pop()
        if names and len(names) < len(values) and self._is_named(fields, lines, len(names)):
            names.append("")
        if values and not names:
            raise self._wrong(line, "the header names no column")
        plain = [name.strip() for name in names]
        twice = (
            next((name for name in plain if name and plain.count(name) > 1), None)
            if (len({*plain}) < len(plain))
            else None
        )
        if twice is not None:
            raise self._wrong(line, f"several columns have the name {twice!r}")
        nameless = [number for number, name in enumerate(plain, 1) if not name]
        if len(nameless) > 1:
            which = " and ".join(map(str, nameless[:2]))
            raise self._wrong(line, f"several columns have no name, such as columns {which}")
        if not is_encodable("".join(names)):
            raise self._wrong(line, f"the header is not valid {self.content.encoding}")
        return names

    def _is_named(self, fields: Iterator[tuple[int, list[str] | str]], lines: list[str], place: int) -> bool:
        """Return whether a header that ends with a delimiter has a column without a name there.

        Stillhouse writes its name as a quoted empty text; of other files, the first rows show it.
        """
        if any(line.rstrip("\r\n").endswith(f'{self.delimiter}""') for line in lines[:1]):
            return True
        rows = [values for _, values in itertools.islice(fields, _ROWS_SHOWN) if isinstance(values, list)]
        return all(len(values) > place for values in rows) and any(values[place] for values in rows)

    def _fields(
        self, lines: _Lines | None = None, before: int | None = None
    ) -> Iterator[tuple[int, list[str] | str]]:
        """Yield the line that each row begins at with its fields or what is wrong, the header's first.

        Args:
            lines: the lines to read; those of the whole text if not said.
            before: how many lines of the text are before them.
        """
        lines = self._lines() if lines is None else lines
        before = self._lines_before if before is None else before
        with _large_fields():
            reader = csv.reader(lines, delimiter=self.delimiter, quoting=self._quoting, strict=True)
            while True:
                start = before + reader.line_num + 1
                lines.size = 0
                try:
                    values = next(reader)
                except StopIteration:
                    return
                except _TooLongError:
                    raise self._wrong(
                        start, f"a row is longer than {MAX_ROW_BYTES >> 20} MiB, or a quote is not closed"
                    ) from None
                except csv.Error as error:
                    # Where it ends is not known, so neither is where the next row begins.
                    if before + reader.line_num > start or "end of data" in str(error):
                        raise self._wrong(start, "a quoted field that begins here is not closed") from None
                    yield start, str(error)
                    continue
                if values:
                    yield start, values

    def _wrong(self, line: int, problem: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self.content.name}, line {line}: {problem}",
            hint="correct the line; a quote within a quoted field is written twice"
            if "quote" in problem
            else "correct the file, or say how to read it with --delimiter and --encoding",
        )


class _TooLongError(Exception):
    pass


class _Lines:
    """The lines of a text, with their ends.

    Attributes:
        size: the characters that were read since this was cleared, which are bounded.
        read: the bytes that the text has up to here, in UTF-8.
    """

    def __init__(self, text: TextIO, skipped: int, start: int = 0) -> None:
        self._text = text
        self.size = 0
        self.read = start
        for _ in range(skipped):
            self.read += _bytes_in(text.readline(MAX_ROW_BYTES))

    def __iter__(self) -> Iterator[str]:
        readline = self._text.readline
        while line := readline(MAX_ROW_BYTES):
            self.size += len(line)
            self.read += _bytes_in(line)
            if self.size >= MAX_ROW_BYTES:
                raise _TooLongError
            yield line


def _bytes_in(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


def _as_text(stream: BinaryIO) -> TextIO:
    # Of the ends of lines, csv must see each as it is: one may be within a field.
    unclosed: Any = _Unclosed(stream)
    return io.TextIOWrapper(unclosed, "utf-8", "surrogateescape", newline="")


class _Unclosed(io.BufferedIOBase):
    """A stream that stays open when a text over it is thrown away."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = cast("io.BufferedReader", stream)

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        return self._stream.read(size)

    def read1(self, size: int = -1, /) -> bytes:
        return self._stream.read1(size)


_limits = threading.Lock()
_limit_users = 0
_limit_before = 0


@contextlib.contextmanager
def _large_fields() -> Iterator[None]:
    """Let `csv` read fields of any size; its limit is one for the whole process."""
    global _limit_users, _limit_before
    with _limits:
        if not _limit_users:
            _limit_before = csv.field_size_limit(MAX_ROW_BYTES)
        _limit_users += 1
    try:
        yield
    finally:
        with _limits:
            _limit_users -= 1
            if not _limit_users:
                csv.field_size_limit(_limit_before)


def _row(index: int, line: int, names: list[str], values: list[str]) -> Row:
    # The separator is one that no such file uses.
    content = "\x1f".join(values)
    try:
        digest = digest_of(content.encode())
    except UnicodeEncodeError:
        digest = digest_of(content.encode("utf-8", "surrogateescape"))
        return Row(index, line, error=invalid_row(line, "not valid UTF-8"), digest=digest)
    if len(values) != len(names):
        if len(values) < len(names) or any(values[len(names) :]):
            problem = f"{number_of(len(values), 'column')} where the header has {len(names):,}"
            return Row(index, line, error=invalid_row(line, problem), digest=digest)
        del values[len(names) :]
    return Row(index, line, {name: value or None for name, value in zip(names, values)}, digest=digest)  # noqa: B905
