"""A run touches nothing but its own output, and forgets nothing before it can begin."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import pytest

from stillhouse import ConfigurationError, GenerationError
from stillhouse.jobs.formats.jsonl import JsonlReader
from stillhouse.jobs.formats.rows import Row
from stillhouse.jobs.formats.writers import JsonlWriter
from stillhouse.jobs.runs.assembly import assemble
from stillhouse.jobs.store.database import sqlite_uri
from stillhouse.jobs.store.fingerprint import InputChanges, check_unchanged
from stillhouse.jobs.store.lock import is_worked_on
from stillhouse.jobs.store.seals import sealed
from stillhouse.jobs.store.store import SqliteStore

from ..support import squeezed
from .conftest import Server, read_jsonl

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_the_input_is_never_replaced(
    start: Any, rows: Callable[[int], Path], tmp_path: Path, link: Any
) -> None:
    source = output = rows(3)
    if link is not None:
        output = tmp_path / "other.jsonl"
        link(source, output)
    before = source.read_bytes()
    process = start(source, "-o", output, "--restart")
    assert process.wait() == 1
    assert "is the input as well" in process.err
    assert source.read_bytes() == output.read_bytes() == before
    assert not list(tmp_path.glob("*.run.db*"))


@pytest.mark.parametrize("wrong", ["input", "output"])
def test_a_restart_that_cannot_begin_forgets_nothing(
    start: Any, server: Server, rows: Callable[[int], Path], tmp_path: Path, wrong: str
) -> None:
    source, output = rows(3), tmp_path / "out.jsonl"
    assert start(source, "-o", output).wait() == 0
    before = output.read_bytes()
    obstacle = tmp_path / "out.jsonl.partial"
    if wrong == "output":
        obstacle.mkdir()
        (obstacle / "mine").write_text("kept")
    process = start(tmp_path / "missing.jsonl" if wrong == "input" else source, "-o", output, "--restart")
    assert process.wait() == 1
    assert ("Stillhouse did not make it" if wrong == "output" else "cannot be read") in process.err
    assert "Traceback" not in process.err
    if wrong == "output":
        (obstacle / "mine").unlink()
        obstacle.rmdir()
    assert start(source, "-o", output).wait() == 0
    assert output.read_bytes() == before
    assert len(server.asked) == 3


def test_an_input_that_is_not_there_leaves_nothing_behind(start: Any, tmp_path: Path) -> None:
    process = start(tmp_path / "missing.jsonl", "-o", tmp_path / "out.jsonl")
    assert process.wait() == 1
    assert "cannot be read" in process.err
    assert {path.name for path in tmp_path.iterdir()} == {"stdout.txt", "stderr.txt"}


def test_an_input_that_can_be_read_only_once_is_refused(start: Any, tmp_path: Path) -> None:
    source = tmp_path / "pipe.jsonl"
    os.mkfifo(source)
    reading = os.open(source, os.O_RDWR)  # so that nobody waits for the other end
    try:
        process = start(source, "-o", tmp_path / "out.jsonl")
        assert process.wait() == 1
    finally:
        os.close(reading)
    assert "give it as standard input" in process.err
    assert "Traceback" not in process.err


def test_run_with_rows_to_retry_is_not_complete(
    start: Any, server: Server, rows: Callable[[int], Path], tmp_path: Path
) -> None:
    source, output = rows(5), tmp_path / "out.jsonl"
    server.fails = lambda body: 0 if body["prompt"] == "row 1" else None
    assert start(source, "-o", output).wait() == 3
    # It ends after the rows are queued, and before any is generated for.
    server.hold()
    process = start(source, "-o", output, "--retry", "server")
    assert server.wait_for(6)
    process.kill()
    process.wait()
    store = SqliteStore(output, "m")
    store.set("complete", {"limit": None})  # as it was before the work began
    store.close("stopped")
    server.let_go()
    server.fails = lambda _: None
    process = start(source, "-o", output)
    assert process.wait() == 0, process.err
    assert [row["error"] for row in read_jsonl(output)] == [None] * 5
    process = start(source, "-o", output)
    assert process.wait() == 0
    assert "is complete: 5 rows" in process.err


def test_a_smaller_limit_counts_its_own_rows(
    start: Any, server: Server, rows: Callable[[int], Path], tmp_path: Path
) -> None:
    source, output = rows(6), tmp_path / "out.jsonl"
    server.fails = lambda body: 0 if body["prompt"] == "row 4" else None
    assert start(source, "-o", output).wait() == 3
    process = start(source, "-o", output, "--limit", 3)
    assert process.wait() == 0, process.err
    assert "rows 3" in squeezed(process.err)
    assert "failed" not in process.err
    assert "finished before 3" in squeezed(process.err)
    assert len(read_jsonl(output)) == 3
    process = start(source, "-o", output, "--limit", 3)
    assert process.wait() == 0
    assert "is complete: 3 rows" in process.err
    # A row beyond the limit that waits to be tried again keeps nothing from being complete.
    start(source, "-o", output, "--limit", 3, "--retry", "server").wait()
    process = start(source, "-o", output, "--limit", 3)
    assert process.wait() == 0
    assert "is complete: 3 rows" in process.err
    assert start(source, "-o", output).wait() == 3
    assert len(read_jsonl(output)) == 6


def test_rows_finished_in_an_earlier_session_are_counted_once(
    start: Any, server: Server, rows: Callable[[int], Path], tmp_path: Path
) -> None:
    source, output = rows(4), tmp_path / "out.jsonl"
    given = {"row 1": 1, "row 2": 0}
    server.fails = lambda body: given.get(body["prompt"])
    assert start(source, "-o", output, "-n", 2).wait() == 3
    given.clear()
    process = start(source, "-o", output, "-n", 2, "--retry", "all")
    assert process.wait() == 0
    assert "finished before 2" in squeezed(process.err)


def test_missing_generations_get_the_next_seeds(
    start: Any, server: Server, rows: Callable[[int], Path], tmp_path: Path
) -> None:
    arguments = [rows(1), "-o", tmp_path / "out.jsonl", "-n", 3, "--set", 'generation_kwargs={"seed": 10}']
    server.fails = lambda _: 2
    assert start(*arguments).wait() == 3
    server.fails = lambda _: None
    assert start(*arguments, "--retry", "server").wait() == 0
    assert [(body["n"], body["seed"]) for body in server.bodies] == [(3, 10), (1, 12)]


def test_empty_file_at_the_state_path_is_not_a_run_state(
    start: Any, rows: Callable[[int], Path], tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("mine\n")
    Path(f"{output}.run.db").touch()
    process = start(rows(1), "-o", output)
    assert process.wait() == 1
    assert "already exists" in process.err
    assert "is empty" in process.err
    assert output.read_text() == "mine\n"


def test_leftover_database_log_is_not_part_of_a_new_run(
    start: Any, server: Server, rows: Callable[[int], Path], tmp_path: Path
) -> None:
    """As a restart leaves it that is killed between the two."""
    source, output = rows(40), tmp_path / "out.jsonl"
    process = start(source, "-o", output, concurrency=4)
    assert server.wait_for(30)
    process.kill()
    process.wait()
    state = Path(f"{output}.run.db")
    assert Path(f"{state}-wal").stat().st_size
    state.unlink()
    server.asked.clear()
    assert start(source, "-o", output).wait() == 0
    assert sorted(server.asked) == sorted(f"row {number}" for number in range(40))


def test_results_are_kept_when_an_interrupt_precedes_the_commit(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    store = SqliteStore(output, "m")
    store.start()
    store.put(Row(0, 1), {"generations": ["paid for"], "statistics": {}}, 1.0)
    store.close("interrupted")
    store = SqliteStore(output, "m")
    assert [row.columns["generations"] for row in store.finished_rows()] == [["paid for"]]
    store.set("command", {})
    store.close("stopped")


def test_an_interrupted_transaction_is_rolled_back(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "out.jsonl", "m")
    with contextlib.suppress(KeyboardInterrupt), store._transaction():
        store.connection.execute("INSERT INTO info VALUES (?, ?, ?)", sealed("info", "half", "1"))
        raise KeyboardInterrupt
    assert not store.connection.in_transaction
    assert store.get("half") is None
    store.close("stopped")


class FullDisk(JsonlWriter):
    def finish(self) -> None:
        raise OSError(28, "No space left on device")


def input_of(path: Path, count: int) -> JsonlReader:
    path.write_text("".join(json.dumps({"prompt": f"row {number}"}) + "\n" for number in range(count)))
    return JsonlReader(str(path))


def filled(tmp_path: Path, reader: JsonlReader) -> SqliteStore:
    store = SqliteStore(tmp_path / "out.jsonl", "m")
    store.set("command", {})
    for row in reader:
        store.put(row, {"generations": [row.columns["prompt"]], "statistics": {}}, 1.0)
    store.commit()
    return store


def test_an_output_that_cannot_be_finished_leaves_no_part_behind(tmp_path: Path) -> None:
    reader = input_of(tmp_path / "rows.jsonl", 3)
    store = filled(tmp_path, reader)
    with pytest.raises(OSError, match="No space left"):
        assemble(reader, store.finished_rows(), FullDisk(str(tmp_path / "out.jsonl")))
    assert not list(tmp_path.glob("*.partial"))
    reader.close()
    store.close("stopped")


@pytest.mark.parametrize(
    ("rows_left", "limit", "wrong"),
    [(3, None, [3, 4]), (0, None, [0, 1, 2, 3, 4]), (3, 3, []), (3, 4, [3, 4])],
)
def test_an_input_that_lost_its_last_rows_is_not_complete(
    tmp_path: Path, rows_left: int, limit: int | None, wrong: list[int]
) -> None:
    reader = input_of(tmp_path / "rows.jsonl", 5)
    store = filled(tmp_path, reader)
    reader.close()
    reader = input_of(tmp_path / "rows.jsonl", rows_left)
    assert assemble(reader, store.finished_rows(), JsonlWriter(str(tmp_path / "out.jsonl")), limit) == wrong
    assert (tmp_path / "out.jsonl").exists() == (not wrong)
    reader.close()
    store.close("stopped")


def test_input_difference_covers_only_generated_rows(tmp_path: Path) -> None:
    reader = input_of(tmp_path / "rows.jsonl", 6)
    known = [(row.index, row.digest) for row in reader]
    changes = InputChanges(reader, iter([known[1], known[4]]))
    assert not changes.are_in_rows
    assert changes.told == "input: it changed, but not in the 2 rows that were generated"
    changes = InputChanges(reader, iter([(1, 0), known[4], (5, 0)]))
    assert changes.are_in_rows
    assert changes.told == "input: 2 of 3 rows differ; the first is on line 2"
    reader.close()


def test_long_value_is_shortened_in_the_error(tmp_path: Path) -> None:
    reader = input_of(tmp_path / "rows.jsonl", 0)
    changes = InputChanges(reader, ())
    reader.close()
    with pytest.raises(ConfigurationError) as refused:
        check_unchanged({"template": "x" * 1000}, {"template": "short"}, changes)
    assert "xxx…" in str(refused.value)
    assert len(str(refused.value)) < 400


def test_row_does_not_get_the_result_of_an_equal_row(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"prompt": "a"}\n' * 2)
    reader = JsonlReader(str(source))
    store = filled(tmp_path, reader)
    store.forget([0])
    assert assemble(reader, store.finished_rows(), JsonlWriter(str(tmp_path / "out.jsonl"))) == [0]
    reader.close()
    store.close("stopped")


def test_state_without_a_table_is_reported_as_damaged(start: Any, rows: Any, tmp_path: Path) -> None:
    source, output = rows(3), tmp_path / "out.jsonl"
    assert start(source, "-o", output).wait() == 0
    with contextlib.closing(sqlite3.connect(f"{output}.run.db")) as connection:
        connection.execute("DROP TABLE rows")
    process = start(source, "-o", output)
    assert process.wait() == 1
    assert "is damaged and cannot be used" in process.err
    assert "--restart" in process.err
    assert "Traceback" not in process.err


def test_failed_row_is_retried_only_on_request(
    start: Any, server: Server, rows: Callable[[int], Path], tmp_path: Path
) -> None:
    source, output = rows(4), tmp_path / "out.jsonl"
    server.fails = lambda body: 0 if body["prompt"] == "row 1" else None
    assert start(source, "-o", output, "--limit", 2).wait() == 3
    assert start(source, "-o", output).wait() == 3
    assert sorted(server.asked) == [f"row {number}" for number in range(4)]


def test_row_waiting_for_a_retry_has_no_result(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "out.jsonl", "m")
    store.set("command", {})
    for index in range(3):
        store.put(Row(index, 1), GenerationError("broken", kind="server"), 1.0)
    store.put(Row(3, 1), GenerationError("broken", kind="timeout"), 1.0)
    store.put(Row(4, 1), {"generations": ["x"], "statistics": {}}, 1.0)
    store.commit()
    assert store.requeue(["server", "schema"]) == 3
    assert [row.index for row in store.finished_rows()] == [3, 4]
    assert [row for row, _ in store.digests()] == [0, 1, 2, 3, 4]
    store.close("stopped")


def test_a_file_that_cannot_be_removed_does_not_keep_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, which removes no file that another process has open."""
    output = tmp_path / "out.jsonl"

    def unlink(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "it is used by another process", str(path))

    store = SqliteStore(output, "m")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        store.close("stopped")  # it never began, and would be removed
    store = SqliteStore(output, "m")
    store.set("command", {})
    store.start()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        store.close("complete")
    assert not is_worked_on(store.path)
    store = SqliteStore(output, "m")
    store.start()  # it takes over the reserve
    store.close("complete")
    assert not (tmp_path / "out.jsonl.run.db-reserve").exists()


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        (PurePosixPath("/data/a b.db"), "file:///data/a%20b.db"),
        (PureWindowsPath(r"C:\data\a#b.db"), "file:///C:/data/a%23b.db"),
        (PureWindowsPath(r"\\host\share\a.db"), "file:////host/share/a.db"),
    ],
)
def test_the_state_on_a_share_is_addressed_as_sqlite_takes_it(path: PurePath, uri: str) -> None:
    assert sqlite_uri(path) == uri
