"""Writing rows as a dataset, in a folder that is not there before it is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse import ConfigurationError
from stillhouse.jobs.arrow import RowSpool

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

__all__ = ["DatasetWriter"]


class DatasetWriter:
    """Writes rows as a dataset that `datasets.load_from_disk` reads.

    Columns of an input that is a dataset keep their features; those of the results and of other
    inputs get the types of their values, see `stillhouse.jobs.arrow.RowSpool`.

    Args:
        folder: where to.
        schema: the types of the input's columns; `None` if it has none.

    Raises:
        ConfigurationError: it cannot be written.
    """

    def __init__(self, folder: Path, schema: pa.Schema | None) -> None:
        self._folder = folder
        self._partial = folder.with_name(f"{folder.name}.partial")
        self._metadata = None if schema is None else schema.metadata
        try:
            if folder.exists() and not folder.is_dir():
                raise NotADirectoryError(0, "it is a file")
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial.mkdir()
            self._spool = RowSpool(self._partial, schema and _known(schema))
        except OSError as error:
            raise ConfigurationError(
                f"{folder} cannot be written: {error.strerror}", hint="check the folder and its permissions"
            ) from None

    def write(self, record: dict[str, Any]) -> None:
        self._spool.add(record)

    def finish(self) -> None:
        import datasets
        import pyarrow as pa

        schema = self._spool.finish()
        # The library takes over the features of those columns that have the same type still.
        features = datasets.Features.from_arrow_schema(schema.with_metadata(self._metadata))
        rows, saved = self._partial / "rows.arrow", self._partial / "saved"
        with rows.open("wb") as sink, pa.ipc.new_stream(sink, features.arrow_schema) as stream:
            for table in self._spool.batches(schema):
                stream.write_table(table.cast(features.arrow_schema))
        self._spool.close()
        with _quiet():
            datasets.Dataset.from_file(str(rows)).save_to_disk(str(saved))
        for path in saved.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        self._replace(saved)

    def _replace(self, saved: Path) -> None:
        """Give the dataset its name; an earlier one is there until then."""
        earlier = self._partial / "earlier"
        if self._folder.exists():
            self._folder.rename(earlier)
        saved.rename(self._folder)
        shutil.rmtree(self._partial)

    def abandon(self) -> None:
        self._spool.close()
        shutil.rmtree(self._partial, ignore_errors=True)


def _known(schema: pa.Schema) -> pa.Schema:
    """The columns whose types the library has; the others get those of their values."""
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
    """No progress bars of the library among those of the run."""
    import datasets

    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
