"""The formats that rows are read from and written to, and how one is found for a name.

A plugin adds one through the hooks `open_reader` and `open_writer`; it is asked first.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.columns import ResultColumns
from stillhouse.jobs.formats.targets import followed
from stillhouse.jobs.formats.writing import BATCH
from stillhouse.protocols import HookCalls, RowReader, RowWriter

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["format_of", "open_output", "open_reader", "open_writer", "output_path"]

# The formats of outputs, by the suffixes of their files, and those with a separator between cells.
_FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
_SEPARATED = {"csv": ",", "tsv": "\t"}

_SEPARATORS = tuple(separator for separator in (os.sep, os.altsep) if separator)


def open_reader(source: str, hooks: HookCalls | None = None) -> RowReader:
    """A reader for a source: a plugin's, or one of our own by the file's suffix.

    Raises:
        ConfigurationError: it cannot be read, or its format is not known.
    """
    reader = hooks.open_reader(source) if hooks is not None else None
    if reader is not None:
        return reader
    opening = _readers().get(".jsonl" if source == "-" else Path(source).suffix.lower())
    if opening is None:
        raise ConfigurationError(
            f"{source} is in a format that is not known",
            hint=_remedy(source, "give a .jsonl, .csv or .parquet file, or - for JSONL"),
        )
    return opening(source)


def open_writer(
    target: str,
    hooks: HookCalls | None = None,
    schema: pa.Schema | None = None,
    columns: ResultColumns | None = None,
    format: str | None = None,
) -> RowWriter:
    """A writer for a target: a plugin's, or one of our own by the file's suffix.

    Args:
        target: a path, or what a plugin writes.
        hooks: the installed plugins.
        schema: the types of the input's columns, where they are known.
        columns: the columns that the output adds; those of an output without options if not said.
        format: one of `FORMATS`, whatever the suffix is.

    Raises:
        ConfigurationError: it cannot be written, or its format is not known.
    """
    if columns is None:
        columns = ResultColumns()
    if format is None:
        writer = hooks.open_writer(target, schema, columns) if hooks is not None else None
        if writer is not None:
            return writer
    elif hooks is not None and hooks.output_path(target) is not None:
        raise ConfigurationError(
            f"{target} is what a plugin writes, in a format of its own", hint="leave out --format"
        )
    name = format_of(target) if format is None else format
    if name is None:
        raise ConfigurationError(
            f"{target} is in a format that is not known",
            hint=_remedy(
                target, "give a .jsonl, .csv, .tsv or .parquet file, - for JSONL, or the format with --format"
            ),
        )
    if name == "parquet":
        from stillhouse.jobs.formats.parquet import ParquetWriter

        return ParquetWriter(target, schema, columns)
    if name in _SEPARATED:
        from stillhouse.jobs.formats.separated import SeparatedWriter

        return SeparatedWriter(target, _SEPARATED[name], columns)
    from stillhouse.jobs.formats.writers import JsonlWriter

    return JsonlWriter(target)


def format_of(target: str) -> str | None:
    """Return the format that the name of an output says; `None` if it says none."""
    return _FORMATS.get(".jsonl" if target == "-" else Path(target).suffix.lower())


def open_output(target: str, hooks: HookCalls | None = None, format: str | None = None) -> RowReader:
    """A reader for an output that a run wrote.

    Args:
        target: the output.
        hooks: the installed plugins.
        format: the format that it was written in; `None` for the one that its name says.

    Raises:
        ConfigurationError: it cannot be read.
    """
    if format is None:
        return open_reader(target, hooks)
    opening = _readers().get(".jsonl" if format == BATCH else f".{format}")
    assert opening is not None
    return opening(target)


def output_path(target: str, hooks: HookCalls | None = None) -> Path:
    """Where an output is once it is whole; the state of its run is kept beside it. A link is followed.

    Raises:
        ConfigurationError: it is the name of a folder, and no plugin writes one.
    """
    path = hooks.output_path(target) if hooks is not None else None
    if path is None and target.endswith(_SEPARATORS):
        raise ConfigurationError(f"{target} is the name of a folder", hint="give the name of a file in it")
    return followed(Path(target if path is None else path))


def _remedy(place: str, formats: str) -> str:
    from stillhouse.registry.known import SOURCES

    name, colon, _ = place.partition(":")
    package = SOURCES.get(name) if colon else None
    return f"{formats}; plugins may add others" if package is None else f"pip install {package}"


def _readers() -> dict[str, Callable[[str], RowReader]]:
    from stillhouse.jobs.formats.parquet import ParquetReader
    from stillhouse.jobs.formats.readers import CsvReader, JsonlReader

    return {".jsonl": JsonlReader, ".csv": CsvReader, ".parquet": ParquetReader}
