"""Reading and writing datasets keeps every rule of the conformance kit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import stillhouse_datasets
from stillhouse.testing import HookConformance, ReaderConformance, WriterConformance


class TestPlugin(HookConformance):
    def make(self) -> object:
        return stillhouse_datasets


class TestReader(ReaderConformance):
    def make(self) -> object:
        return stillhouse_datasets

    def make_source(self, folder: Path, rows: Sequence[Mapping[str, Any]]) -> str:
        import datasets

        datasets.Dataset.from_list([*rows]).save_to_disk(folder / "saved")
        return f"datasets:{folder / 'saved'}"


class TestWriter(WriterConformance):
    def make(self) -> object:
        return stillhouse_datasets

    def make_target(self, folder: Path) -> str:
        return f"datasets:{folder / 'saved'}"

    def read(self, target: str) -> list[dict[str, Any]]:
        import datasets

        return [*datasets.load_from_disk(str(self.path_of(target)))]
