"""The runner and its seam."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import stillhouse
from stillhouse import GenerateOutput, GenerationError
from stillhouse.jobs.formats.jsonl import JsonlReader
from stillhouse.jobs.formats.rows import Row, RowFormatter, invalid_row
from stillhouse.jobs.runs.online import RunStatistics, run
from stillhouse.jobs.store.protocol import Part


class MemoryStore:
    """A store that puts rows in order itself, as a durable one does."""

    problem = None
    members = None

    def __init__(self, ordered: bool) -> None:
        self.ordered = ordered
        self.rows: list[tuple[int, GenerateOutput | GenerationError]] = []
        self.uncommitted = 0

    def parts(self) -> list[Part]:
        return [Part(0, lambda _: True)]

    def put(self, row: Row, result: GenerateOutput | GenerationError, seconds: float | None) -> None:
        assert seconds is not None
        assert seconds >= 0
        self.rows.append((row.index, result))
        self.uncommitted += 1

    def commit(self) -> None:
        self.uncommitted = 0


def rows_of(count: int) -> Iterator[Row]:
    for index in range(count):
        if index % 10 == 3:
            yield Row(index, index + 1, error=invalid_row(index + 1, "broken"))
        else:
            yield Row(index, index + 1, {"prompt": f"row {index}"})


@pytest.mark.parametrize("ordered", [True, False])
def test_every_row_is_put_once_with_its_own_result(ordered: bool) -> None:
    store = MemoryStore(ordered)
    with stillhouse.create("echo", latency=0.0001) as llm:
        statistics = run(llm, rows_of(1000), RowFormatter(), store)
    assert (statistics.done, dict(statistics.failed)) == (900, {"invalid_input": 100})
    assert statistics.output_tokens == 1800
    assert sorted(index for index, _ in store.rows) == list(range(1000))
    assert store.uncommitted == 0
    if ordered:
        assert [index for index, _ in store.rows] == list(range(1000))
    for index, result in store.rows:
        if isinstance(result, GenerationError):
            assert index % 10 == 3
        else:
            assert result["generations"] == [f"row {index}"]


def test_rows_are_released_once_they_are_stored() -> None:
    class CountingStore(MemoryStore):
        count = 0

        def put(self, row: Row, result: Any, seconds: float | None) -> None:
            self.count += 1

    def peak(count: int) -> int:
        store = CountingStore(ordered=True)
        rows = (Row(index, index + 1, {"prompt": "x" * 1000 + str(index)}) for index in range(count))
        with stillhouse.create("echo") as llm:
            tracemalloc.start()
            run(llm, rows, RowFormatter(), store)
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert store.count == count
        return most

    peak(2000)  # what is imported and cached counts once
    assert peak(20_000) < 2 * peak(2000)


def test_invalid_rows_do_not_accumulate_in_memory() -> None:
    most = 0

    class Store(MemoryStore):
        def put(self, row: Row, result: Any, seconds: float | None) -> None:
            nonlocal most
            most = max(most, pulled - row.index)

    pulled = 0

    def bad_rows() -> Iterator[Row]:
        nonlocal pulled
        for index in range(20_000):
            pulled += 1
            yield Row(index, index + 1, error=invalid_row(index + 1, "broken"))

    with stillhouse.create("echo", max_concurrency=4) as llm:
        run(llm, bad_rows(), RowFormatter(), Store(ordered=True))
    assert pulled == 20_000
    assert most <= 200


def test_a_reader_counts_what_it_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a"}\n' * 10)
    reader = JsonlReader(str(path))
    rows = iter(reader)
    assert reader.share_read == 0
    next(rows)
    assert reader.share_read == pytest.approx(0.1)
    assert len(list(rows)) == 9
    assert reader.share_read == 1
    reader.close()


class OneAtATime:
    """A budget with room for one row."""

    held: int | None = None

    def reserve(self, row: int, input: Any, num_generations: int) -> bool:
        if self.held is None:
            self.held = row
        return self.held == row

    def charge(self, row: int, result: Any, seconds: float | None) -> None:
        self.held = None

    def commit(self) -> None:
        pass


def test_a_row_that_waits_for_the_budget_is_not_started_once_it_stops() -> None:
    store = MemoryStore(ordered=False)
    rows = (Row(index, index + 1, {"prompt": "x"}) for index in range(5))
    statistics = RunStatistics(budget=cast(Any, OneAtATime()))
    with stillhouse.create("echo") as llm:
        run(llm, rows, RowFormatter(), store, statistics=statistics, stopping=lambda: len(store.rows) == 2)
    assert [index for index, _ in store.rows] == [0, 1]
