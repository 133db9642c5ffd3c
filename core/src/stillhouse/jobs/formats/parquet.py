"""`ParquetReader` and `ParquetWriter`: read a few rows at a time, write when their types are known."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from stillhouse._wording import install_command
from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.arrow import RowSpool, rows_of
from stillhouse.jobs.formats.content import Content
from stillhouse.jobs.formats.marks import Mark
from stillhouse.jobs.formats.partial import PartialFile
from stillhouse.jobs.formats.rows import Row
from stillhouse.jobs.formats.targets import cannot_be_written
from stillhouse.protocols import OutputColumns

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ParquetReader", "ParquetWriter", "pyarrow_parquet"]

BATCH_BYTES = 4 << 20
BATCH_ROWS = 4096
# Otherwise what the allocator of pyarrow keeps for later grows with the file.
RELEASE_BATCHES = 8
ROW_GROUP_BYTES = 32 << 20


class ParquetReader:
    """The rows of a Parquet file. The line of a row is its number, from 1.

    Args:
        source: its path, or its content.

    Attributes:
        schema: the types of the columns.
        places: the file that is read.
        found: what is unusual about the file, each a clause for a message.
        met: what is unusual in its rows, likewise: nothing.

    Raises:
        ConfigurationError: pyarrow is not installed, or the file is not a readable Parquet file.
    """

    def __init__(self, source: str | Content) -> None:
        pq = pyarrow_parquet()
        self._content = Content(source) if isinstance(source, str) else source
        self._path = self._content.name
        self.places = [Path(self._content.path)]
        self.found, self.met = self._content.found, self._content.met
        self._stream = _seekable(self._content)
        try:
            # Otherwise whole column chunks would be read ahead, however large they are.
            self._file = pq.ParquetFile(self._stream, pre_buffer=False, buffer_size=1 << 20)
            self.schema: pa.Schema = self._file.schema_arrow
        except Exception as error:  # pyarrow raises many types for broken files
            self._stream.close()
            self._content.close()
            raise _broken(self._path, error) from None
        names = self.schema.names
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            self.close()
            raise ConfigurationError(
                f"{self._path} has several columns of the name {min(twice)}", hint="give them different names"
            )
        self._read = 0

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return int(self._file.metadata.num_rows)

    @property
    def share_read(self) -> float | None:
        """How much of the file was read, from 0 to 1."""
        total = self.num_rows
        return self._read / total if total else 1.0

    def __iter__(self) -> Iterator[Row]:
        self._read = 0
        try:
            for batch in self._batches(0):
                for row in rows_of(batch, self._read):
                    yield row
                    self._read += 1
        except (OSError, ValueError) as error:
            raise _broken(self._path, error) from None

    def marks(self) -> Generator[Mark, None, int]:
        """Yield a mark for each row group."""
        metadata = self._file.metadata
        index = 0
        for number in range(metadata.num_row_groups):
            yield Mark(index, index + 1, number)
            index += metadata.row_group(number).num_rows
        return index

    def rows_from(self, mark: Mark, first: int) -> Iterator[Row]:
        """Yield the rows from the index `first` on; see `stillhouse.jobs.formats.marks`."""
        start = mark.row
        try:
            for batch in self._batches(mark.offset):
                end = start + batch.num_rows
                if end > first:
                    skipped = max(0, first - start)
                    yield from rows_of(batch.slice(skipped), start + skipped)
                start = end
        except (OSError, ValueError) as error:
            raise _broken(self._path, error) from None

    def _batches(self, group: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows from a row group on, a few at a time."""
        groups = list(range(group, self._file.metadata.num_row_groups))
        # Each thread keeps memory of its own, and making rows of a batch takes longer than decoding it.
        batches = self._file.iter_batches(batch_size=self._batch_rows(), row_groups=groups, use_threads=False)
        for number, batch in enumerate(batches, start=1):
            yield batch
            if number % RELEASE_BATCHES == 0:
                _release_memory()

    def _batch_rows(self) -> int:
        metadata = self._file.metadata
        size: int = sum(
            metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)
        )
        rows: int = metadata.num_rows
        return max(1, min(BATCH_ROWS, BATCH_BYTES * rows // max(size, 1)))

    def digest(self) -> str:
        """Return a digest of the bytes of the file, decompressed."""
        if self._content.compression:
            return self._content.digest()
        with Path(self._content.path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._stream.close()
        self._content.close()


class ParquetWriter:
    """Writes rows as a Parquet file.

    A column has the type that the input's schema gives it, else one that fits all of its values;
    see `RowSpool`. The results are `generations` and `finish_reasons` (lists of texts),
    `statistics` (a struct of lists), `model_name` and `error` (a struct of `kind` and `message`).

    Args:
        target: the path.
        schema: the types of the input's columns; `None` if it has none.
        columns: the columns that the output adds.

    Raises:
        ConfigurationError: pyarrow is not installed, or it cannot be written.
    """

    def __init__(
        self, target: str, schema: pa.Schema | None = None, columns: OutputColumns | None = None
    ) -> None:
        self._parquet = pyarrow_parquet()
        self._file = PartialFile(Path(target))
        try:
            self._spool = RowSpool(self._file.folder, schema, columns)
        except OSError as error:
            self._file.abandon()
            raise cannot_be_written(Path(target), error) from None

    def write(self, record: dict[str, Any]) -> None:
        self._spool.add(record)

    def finish(self) -> None:
        schema = self._spool.finish()
        with self._parquet.ParquetWriter(self._file.stream, schema) as writer:
            for group in _grouped(self._spool.batches(schema)):
                writer.write_table(group, row_group_size=len(group))
        self._spool.close()
        self._file.finish()

    def abandon(self) -> None:
        self._spool.close()
        self._file.abandon()


def _seekable(content: Content) -> BinaryIO:
    """Return the bytes of a file in which the reader may jump; what is compressed is unpacked into a file."""
    if content.compression is None:
        return content.data()
    file = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        shutil.copyfileobj(content.data(), file, 1 << 20)
    except BaseException:
        file.close()
        raise
    return cast("BinaryIO", file)


def _grouped(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Concatenate tables until each is large enough for a row group."""
    import pyarrow as pa

    group: list[pa.Table] = []
    for table in tables:
        group.append(table)
        if sum(item.nbytes for item in group) >= ROW_GROUP_BYTES:
            yield pa.concat_tables(group)
            group.clear()
    if group:
        yield pa.concat_tables(group)


def pyarrow_parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ConfigurationError(
            "Parquet files need pyarrow, which is not installed", hint=install_command("stillhouse[parquet]")
        ) from None
    return pyarrow.parquet


def _release_memory() -> None:
    """Give back the memory that pyarrow's allocator keeps and does not use."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()


def _broken(path: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"{path} cannot be read as a Parquet file: {error}", hint="check that it is one, and whole"
    )
