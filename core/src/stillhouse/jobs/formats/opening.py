"""The formats that rows are read from and written to, and how one is found for a name.

A plugin adds one through the hooks `open_reader` and `open_writer`; it is asked first.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from stillhouse._wording import install_command
from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.columns import ResultColumns
from stillhouse.jobs.formats.compression import compression_of
from stillhouse.jobs.formats.kinds import is_data
from stillhouse.jobs.formats.reading import Reading
from stillhouse.jobs.formats.targets import followed
from stillhouse.jobs.formats.writing import BATCH
from stillhouse.protocols import HookCalls, RowReader, RowWriter

if TYPE_CHECKING:
    import pyarrow as pa

    from stillhouse.jobs.formats.arrow_files import ArrowReader
    from stillhouse.jobs.formats.content import Content
    from stillhouse.jobs.formats.files import FileReader
    from stillhouse.jobs.formats.kinds import Kind
    from stillhouse.jobs.formats.parquet import ParquetReader

    TypedReader = ParquetReader | ArrowReader

__all__ = ["format_of", "open_file", "open_output", "open_reader", "open_writer", "output_path"]

# The formats of outputs, by the suffixes of their files, and those with a separator between cells.
_FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
_SEPARATED = {"csv": ",", "tsv": "\t"}

_SEPARATORS = tuple(separator for separator in (os.sep, os.altsep) if separator)


def open_reader(source: str, hooks: HookCalls | None = None) -> RowReader:
    """A reader for a source: a plugin's, or one of our own for a file.

    Args:
        source: a path, `-` for standard input, or what a plugin reads.
        hooks: the installed plugins.

    Raises:
        ConfigurationError: it cannot be read, or its format is not known.
    """
    reader = hooks.open_reader(source) if hooks is not None else None
    return open_file(source) if reader is None else reader


def open_file(path: str, reading: Reading | None = None, name: str | None = None) -> FileReader | TypedReader:
    """A reader for a file, by its name and its content.

    Args:
        path: the path; `-` is standard input.
        reading: how it is read, as far as it is said.
        name: what it is called in messages, where that is not its path.

    Raises:
        ConfigurationError: it cannot be read, or is in no format that is known.
    """
    from stillhouse.jobs.formats.content import Content
    from stillhouse.jobs.formats.kinds import kind_of

    reading = reading or Reading()
    if path != "-" and not is_data(path) and not Path(path).is_file():
        raise _unknown(name or path)
    content = Content(path, reading.encoding, name)
    try:
        kind = kind_of(content)
        if kind is None:
            raise _unknown(content.name)
        return _READERS[kind](content, reading)
    except BaseException:
        content.close()
        raise


def _unknown(source: str) -> ConfigurationError:
    formats = "give a .jsonl, .json, .csv, .tsv, .parquet or .arrow file, or one of these as .gz or .zst"
    return ConfigurationError(
        f"unknown file format: {source}", hint=_remedy(source, f"{formats}, or - for JSONL")
    )


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
            f"unknown file format: {target}",
            hint=_remedy(
                target,
                "give a .jsonl, .csv or .tsv file, also with .gz or .zst, a .parquet file, - for JSONL, or "
                "the format with --format",
            ),
        )
    if name == "parquet":
        if compression_of(target) is not None:
            raise ConfigurationError(
                f"{target}: a Parquet file is compressed within, and not once more",
                hint=f"give a name that ends in .parquet, such as {Path(target).stem}",
            )
        from stillhouse.jobs.formats.parquet import ParquetWriter

        return ParquetWriter(target, schema, columns)
    if name in _SEPARATED:
        from stillhouse.jobs.formats.separated import SeparatedWriter

        return SeparatedWriter(target, _SEPARATED[name], columns)
    from stillhouse.jobs.formats.writers import JsonlWriter

    return JsonlWriter(target)


def format_of(target: str) -> str | None:
    """Return the format that the name of an output says, compressed or not; `None` if it says none."""
    name = Path(target)
    if compression_of(target) is not None:
        name = name.with_suffix("")
    return _FORMATS.get(".jsonl" if target == "-" else name.suffix.lower())


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
    from stillhouse.jobs.formats.content import Content

    return _READERS["jsonl" if format == BATCH else cast("Kind", format)](Content(target), Reading())


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
    return f"{formats}; plugins may add others" if package is None else install_command(package)


def _open_jsonl(content: Content, _: Reading) -> FileReader:
    from stillhouse.jobs.formats.jsonl import JsonlReader

    return JsonlReader(content)


def _open_json(content: Content, _: Reading) -> FileReader:
    from stillhouse.jobs.formats.json_array import JsonArrayReader

    return JsonArrayReader(content)


def _open_delimited(content: Content, reading: Reading, usual: str = ",") -> FileReader:
    from stillhouse.jobs.formats.delimited import CsvReader

    return CsvReader(content, reading.delimiter, usual)


def _open_parquet(content: Content, _: Reading) -> TypedReader:
    from stillhouse.jobs.formats.parquet import ParquetReader

    return ParquetReader(content)


def _open_arrow(content: Content, _: Reading) -> TypedReader:
    from stillhouse.jobs.formats.arrow_files import ArrowReader

    if content.compression:
        raise ConfigurationError(
            f"{content.name} is compressed", hint="decompress it, or write it as Parquet"
        )
    content.close()
    return ArrowReader([content.path], content.name)


_READERS: dict[Kind, Callable[[Content, Reading], FileReader | TypedReader]] = {
    "jsonl": _open_jsonl,
    "json": _open_json,
    "csv": _open_delimited,
    "tsv": partial(_open_delimited, usual="\t"),
    "parquet": _open_parquet,
    "arrow": _open_arrow,
}
