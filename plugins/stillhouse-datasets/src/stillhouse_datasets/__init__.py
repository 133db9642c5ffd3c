"""Stillhouse hooks that read rows from Hugging Face datasets and write them as such.

`datasets` is imported when such a source or target is opened, not before.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stillhouse import hookimpl
from stillhouse_datasets.address import Address, is_address

if TYPE_CHECKING:
    import pyarrow as pa

    from stillhouse import OutputColumns
    from stillhouse.jobs.formats import RowReader, RowWriter

__all__ = ["open_reader", "open_writer", "output_path"]


@hookimpl
def open_reader(source: str) -> RowReader | None:
    """A reader of a source `datasets:NAME_OR_FOLDER`; see the README."""
    if not is_address(source):
        return None
    from stillhouse_datasets.reader import open_dataset

    return open_dataset(Address.parse(source))


@hookimpl
def open_writer(target: str, schema: pa.Schema | None, columns: OutputColumns | None) -> RowWriter | None:
    """A writer of a target `datasets:FOLDER`."""
    if not is_address(target):
        return None
    from stillhouse_datasets.writer import DatasetWriter

    return DatasetWriter(Address.parse(target).folder, schema, columns)


@hookimpl
def output_path(target: str) -> Path | None:
    """The folder of a target `datasets:FOLDER`."""
    return Address.parse(target).folder if is_address(target) else None
