"""The formats that rows are read from and written to, and how one is found for a name.

A plugin adds one through the hooks `open_reader` and `open_writer`; it is asked first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.partial import PartialFile, PartialFolder, cannot_be_written
from stillhouse.jobs.formats.rows import Row

if TYPE_CHECKING:
    import pyarrow as pa

    from stillhouse.registry.hooks import Hooks

__all__ = [
    "PartialFile",
    "PartialFolder",
    "RowReader",
    "RowWriter",
    "cannot_be_written",
    "open_reader",
    "open_writer",
    "output_path",
]


class RowReader(Protocol):
    """The rows of one source.

    Iterating yields every row, in order and from the first on each time; a row that cannot be
    read is yielded with its error.

    A reader may have an attribute `places`, a sequence of paths: the files and folders that it reads.
    A run refuses an output that would replace one of them. Without it, they are found by the name of
    the source.
    """

    @property
    def schema(self) -> pa.Schema | None:
        """The types of the columns, which an output with types keeps; `None` where there are none."""

    @property
    def share_read(self) -> float | None:
        """How much of the source was read, from 0 to 1; `None` where its size is not known."""

    def __iter__(self) -> Iterator[Row]: ...

    def digest(self) -> str:
        """A digest of the whole content: another one if any row is another."""

    def close(self) -> None:
        """Release the source."""


class RowWriter(Protocol):
    """Takes rows in their order. Nobody sees the output before `finish`."""

    def write(self, record: dict[str, Any]) -> None:
        """Take the next row in."""

    def finish(self) -> None:
        """Every row was written: give the output its name, in the place of an earlier one."""

    def abandon(self) -> None:
        """Remove what was written; an earlier output stays as it is."""


def open_reader(source: str, hooks: Hooks | None = None) -> RowReader:
    """A reader for a source: a plugin's, or one of our own by the file's suffix.

    Raises:
        ConfigurationError: it cannot be read, or its format is not known.
    """
    reader: RowReader | None = hooks.open_reader(source) if hooks is not None else None
    if reader is not None:
        return reader
    opening = _readers().get(".jsonl" if source == "-" else Path(source).suffix.lower())
    if opening is None:
        raise ConfigurationError(
            f"{source} is in a format that is not known",
            hint=_remedy(source, "give a .jsonl, .csv or .parquet file, or - for JSONL"),
        )
    return opening(source)


def open_writer(target: str, hooks: Hooks | None = None, schema: pa.Schema | None = None) -> RowWriter:
    """A writer for a target: a plugin's, or one of our own by the file's suffix.

    Args:
        target: a path, or what a plugin writes.
        hooks: the installed plugins.
        schema: the types of the input's columns, where they are known.

    Raises:
        ConfigurationError: it cannot be written, or its format is not known.
    """
    writer: RowWriter | None = hooks.open_writer(target, schema) if hooks is not None else None
    if writer is not None:
        return writer
    opening = _writers().get(".jsonl" if target == "-" else Path(target).suffix.lower())
    if opening is None:
        raise ConfigurationError(
            f"{target} is in a format that is not known",
            hint=_remedy(target, "give a .jsonl or .parquet file, or - for JSONL"),
        )
    return opening(target, schema)


def output_path(target: str, hooks: Hooks | None = None) -> Path:
    """Where an output is once it is whole; the state of its run is kept beside it."""
    path: Path | None = hooks.output_path(target) if hooks is not None else None
    return Path(target if path is None else path)


def _remedy(place: str, formats: str) -> str:
    from stillhouse.registry.known import SOURCES

    name, colon, _ = place.partition(":")
    package = SOURCES.get(name) if colon else None
    return f"{formats}; plugins may add others" if package is None else f"pip install {package}"


def _readers() -> dict[str, Callable[[str], RowReader]]:
    from stillhouse.jobs.formats.parquet import ParquetReader
    from stillhouse.jobs.formats.readers import CsvReader, JsonlReader

    return {".jsonl": JsonlReader, ".csv": CsvReader, ".parquet": ParquetReader}


def _writers() -> dict[str, Callable[[str, pa.Schema | None], RowWriter]]:
    from stillhouse.jobs.formats.parquet import ParquetWriter
    from stillhouse.jobs.formats.writers import JsonlWriter

    return {".jsonl": lambda target, _: JsonlWriter(target), ".parquet": ParquetWriter}
