"""`DatasetWriter`: rows as a dataset, in a folder that appears only when it is complete."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse import ConfigurationError
from stillhouse.jobs.formats import PartialFolder, RowSpool, cannot_be_written

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

    from stillhouse import OutputColumns

__all__ = ["DatasetWriter"]


class DatasetWriter:
    """Writes rows as a dataset that `datasets.load_from_disk` reads.

    Columns of an input that is a dataset keep their features; those of the results and of other
    inputs get the types of their values, see `stillhouse.jobs.formats.RowSpool`.

    Args:
        folder: the target.
        schema: the types of the input's columns; `None` if it has none.
        columns: the columns that the output adds.

    Raises:
        ConfigurationError: it cannot be written.
    """

    def __init__(self, folder: Path, schema: pa.Schema | None, columns: OutputColumns | None = None) -> None:
        self._folder = folder
        self._metadata = None if schema is None else schema.metadata
        _restore_earlier(folder)
        _check_replaceable(folder)
        self._partial = PartialFolder(folder)
        try:
            self._spool = RowSpool(self._partial.path, schema and _known(schema), columns)
        except OSError as error:
            self._partial.remove()
            raise cannot_be_written(folder, error) from None

    def write(self, record: dict[str, Any]) -> None:
        self._spool.add(record)

    def finish(self) -> None:
        import datasets
        import pyarrow as pa

        schema = self._spool.finish()
        # The library takes over the features of the columns whose type is unchanged.
        features = datasets.Features.from_arrow_schema(schema.with_metadata(self._metadata))
        rows, saved = self._partial.path / "rows.arrow", self._partial.path / "saved"
        with rows.open("wb") as sink, pa.ipc.new_stream(sink, features.arrow_schema) as stream:
            for table in self._spool.batches(schema):
                stream.write_table(table.cast(features.arrow_schema))
        self._spool.close()
        with _quiet():
            dataset = datasets.Dataset.from_file(str(rows))
            # Left to itself, the library saves a dataset without rows in no file, and cannot load that.
            dataset.save_to_disk(str(saved), num_shards=None if len(dataset) else 1)
        # Windows neither moves nor removes a file that is mapped into memory.
        del dataset
        gc.collect()
        for path in saved.iterdir():
            with path.open("r+b") as file:  # Windows refuses to sync a file that is open for reading
                os.fsync(file.fileno())
        self._replace(saved)

    def _replace(self, saved: Path) -> None:
        """Move the dataset to its place; an earlier one stays there until then."""
        # A second time: hours may have passed since the first check.
        _check_replaceable(self._folder)
        if self._folder.exists():
            self._folder.rename(_earlier(self._partial.path))
        saved.rename(self._folder)
        self._partial.remove()

    def abandon(self) -> None:
        self._spool.close()
        if PartialFolder.is_present(self._folder):
            self._partial.remove()


def _earlier(partial: Path) -> Path:
    return partial / "earlier"


def _restore_earlier(folder: Path) -> None:
    """Restore the earlier dataset if a process ended between moving it away and moving the new one in."""
    if PartialFolder.is_present(folder) and not os.path.lexists(folder):
        earlier = _earlier(PartialFolder.path_of(folder))
        if earlier.exists():
            earlier.rename(folder)


def _check_replaceable(folder: Path) -> None:
    """Refuse to replace anything but a saved dataset, with no other file in its folder, or an empty folder.

    Raises:
        ConfigurationError: it is something else.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise cannot_be_written(folder, NotADirectoryError(0, "it is a file"))
    surplus = sorted({path.name for path in folder.iterdir()} - _saved_names(folder))
    if surplus:
        raise ConfigurationError(
            f"{folder} cannot be replaced: {surplus[0]} in it is not part of a saved dataset",
            hint="give another output, or move the folder away",
        )


def _saved_names(folder: Path) -> set[str]:
    """Return the names of the files of a saved dataset; an empty set if the folder holds none."""
    state = folder / "state.json"
    try:
        files = json.loads(state.read_text(encoding="utf-8"))["_data_files"]
        names = {state.name, "dataset_info.json", *(file["filename"] for file in files)}
        return names if all((folder / name).is_file() for name in names) else set()
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def _known(schema: pa.Schema) -> pa.Schema:
    """Return the columns whose types the library supports; the others get those of their values."""
    import datasets
    import pyarrow as pa

    def is_known(field: pa.Field) -> bool:
        try:
            features: datasets.Features = datasets.Features.from_arrow_schema(pa.schema([field]))
        except ValueError:
            return False
        return bool(features.arrow_schema.field(0).type == field.type)

    return pa.schema([field for field in schema if is_known(field)])


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the progress bars of the library: the run has its own."""
    import datasets

    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
