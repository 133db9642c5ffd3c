"""The ledger: entries survive a crash, and its file is shared."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stillhouse import ConfigurationError
from stillhouse.offline import BatchLedger, Chunk, Rows, default_path, new_name


def chunk(*rows: int, state: str = "intent", round: int = 0) -> Chunk:
    return Chunk(new_name(), 0, round, state, "TinyLLM", "generate", Rows(rows))  # type: ignore[arg-type]


@pytest.mark.parametrize("ids", [[], [5], [1, 2, 3], [1, 3, 4, 9], [0, 1, 100_000]])
def test_rows_are_kept_as_ranges(ids: list[int]) -> None:
    rows = Rows(ids)
    assert list(rows) == ids
    assert list(Rows.parse(str(rows))) == ids
    assert len(rows) == len(ids)
    assert [id for id in range(-1, 12) if id in rows] == [id for id in ids if id < 12]


def test_a_million_rows_in_order_are_one_range() -> None:
    assert str(Rows(range(1_000_000))) == "0-999999"


def test_the_union_of_rows() -> None:
    union = Rows.union([Rows([1, 2, 9]), Rows([3, 8]), Rows(), Rows([2, 20])])
    assert list(union) == [1, 2, 3, 8, 9, 20]
    assert str(union) == "1-3,8-9,20"


def test_ledger_entries_are_read_by_another_process(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    code = f"""
import os
from stillhouse.offline import BatchLedger, Chunk, Rows, new_name
ledger = BatchLedger({str(path)!r})
ledger.open_run("run", inputs=3)
added = ledger.add("run", Chunk(new_name(), 0, 0, "intent", "X", "generate", Rows([0, 1, 2])))
ledger.update(added, state="created", job="job-7", result_files=("a", "b"), counts={{"completed": 2}})
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 9
    with BatchLedger(path) as ledger:
        (found,) = ledger.chunks("run")
        assert (found.state, found.job, found.result_files, found.counts) == (
            "created",
            "job-7",
            ("a", "b"),
            {"completed": 2},
        )
        assert list(found.rows) == [0, 1, 2]
        assert ledger.note("run") == {"inputs": 3}
        assert ledger.run_of_jobs(["job-9", "job-7"]) == "run"


def test_rows_are_held_until_they_are_collected(tmp_path: Path) -> None:
    with BatchLedger(tmp_path / "run.db") as ledger:
        ledger.open_run("run")
        first, second = ledger.add("run", chunk(0, 1)), ledger.add("run", chunk(2, 3))
        assert (first.number, second.number) == (0, 1)
        assert list(ledger.held("run")) == [0, 1, 2, 3]
        ledger.collected("run", first, Rows([1]), [(1, 0, {"generations": ["x"]})], [0])
        assert list(ledger.held("run")) == [1, 2, 3]
        plan = next(one for one in ledger.chunks("run") if one.state == "planned")
        assert (list(plan.rows), plan.round) == ([1], 1)
        assert ledger.parts("run") == {1: {0}}
        ledger.drop(second)
        assert list(ledger.held("run")) == [1]
        ledger.add("run", chunk(1, round=1), plan)
        assert "planned" not in {one.state for one in ledger.chunks("run")}
        ledger.forget("run")
        assert ledger.chunks("run") == []
        assert ledger.note("run") is None


def test_ledger_shares_its_file_with_another_writer(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl.run.db"
    with (
        sqlite3.connect(path, isolation_level=None, check_same_thread=False) as other,
        BatchLedger(path) as ledger,
    ):
        other.execute("CREATE TABLE rows (id INTEGER)")
        ledger.open_run("run")
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO rows VALUES (1)")
        writing = threading.Thread(target=ledger.add, args=("run", chunk(0)))
        writing.start()
        writing.join(0.05)
        assert writing.is_alive(), "it waits for the other's transaction"
        other.execute("COMMIT")
        writing.join(30)
        assert len(ledger.chunks("run")) == 1
    other.close()


def test_the_folder_for_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_STATE_DIR", str(tmp_path))
    assert default_path() == tmp_path / "batches.db"
    monkeypatch.delenv("STILLHOUSE_STATE_DIR")
    assert "stillhouse" in str(default_path())


def test_a_folder_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="STILLHOUSE_STATE_DIR"):
        BatchLedger(tmp_path / "file" / "batches.db")


def test_database_of_something_else_gets_no_tables(tmp_path: Path) -> None:
    path = tmp_path / "batches.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (x)")
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="database of something else"):
        BatchLedger(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
