"""The formats that rows are read from and written to. A plugin adds others through hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillhouse._lazy import lazy_names

if TYPE_CHECKING:
    from stillhouse.jobs.formats.arrow import RowSpool as RowSpool
    from stillhouse.jobs.formats.arrow import readable as readable
    from stillhouse.jobs.formats.arrow import rows_of as rows_of
    from stillhouse.jobs.formats.opening import open_reader as open_reader
    from stillhouse.jobs.formats.opening import open_writer as open_writer
    from stillhouse.jobs.formats.opening import output_path as output_path
    from stillhouse.jobs.formats.partial import PartialFile as PartialFile
    from stillhouse.jobs.formats.partial import PartialFolder as PartialFolder
    from stillhouse.jobs.formats.rows import RowFormatter as RowFormatter
    from stillhouse.jobs.formats.rows import digest_of as digest_of
    from stillhouse.jobs.formats.rows import invalid_row as invalid_row
    from stillhouse.jobs.formats.targets import cannot_be_written as cannot_be_written
    from stillhouse.protocols import Row as Row
    from stillhouse.protocols import RowReader as RowReader
    from stillhouse.protocols import RowWriter as RowWriter

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "arrow": ["RowSpool", "readable", "rows_of"],
        "opening": ["open_reader", "open_writer", "output_path"],
        "partial": ["PartialFile", "PartialFolder"],
        "stillhouse.protocols": ["Row", "RowReader", "RowWriter"],
        "rows": ["RowFormatter", "digest_of", "invalid_row"],
        "targets": ["cannot_be_written"],
    },
)
