"""`OfflineBatch` as a bulk run drives it: streams in, chunks out, acknowledged when they are stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from stillhouse import ConfigurationError, GenerationError
from stillhouse.http.batches import BatchLimits, OfflineBatch
from stillhouse.offline import BatchLedger

from .support import BatchServer, TinyLLM, chat, echo


class SmallLLM(TinyLLM):
    batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=2, bytes=10_000)


def inputs_of(rows: Sequence[int]) -> dict[int, Any]:
    return {row: chat(f"t{row}") for row in rows}


def nobody(row: int, error: GenerationError) -> None:
    raise AssertionError(error)


@pytest.fixture
def open_batch(make: Any, tmp_path: Path) -> Iterator[Callable[[], OfflineBatch]]:
    """A batch as after a start of the process: of a new LLM and a new ledger on the same file."""
    ledgers: list[BatchLedger] = []

    def opened() -> OfflineBatch:
        ledgers.append(BatchLedger(tmp_path / "out.jsonl.run.db"))
        return OfflineBatch(make(SmallLLM), ledgers[-1], "run")

    yield opened
    for ledger in ledgers:
        ledger.close()


def items(*rows: int) -> Iterator[tuple[int, Any]]:
    return ((row, chat(f"t{row}")) for row in rows)


def collected(batch: OfflineBatch) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for results in batch.collect(inputs_of):
        found |= dict(results)
        results.acknowledge()
    return found


def test_offline_batch_run_from_submission_to_acknowledgement(open_batch: Any, server: BatchServer) -> None:
    batch = open_batch()
    assert batch.submit(items(*range(5)), nobody) == 3
    assert list(batch.held()) == [0, 1, 2, 3, 4]
    assert batch.submit(items(3, 4, 5), nobody) == 1  # only the new one
    assert server.texts(server.jobs["job-3"]) == ["t5"]
    states = [(chunk.job, chunk.state, list(chunk.rows)) for chunk in batch.poll()]
    assert states == [
        ("job-0", "created", [0, 1]),
        ("job-1", "created", [2, 3]),
        ("job-2", "created", [4]),
        ("job-3", "created", [5]),
    ]
    assert collected(batch) == {}
    server.finish(server.jobs["job-1"])
    batch = open_batch()
    shown = batch.poll()[1]
    assert (shown.state, shown.provider_state, shown.counts["completed"]) == ("finished", "completed", 2)
    found = collected(batch)
    assert {row: output["generations"] for row, output in found.items()} == {2: ["T2"], 3: ["T3"]}
    assert list(batch.held()) == [0, 1, 4, 5]
    assert not batch.is_finished
    server.finish()
    batch.poll()
    assert sorted(collected(batch)) == [0, 1, 4, 5]
    assert batch.is_finished


def test_unacknowledged_chunk_is_delivered_again_completely(open_batch: Any, server: BatchServer) -> None:
    batch = open_batch()
    batch.submit(items(0, 1, 2), nobody)
    server.finish()
    batch.poll()
    for results in batch.collect(inputs_of):
        next(iter(results))
        with pytest.raises(RuntimeError):
            results.acknowledge()
        break  # the process dies here
    assert sorted(collected(open_batch())) == [0, 1, 2]
    assert collected(open_batch()) == {}
    assert len(server.jobs) == 2


def test_rows_to_resubmit_survive_a_crash(open_batch: Any, server: BatchServer) -> None:
    batch = open_batch()
    batch.submit(items(0, 1), nobody)
    server.finish(outcome=lambda body: 500 if body["text"] == "t1" else echo(body))
    batch.poll()
    stored: dict[int, Any] = {}
    for results in batch.collect(inputs_of):
        stored |= dict(results)
        results.acknowledge()
        break  # the process dies before anything is sent again
    assert list(stored) == [0]
    assert len(server.jobs) == 1
    batch = open_batch()
    batch.reconcile()
    assert batch.submit(items(0, 1), nobody) == 1, "row 0 is free to the ledger: its store knows better"
    assert batch.resubmit(inputs_of, nobody) == 1
    assert server.texts(server.jobs["job-2"]) == ["t1"]


def test_rows_are_pulled_as_they_are_sent(open_batch: Any, server: BatchServer) -> None:
    jobs_when_pulled: list[int] = []

    def source() -> Iterator[tuple[int, Any]]:
        for row in range(6):
            jobs_when_pulled.append(len(server.jobs))
            yield row, chat(f"t{row}")

    open_batch().submit(source(), nobody)
    assert jobs_when_pulled == [0, 0, 0, 1, 1, 2]


def test_a_source_that_breaks_leaves_its_rows_free(open_batch: Any, server: BatchServer) -> None:
    def source() -> Iterator[tuple[int, Any]]:
        yield from items(0, 1, 2)
        raise OSError("the file is gone")

    batch = open_batch()
    with pytest.raises(OSError, match="gone"):
        batch.submit(source(), nobody)
    assert list(batch.held()) == [0, 1]


def test_cancelled_rows_are_free_again(open_batch: Any, server: BatchServer) -> None:
    batch = open_batch()
    batch.submit(items(0, 1, 2), nobody)
    server.finish(server.jobs["job-0"])
    batch.cancel()
    released: list[int] = []
    for results in batch.collect(inputs_of):
        assert all(not isinstance(result, GenerationError) for _, result in results)
        released += results.released
        results.acknowledge()
    assert released == [2]
    assert batch.is_finished
    assert list(batch.held()) == []


@pytest.mark.parametrize("pages_left", range(4))
def test_a_disk_that_is_full_before_the_job_is_made(
    open_batch: Any, server: BatchServer, pages_left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SmallLLM, "batch_limits", BatchLimits(requests=10_000, bytes=10_000_000))
    batch = open_batch()
    connection = batch.ledger._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    rows = range(0, 4000, 2)  # so many ranges fill pages
    source = [(row, chat(f"t{row}")) for row in rows]
    connection.execute(f"PRAGMA max_page_count = {pages + pages_left}")
    with pytest.raises(ConfigurationError, match="full"):
        batch.submit(source, nobody)
    assert len(server.jobs) == 0
    batch = open_batch()
    batch.reconcile()
    batch.submit(source, nobody)
    batch.resubmit(lambda ids: dict(source), nobody)
    assert len(server.jobs) == 1
    assert list(batch.held()) == list(rows)


def test_row_whose_input_is_missing_is_not_resubmitted(open_batch: Any, server: BatchServer) -> None:
    batch = open_batch()
    batch.submit(items(0, 1), nobody)
    server.finish(outcome=lambda body: 500)
    batch.poll()
    for results in batch.collect(
        lambda rows: {row: input for row, input in inputs_of(rows).items() if row != 1}
    ):
        assert list(results) == []
        results.acknowledge()
    assert server.texts(server.jobs["job-1"]) == ["t0"]
    assert list(batch.held()) == [0]


def test_full_disk_when_the_job_is_created_makes_no_second_job(
    make: Any, server: BatchServer, tmp_path: Path
) -> None:
    class WordyLLM(TinyLLM):
        async def create_batch(self, *args: Any) -> Any:
            job = await super().create_batch(*args)
            (pages,) = full._connection.execute("PRAGMA page_count").fetchone()
            full._connection.execute(f"PRAGMA max_page_count = {pages}")
            return dataclasses.replace(job, provider_state="x" * 100_000)

    path = tmp_path / "out.jsonl.run.db"
    with BatchLedger(path) as full, pytest.raises(ConfigurationError, match="full"):
        OfflineBatch(make(WordyLLM), full, "run").submit(items(0, 1), nobody)
    assert len(server.jobs) == 1
    with BatchLedger(path) as ledger:
        batch = OfflineBatch(make(), ledger, "run")
        batch.reconcile()
        assert batch.submit(items(0, 1), nobody) == 0
        assert [chunk.job for chunk in batch.jobs()] == ["job-0"]
    assert len(server.jobs) == 1


def test_file_of_a_job_is_handed_over_at_its_beginning(
    make: Any, server: BatchServer, tmp_path: Path
) -> None:
    read: list[bytes] = []

    class ReadingLLM(TinyLLM):
        async def upload_batch(self, chunk: Any, file: Any, size: int) -> str:
            read.append(file.read())
            return await super().upload_batch(chunk, file, size)

        async def create_batch(self, chunk: Any, file: Any, size: int) -> Any:
            read.append(file.read())
            assert len(read[-1]) == size
            return await super().create_batch(chunk, file, size)

    with BatchLedger(tmp_path / "ledger.db") as ledger:
        OfflineBatch(make(ReadingLLM), ledger, "run").submit(items(0, 2), nobody)
    uploaded, created = read
    assert uploaded == created != b""
