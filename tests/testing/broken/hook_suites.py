"""What the authors of those hooks would write: a class with `make` for each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import broken_heavy_hooks
import broken_slow_hooks
from broken_hooks import BREAKS
from good_hooks import Good, Reads, Writes

from stillhouse.testing import HookConformance, ReaderConformance, WriterConformance


class Suite:
    plugin_class: type[Any]

    def make(self) -> object:
        return self.plugin_class()


class Reading(Suite, ReaderConformance):
    def make_source(self, folder: Path, rows: Sequence[Mapping[str, Any]]) -> str:
        path = folder / "rows.txt"
        path.write_text("".join(f"{row['prompt']}\n" for row in rows), encoding="utf-8")
        return f"lines:{path}"

    def make_bad_row(self, folder: Path) -> str:
        path = folder / "rows.txt"
        path.write_bytes(b"one\n\xff\ntwo\n")
        return f"lines:{path}"


class Writing(Suite, WriterConformance):
    def make_target(self, folder: Path) -> str:
        return f"array:{folder / 'out.json'}"

    def read(self, target: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(Path(target.removeprefix("array:")).read_text())
        return rows


KINDS: dict[str, tuple[type[Any], ...]] = {
    "G": (Suite, HookConformance),
    "I": (Reading,),
    "O": (Writing,),
}
CLASSES: dict[type[Any], str] = {Good: "G", Reads: "I", Writes: "O", **BREAKS}
CLASSES |= {broken_heavy_hooks.Heavy: "G", broken_slow_hooks.Slow: "G"}

for _class, _rule in CLASSES.items():
    _members = {"plugin_class": _class, "settings": getattr(_class, "settings", {})}
    globals()[f"Test{_class.__name__}"] = type(f"Test{_class.__name__}", KINDS[_rule[0]], _members)
