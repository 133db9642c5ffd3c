"""`ArrowReader`: the rows of Arrow files, such as those that `datasets` saves to the disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse._wording import install_command
from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.arrow import rows_of
from stillhouse.jobs.formats.content import open_source
from stillhouse.jobs.formats.marks import Mark
from stillhouse.jobs.formats.rows import Row

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ArrowReader", "is_saved_dataset", "open_saved_dataset"]

SLICE_BYTES = 4 << 20


class ArrowReader:
    """The rows of one or several Arrow files of one schema, in the stream or the file format.

    Args:
        paths: the files.
        name: what they are called together in messages.
        places: what is read, where that is more than the files.
        schema: that of a dataset without any file.

    Attributes:
        schema: the types of the columns.
        places: the files and folders that are read.
        found, met: what is unusual about it: nothing.

    Raises:
        ConfigurationError: pyarrow is not installed, or one of them is no readable Arrow file.
    """

    def __init__(
        self, paths: Sequence[str], name: str, places: Sequence[Path] = (), schema: pa.Schema | None = None
    ) -> None:
        _pyarrow(name)
        self._paths, self._name = paths, name
        self.places = [*map(Path, paths), *places]
        self.found: list[str] = []
        self.met: list[str] = []
        self._part, self._share = 0, 0.0
        self.schema = schema
        for path in paths:
            with _Opened(path) as opened:
                if self.schema is None:
                    self.schema = opened.schema
                elif not self.schema.equals(opened.schema):
                    raise _broken(path, "its columns differ from those of the files before it")

    @property
    def share_read(self) -> float | None:
        """How much was read, from 0 to 1."""
        return (self._part + self._share) / len(self._paths) if self._paths else 1.0

    def __iter__(self) -> Iterator[Row]:
        index = 0
        for part, path in enumerate(self._paths):
            self._part = part
            with _Opened(path) as opened:
                for batch, self._share in opened.batches():
                    for row in rows_of(batch, index):
                        yield row
                        index += 1
        self._part, self._share = len(self._paths), 0.0

    def marks(self) -> Generator[Mark, None, int]:
        """Yield a mark for each file."""
        index = 0
        for part, path in enumerate(self._paths):
            yield Mark(index, index + 1, part)
            with _Opened(path) as opened:
                index += sum(batch.num_rows for batch, _ in opened.batches())
        return index

    def rows_from(self, mark: Mark, first: int) -> Iterator[Row]:
        """Yield the rows from the index `first` on; see `stillhouse.jobs.formats.marks`."""
        start = mark.row
        for path in self._paths[mark.offset :]:
            with _Opened(path) as opened:
                for batch, _ in opened.batches():
                    end = start + batch.num_rows
                    if end > first:
                        skipped = max(0, first - start)
                        yield from rows_of(batch.slice(skipped), start + skipped)
                    start = end

    def digest(self) -> str:
        """Return a digest of the bytes of the files."""
        digests = []
        for path in self._paths:
            with Path(path).open("rb") as stream:
                digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def close(self) -> None:
        """Nothing is held open."""


class _Opened:
    """An open Arrow file; a context manager that closes it."""

    def __init__(self, path: str) -> None:
        import pyarrow as pa

        self._path = path
        self._stream = open_source(path)
        try:
            is_file = self._stream.read(6) == b"ARROW1"
            self._size = self._stream.seek(0, 2)
            self._stream.seek(0)
            source = pa.PythonFile(self._stream, "r")
            self._reader: Any = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
            self._count = self._reader.num_record_batches if is_file else None
        except Exception as error:  # pyarrow raises many types for broken files
            self._stream.close()
            raise _broken(path, error) from None

    @property
    def schema(self) -> pa.Schema:
        return self._reader.schema

    def batches(self) -> Iterator[tuple[pa.RecordBatch, float]]:
        """Yield the rows in small parts, each with how much of the file was read before it."""
        for number, batch in enumerate(self._batches()):
            share = number / self._count if self._count else self._stream.tell() / max(1, self._size)
            rows = max(1, batch.num_rows * SLICE_BYTES // max(batch.nbytes, SLICE_BYTES))
            for start in range(0, batch.num_rows, rows):
                yield batch.slice(start, rows), share

    def _batches(self) -> Iterator[pa.RecordBatch]:
        number = 0
        while self._count is None or number < self._count:
            try:
                batch = self._reader.get_batch(number) if self._count else self._reader.read_next_batch()
            except StopIteration:
                return
            except Exception as error:
                raise _broken(self._path, error) from None
            yield batch
            number += 1

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stream.close()


def is_saved_dataset(folder: Path) -> bool:
    """Whether a folder is one that `save_to_disk` of `datasets` wrote, of one split or several."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def open_saved_dataset(folder: Path, name: str) -> ArrowReader:
    """Open what `save_to_disk` of `datasets` wrote, without that library.

    Args:
        folder: the folder of a dataset.
        name: what it is called in messages.

    Raises:
        ConfigurationError: it has several splits, or cannot be read.
    """
    try:
        if (folder / "dataset_dict.json").is_file():
            splits = json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
            if len(splits) != 1:
                raise ConfigurationError(
                    f"{name} has several splits: {', '.join(map(str, splits))}",
                    hint=f"give one of them: {Path(name) / str(splits[0])}" if splits else "",
                )
            folder = _within(folder, splits[0])
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        if state.get("_indices_data_files"):
            raise ConfigurationError(
                f"{name} was saved with a selection of its rows, by an old version of datasets",
                hint=f"give it as datasets:{name}, with stillhouse-datasets",
            )
        paths = [str(_within(folder, item["filename"])) for item in state["_data_files"]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{name} cannot be read as a saved dataset: {error}", hint="check that it is one, and whole"
        ) from None
    if not paths:
        raise ConfigurationError(f"{name} is a saved dataset without data", hint="save it with some rows")
    return ArrowReader(paths, name, places=[folder])


def _within(folder: Path, name: str) -> Path:
    """Return a file of a folder by its name, which the folder itself says."""
    if name in ("", ".", "..") or Path(name).name != name:
        raise ValueError(f"{name!r} is not the name of a file in it")
    return folder / name


def _pyarrow(name: str) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise ConfigurationError(
            f"{name} is in the Arrow format, which needs pyarrow; it is not installed",
            hint=install_command("stillhouse[parquet]"),
        ) from None


def _broken(path: str, problem: object) -> ConfigurationError:
    return ConfigurationError(
        f"{path} cannot be read as an Arrow file: {problem}", hint="check that it is one, and whole"
    )
