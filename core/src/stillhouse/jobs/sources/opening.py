"""`open_input`: the one reader of what INPUT names; `notes_of`: what is told about it."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.arrow_files import is_saved_dataset, open_saved_dataset
from stillhouse.jobs.formats.opening import open_file, open_reader
from stillhouse.jobs.formats.reading import Reading
from stillhouse.jobs.sources.files import Named, files_named, is_glob, local_path
from stillhouse.jobs.sources.names import Names, shown
from stillhouse.jobs.sources.several import SeveralReader, Source
from stillhouse.protocols import HookCalls, RowReader

__all__ = ["check_output", "notes_of", "open_input"]


def open_input(names: Names, hooks: HookCalls | None = None, reading: Reading | None = None) -> RowReader:
    """Open what an input names, as one reader.

    Args:
        names: files, folders, globs and what plugins read; `-` is standard input.
        hooks: the installed plugins.
        reading: how files are read, as far as it is said.

    Raises:
        ConfigurationError: one of them stands for nothing, or cannot be read, or they do not go together.
    """
    if len(names) == 1:
        path = local_path(names[0])
        if names[0] == "-" or not (os.path.isdir(path) or is_glob(path)):  # noqa: PTH112
            reader = hooks.open_reader(path) if hooks is not None else None
            return open_file(path, reading) if reader is None else reader
    # What a plugin reads is asked for last: it may not be there twice.
    taken: dict[str, RowReader] = {}

    def is_taken(name: str) -> bool:
        reader = hooks.open_reader(name) if hooks is not None else None
        if reader is not None:
            reader.close()
            taken[name] = reader
        return reader is not None

    named = files_named(names, is_taken)
    sources = [_source(path, hooks if path in taken else None, reading) for path in named.files]
    is_one = len(sources) == 1 and not named.said
    if is_one and (not named.folders or named.folders == list(map(Path, named.files))):
        return sources[0].open()
    several = SeveralReader(sources, named.said)
    several.places = [*named.folders, *several.places]
    return several


def _source(path: str, hooks: HookCalls | None, reading: Reading | None) -> Source:
    if hooks is not None:
        return Source(shown(path), partial(open_reader, path, hooks), places=[Path(path)])
    if Path(path).is_dir() and is_saved_dataset(Path(path)):
        size = sum(file.stat().st_size for file in Path(path).rglob("*.arrow"))
        return Source(path, partial(open_saved_dataset, Path(path), path), size, [Path(path)])
    try:
        size = Path(path).stat().st_size
    except (OSError, ValueError):  # it is told when it is opened
        size = 0
    return Source(path, partial(open_file, path, reading), size, [Path(path)])


def notes_of(reader: RowReader, name: str) -> list[str]:
    """Return what is told about an input: each once, and complete in itself.

    Args:
        reader: reads it.
        name: what it is called.
    """
    notes = getattr(reader, "notes", None)
    if notes is not None:
        return list(notes)
    found, met = getattr(reader, "found", ()), getattr(reader, "met", ())
    return [f"{name}: {text}" for text in (*(["; ".join(found)] if found else []), *met)]


def check_output(names: Names, output: Path) -> None:
    """Refuse an output that the input would stand for as well, once it is there.

    Raises:
        ConfigurationError: a glob of the input matches it.
    """
    named = Named(globs=[path for path in map(local_path, names) if is_glob(path)])
    pattern = named.would_read(output)
    if pattern is not None:
        raise ConfigurationError(
            f"{output} would be read as well: {pattern} matches it",
            hint="give an output in another folder, or of another name",
        )
