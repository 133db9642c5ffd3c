"""The cache beside workers: it answers in the process of the run, before a worker is asked."""

import json
from pathlib import Path
from typing import Any

import stillhouse
from stillhouse import Registry, hookimpl


class Origins:
    """Records of each answer whether the cache gave it."""

    def __init__(self) -> None:
        self.found: list[bool] = []

    @hookimpl
    def after_generate(self, from_hook: bool) -> None:
        self.found.append(from_hook)


def test_workers_fill_the_cache_and_are_not_asked_again(registry: Registry, tmp_path: Path) -> None:
    origins = Origins()
    registry.register_hooks("origins", origins)
    rows = [{"prompt": f"question {number}"} for number in range(40)]

    def written(number: int, source: Any) -> list[Any]:
        output = tmp_path / f"{number}.jsonl"
        stillhouse.run(
            source,
            llm=registry.create("echo"),
            output=output,
            executor="processes",
            workers=2,
            show_bar=False,
        )
        return [json.loads(line)["generations"] for line in output.read_text().splitlines()]

    first = written(1, rows)
    assert origins.found == [False] * 40
    origins.found.clear()
    # Some rows are new: only these are generated.
    second = written(2, [*rows, {"prompt": "a new one"}, {"prompt": "another"}])
    assert second == [*first, ["a new one"], ["another"]]
    assert sorted(origins.found) == [False] * 2 + [True] * 40
