"""`SeveralReader`: the rows of several sources, one after the other, as one input."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.jobs.formats.marks import Mark, marks_of, rows_from
from stillhouse.jobs.sources.names import some
from stillhouse.protocols import Row, RowReader

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SeveralReader", "Source"]


@dataclass(frozen=True)
class Source:
    """One of several sources.

    Attributes:
        name: what it is called in messages.
        open: opens it; once more each time it is read.
        size: how much there is to read, in bytes; 0 if that is not known.
        places: the files and folders that it is.
    """

    name: str
    open: Callable[[], RowReader]
    size: int = 0
    places: Sequence[Path] = ()


@dataclass(frozen=True)
class SourceRow(Row):
    """A row of one of several sources.

    Attributes:
        source: the name of that source.
        within: where the row is in it.
    """

    source: str = ""
    within: str = ""

    @property
    def place(self) -> str:
        return f"{self.source}, {self.within}"


class SeveralReader:
    """The rows of several sources, in their order; their indexes run on.

    Each is opened once before the first row is read, and closed again: so what is wrong with one is told
    before anything is generated, and no more than one is open.

    Args:
        sources: the sources.
        said: what is told about them already.

    Attributes:
        schema: the types of the columns, where all sources have the same; else `None`.
        notes: what is told about them.
        places: the files and folders that are read.
        num_rows: how many rows there are, where all sources say it; else `None`.

    Raises:
        ConfigurationError: one cannot be read, or two that declare their columns have different ones.
    """

    def __init__(self, sources: Sequence[Source], said: Sequence[str] = ()) -> None:
        self._sources = sources
        self._open: RowReader | None = None
        self._before, self._size = 0, 0
        self._total = sum(source.size for source in sources)
        self._met: dict[str, str] = {}
        self.places = [place for source in sources for place in source.places]
        self._said = list(said)
        self._look_at_all()

    @property
    def notes(self) -> list[str]:
        return [*self._said, *(f"{name}: {text}" for text, name in self._met.items())]

    @property
    def share_read(self) -> float | None:
        """How much was read, from 0 to 1; `None` where the sizes are not known."""
        share = None if self._open is None else self._open.share_read
        return (self._before + self._size * (share or 0.0)) / self._total if self._total else None

    def __iter__(self) -> Iterator[Row]:
        index = 0
        self._before = self._size = 0
        for source in self._sources:
            self._size = source.size
            for row in self._rows(source):
                yield _sourced(source, row, index)
                index += 1
            self._before += source.size
            self._size = 0

    def marks(self) -> Generator[Mark, None, int]:
        """Yield the marks of every source."""
        base = 0
        for part, source in enumerate(self._sources):
            with closing(source.open()) as reader, closing(marks_of(reader)) as marks:
                base += yield from _of_part(marks, part, base)
        return base

    def rows_from(self, mark: Mark, first: int) -> Iterator[Row]:
        """Yield the rows from the index `first` on; see `stillhouse.jobs.formats.marks`."""
        base = mark.base
        start = Mark(mark.row - base, mark.line, mark.offset)
        for source in self._sources[mark.part :]:
            last = -1
            with closing(source.open()) as reader:
                for row in rows_from(reader, start, max(0, first - base)):
                    last = row.index
                    yield _sourced(source, row, base + last)
            base += _number_of_rows(source) if last < 0 else last + 1
            start = Mark()

    def _rows(self, source: Source) -> Iterator[Row]:
        reader = self._open = source.open()
        try:
            yield from reader
            for text in getattr(reader, "met", ()):
                self._met.setdefault(text, source.name)
        finally:  # another iteration may have begun
            reader.close()
            if self._open is reader:
                self._open = None

    def digest(self) -> str:
        """Return a digest of the contents of all sources, in their order."""
        digest = hashlib.sha256()
        for source in self._sources:
            reader = source.open()
            try:
                digest.update(reader.digest().encode() + b"\n")
            finally:
                reader.close()
        return digest.hexdigest()

    def close(self) -> None:
        """Close the source that is open."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _look_at_all(self) -> None:
        """Open each source: find what is unusual, the types, and whether they go together."""
        found: dict[str, list[str]] = {}
        schemas: list[pa.Schema | None] = []
        counts: list[int | None] = []
        headers: list[tuple[str, list[str]]] = []
        for source in self._sources:
            reader = source.open()
            try:
                if texts := getattr(reader, "found", ()):
                    found.setdefault("; ".join(texts), []).append(source.name)
                schemas.append(reader.schema)
                rows = getattr(reader, "num_rows", None)
                counts.append(rows if isinstance(rows, int) else None)
                names: Any = getattr(reader, "names", None)
                if names:
                    headers.append((source.name, names))
            finally:
                reader.close()
        _check_headers(headers)
        self._said += [f"{some(names)}: {texts}" for texts, names in found.items()]
        self.schema = self._common(schemas)
        self.num_rows = sum(filter(None, counts)) if None not in counts else None

    def _common(self, schemas: list[pa.Schema | None]) -> pa.Schema | None:
        """Return the schema that all sources have; say it where those with types have different columns."""
        typed = [schema for schema in schemas if schema is not None]
        if not typed:
            return None
        if len(typed) == len(schemas) and all(schema.equals(typed[0]) for schema in typed):
            return typed[0]
        every = {*typed[0].names}.intersection(*(schema.names for schema in typed))
        partly = [name for name in dict.fromkeys(name for schema in typed for name in schema.names)
                if name not in every]  # fmt: skip
        if partly:
            self._said.append(
                f"only some files have the columns {some(partly)}: the rows of the others have none"
            )
        return None


def _check_headers(headers: list[tuple[str, list[str]]]) -> None:
    """Refuse files with headers of which one has other columns; their order does not matter."""
    for name, names in headers[1:]:
        first, expected = headers[0]
        if {*names} != {*expected}:
            ours = [column for column in names if column not in expected]
            theirs = [column for column in expected if column not in names]
            differences = [
                *([f"{name} has {some(ours)} besides"] if ours else []),
                *([f"{name} has no {some(theirs)}"] if theirs else []),
            ]
            raise ConfigurationError(
                f"{first} and {name} have different columns: {', and '.join(differences)}",
                hint="give the files the same header, or make a run of each",
            )


def _sourced(source: Source, row: Row, index: int) -> SourceRow:
    """Return a row of a source as one of all, with its index among these."""
    error = None if row.error is None else _of_source(row.error, source.name)
    return SourceRow(
        index, row.line, row.columns, error, row.digest, row.typed, source=source.name, within=row.place
    )


def _of_part(marks: Generator[Mark, None, int], part: int, base: int) -> Generator[Mark, None, int]:
    """Yield the marks of a source as those of one of several."""
    while True:
        try:
            mark = next(marks)
        except StopIteration as end:
            return int(end.value)
        yield Mark(base + mark.row, mark.line, mark.offset, part, base)


def _number_of_rows(source: Source) -> int:
    with closing(source.open()) as reader, closing(marks_of(reader)) as marks:
        while True:
            try:
                next(marks)
            except StopIteration as end:
                return int(end.value)


def _of_source(error: GenerationError, name: str) -> GenerationError:
    return GenerationError(f"{name}, {error.message}", kind=error.kind, attempts=error.attempts)
