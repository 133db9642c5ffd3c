"""Reading the rows of a dataset, a few at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse import ConfigurationError
from stillhouse.jobs.formats import Row, rows_of
from stillhouse_datasets.address import Address

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["DatasetReader", "open_dataset"]

BATCH_BYTES = 4 << 20
BATCH_ROWS = 1000


class DatasetReader:
    """The rows of one split. The line of a row is its number, from 1.

    Args:
        address: how it was named.
        dataset: the split, a `Dataset` or, streamed, an `IterableDataset`.
        digest: what `digest` returns.
        places: the folders on this machine that the dataset was named by; none for one of the Hub.

    Attributes:
        schema: the types of the columns, with the features of the dataset; `None` if it does not
            say them, as some do that are streamed.
    """

    def __init__(self, address: Address, dataset: Any, digest: str, places: Sequence[Path] = ()) -> None:
        self._address = address
        self.places = places
        self._rows = dataset.with_format("arrow")
        self._digest = digest
        self._total = _total(dataset)
        self._batch_rows = _batch_rows(dataset)
        self._read = 0
        self.schema: pa.Schema | None = None if dataset.features is None else dataset.features.arrow_schema

    @property
    def num_rows(self) -> int | None:
        """How many rows there are; `None` where the dataset does not say."""
        return self._total

    @property
    def share_read(self) -> float | None:
        """How much was read, from 0 to 1; `None` where the dataset does not say how many rows it has."""
        if self._total is None:
            return None
        return self._read / self._total if self._total else 1.0

    def __iter__(self) -> Iterator[Row]:
        self._read = 0
        tables = iter(self._rows.iter(batch_size=self._batch_rows))
        while True:
            try:
                table = next(tables, None)
            except Exception as error:  # a download that ends, a file that does not fit its features
                raise _unusable(self._address, error) from None
            if table is None:
                return
            for row in rows_of(table, self._read):
                yield row
                self._read += 1

    def digest(self) -> str:
        """What names this content: a fingerprint, or the revision and the split."""
        return self._digest

    def close(self) -> None:
        """Nothing is held open."""


def open_dataset(address: Address) -> DatasetReader:
    """The reader of a dataset.

    Raises:
        ConfigurationError: there is no such dataset or split, it cannot be reached or read, or it
            has several splits and none is chosen.
    """
    folder = address.path
    if (folder / "dataset_dict.json").is_file():
        try:
            splits = list(json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"])
        except Exception as error:  # whatever is in it
            raise _unusable(address, error) from None
        return _open_saved(address, folder, folder / _chosen(address, splits))
    if (folder / "state.json").is_file():
        if "split" in address.options:
            raise ConfigurationError(f"{address.place} has no splits", hint="leave out split")
        return _open_saved(address, folder, folder)
    if address.place.startswith((".", "/", "~")) and not folder.exists():
        raise ConfigurationError(
            f"there is no folder {folder}", hint="check the path, or give a name on the Hub"
        )
    try:
        return _open_built(address, str(folder) if folder.exists() else address.place)
    except ConfigurationError:
        raise
    except Exception as error:  # the library and those that it uses have many
        raise _unusable(address, error) from None


def _open_saved(address: Address, place: Path, folder: Path) -> DatasetReader:
    """A dataset that `save_to_disk` wrote into a folder of a place; it is mapped into memory, not read."""
    import datasets

    surplus = sorted(set(address.options) - {"split"})
    if surplus:
        raise ConfigurationError(
            f"{address.place} was saved to disk, and has no {' and no '.join(surplus)}",
            hint=f"leave out {' and '.join(surplus)}",
        )
    try:
        dataset = datasets.load_from_disk(str(folder))
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        return DatasetReader(address, dataset, state["_fingerprint"], [place])
    except Exception as error:
        raise _unusable(address, error) from None


def _open_built(address: Address, place: str) -> DatasetReader:
    """A dataset of the Hub, or of a folder with data files."""
    import datasets

    options = address.options
    builder = datasets.load_dataset_builder(place, options.get("config"), revision=options.get("revision"))
    split = options.get("split") or _chosen(
        address, [str(name) for name in builder.info.splits or builder.config.data_files or ()]
    )
    if options.get("streaming") == "true":
        dataset = builder.as_streaming_dataset(split=split)
    else:
        builder.download_and_prepare()
        dataset = builder.as_dataset(split=split)
    # The folder that the library keeps it in has a name of its own for every revision and, of local
    # files, every state of them.
    version = Path(builder.cache_dir).parts[-4:]
    places = [Path(place)] if Path(place).exists() else []
    return DatasetReader(address, dataset, "/".join([*version, split]), places)


def _chosen(address: Address, splits: list[str]) -> str:
    """The split that was asked for, or the only one."""
    split = address.options.get("split")
    if split is None and len(splits) == 1:
        return splits[0]
    if split in splits:
        return split
    problem = "no split is chosen" if split is None else f"there is no split {split}"
    raise ConfigurationError(
        f"{address.text}: {problem}; it has {', '.join(splits) or 'none'}",
        hint=f"give datasets:{address.place}?split={splits[0] if splits else 'NAME'}",
    )


def _total(dataset: Any) -> int | None:
    """How many rows there are, as far as the dataset says."""
    rows: int | None = getattr(dataset, "num_rows", None)
    if rows is None and dataset.info.splits and dataset.split in dataset.info.splits:
        rows = dataset.info.splits[dataset.split].num_examples
    return rows


def _batch_rows(dataset: Any) -> int:
    rows: int = getattr(dataset, "num_rows", 0)
    if not rows:  # what is streamed does not say how large its rows are
        return BATCH_ROWS // 10
    return max(1, min(BATCH_ROWS, BATCH_BYTES * rows // max(1, int(dataset.data.nbytes))))


def _unusable(address: Address, error: Exception) -> ConfigurationError:
    reason = str(error).strip() or type(error).__name__
    if isinstance(error, ConnectionError):
        hint = "check the network, or give a folder; of a private dataset, also HF_TOKEN"
    else:
        hint = "check the name, the split and the config; of a private dataset, also HF_TOKEN"
    return ConfigurationError(f"{address.text} cannot be read: {reason}", hint=hint)
