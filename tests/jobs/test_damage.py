"""Damage to the state of a run: it costs the damaged rows alone, or is told; the output is never another."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import stillhouse
from stillhouse import GenerationError, StillhouseError
from stillhouse.jobs.formats.rows import Row, RowFormatter
from stillhouse.jobs.reporting.report import write_report
from stillhouse.jobs.reporting.tables import status_lines
from stillhouse.jobs.runs.bulk import open_bulk_run
from stillhouse.jobs.runs.command import Command
from stillhouse.jobs.runs.estimate import estimate
from stillhouse.jobs.runs.online import RunStatistics
from stillhouse.jobs.runs.summary import summarize
from stillhouse.jobs.store import salvage
from stillhouse.jobs.store.damage import Damage
from stillhouse.jobs.store.database import DamagedError, StoreError, store_path
from stillhouse.jobs.store.pages import records
from stillhouse.jobs.store.salvage import intact
from stillhouse.jobs.store.schema import PAGE_BYTES
from stillhouse.jobs.store.seals import sealed
from stillhouse.jobs.store.store import SqliteStore
from stillhouse.offline.ledger import BatchLedger

ROWS = 80

# One row has more than a page of text, one more than a whole chain of them, and some have characters of
# several bytes.
PROMPTS = [f"row {number} " + "ä☃x" * (number % 7) for number in range(ROWS)]
PROMPTS[5] += "y" * 6000
PROMPTS[50] += "z" * 30_000

FAILING = frozenset({3, 60})


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder where a file is on the disk at once."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path_factory.mktemp("damage")
        return
    with TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def tmp_path(quick: Path) -> Iterator[Path]:
    with TemporaryDirectory(dir=quick) as folder:
        yield Path(folder)


class Template:
    """A run as it was left, which is damaged in copies.

    Attributes:
        output: what the run gives in the end.
        asked: the rows that the last work on a copy generated for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        lines = [json.dumps({"prompt": text}) for text in PROMPTS]
        lines[3], lines[60] = "no JSON", "{}"
        (folder / "rows.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        self.output = b""
        self.asked = 0
        self.told: list[str] = []

    def work(self, folder: Path, stop_after: int | None = None, **command: Any) -> bool:
        """Work on the run in a folder, and return whether it is complete."""
        asked = Command(str(folder / "rows.jsonl"), str(folder / "out.jsonl"), RowFormatter(), **command)
        statistics = RunStatistics()
        with stillhouse.create("echo", max_concurrency=4) as llm, open_bulk_run(llm, asked) as bulk:
            self.told = bulk.store.told
            if bulk.is_complete:
                self.asked = 0
                return True
            done = bulk.work(statistics, lambda: stop_after is not None and statistics.pulled >= stop_after)
            self.asked = statistics.rows
            return done

    def copy(self, folder: Path, state: bytes | None = None) -> Path:
        """Copy the run into a new folder, with another state if it is given."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        if state is not None:
            (folder / "out.jsonl.run.db").write_bytes(state)
        return folder

    @property
    def state(self) -> bytes:
        return (self.folder / "out.jsonl.run.db").read_bytes()


@pytest.fixture(scope="module")
def finished(quick: Path) -> Template:
    template = Template(quick / "finished")
    assert template.work(template.folder)
    template.output = (template.folder / "out.jsonl").read_bytes()
    assert sorted(path.name for path in template.folder.iterdir()) == [
        "out.jsonl", "out.jsonl.run.db", "rows.jsonl",
    ]  # fmt: skip
    return template


@pytest.fixture(scope="module")
def halved(finished: Template, quick: Path) -> Template:
    template = Template(quick / "halved")
    assert not template.work(template.folder, stop_after=ROWS // 2)
    template.output = finished.output
    return template


def damaged(state: bytes, chance: random.Random) -> tuple[str, bytes]:
    """Return what was done to a state, and the state afterwards."""
    data, size = bytearray(state), len(state)
    pages = size // PAGE_BYTES
    kind = chance.choice(("bit", "byte", "bytes", "cut", "zeroed", "swapped", "repeated", "header"))
    place = chance.randrange(size)
    page, other = (chance.randrange(pages) * PAGE_BYTES for _ in range(2))
    if kind == "bit":
        data[place] ^= 1 << chance.randrange(8)
    elif kind == "byte":
        data[place] = chance.randrange(256)
    elif kind == "bytes":
        for _ in range(chance.randrange(2, 200)):
            data[chance.randrange(size)] = chance.randrange(256)
    elif kind == "cut":
        del data[place:]
    elif kind == "zeroed":
        data[page : page + PAGE_BYTES] = bytes(PAGE_BYTES)
    elif kind == "swapped":
        one, two = data[page : page + PAGE_BYTES], data[other : other + PAGE_BYTES]
        data[page : page + PAGE_BYTES], data[other : other + PAGE_BYTES] = two, one
    elif kind == "repeated":
        data[page : page + PAGE_BYTES] = data[other : other + PAGE_BYTES]
    else:  # where the structure of a page, or of the file, is
        data[page + chance.randrange(100)] = chance.randrange(256)
    return f"{kind} at {place} or page {page // PAGE_BYTES + 1}", bytes(data)


@pytest.mark.parametrize("count", [100, pytest.param(3000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", ["finished", "halved"])
def test_no_damage_gives_another_output(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, count: int
) -> None:
    template: Template = request.getfixturevalue(name)
    chance = random.Random(f"{name} {count}")
    refused = 0
    for number in range(count):
        what, state = damaged(template.state, chance)
        folder = template.copy(tmp_path / "copy", state)
        if chance.random() < 0.5:
            (folder / "out.jsonl").unlink(missing_ok=True)
        try:
            assert template.work(folder)
        except StillhouseError:  # it is told, and nothing of it is gone
            refused += 1
            kept = folder / "out.jsonl.run.db.damaged"
            if not kept.exists():
                assert (folder / "out.jsonl.run.db").read_bytes() == state, (number, what)
                continue
            # What could be read does not say that the output was written by this run.
            assert kept.read_bytes() == state, (number, what)
            (folder / "out.jsonl").unlink()
            assert template.work(folder), (number, what)
        assert (folder / "out.jsonl").read_bytes() == template.output, (number, what)
        with intact(store_path(folder / "out.jsonl")) as (_, damage):
            assert damage is None, (number, what)
    assert refused < count / 4


@pytest.mark.parametrize("name", ["finished", "halved"])
def test_a_damaged_state_can_be_looked_at(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> None:
    template: Template = request.getfixturevalue(name)
    chance = random.Random(name)
    page = tmp_path / "page.html"
    for number in range(30):
        what, state = damaged(template.state, chance)
        folder = template.copy(tmp_path / "copy", state)
        command = Command(str(folder / "rows.jsonl"), str(folder / "out.jsonl"), RowFormatter())
        path, before = store_path(folder / "out.jsonl"), sorted(folder.iterdir())
        with contextlib.suppress(StoreError), intact(path) as (connection, _):
            assert status_lines(summarize(connection), False), (number, what)
            write_report(connection, "out.jsonl", False, page)
            assert estimate(stillhouse.create("echo"), command).rows <= ROWS
        assert sorted(folder.iterdir()) == before, (number, what)
        assert path.read_bytes() == state


def test_a_state_that_is_written_while_it_is_read_is_not_damaged(
    finished: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no process works on it, it is read as a file that does not change."""
    path = finished.copy(tmp_path / "copy") / "out.jsonl.run.db"
    plain = salvage.damage_of
    stores = []

    def begin(connection: sqlite3.Connection) -> Any:
        monkeypatch.setattr(salvage, "damage_of", plain)
        stores.append(SqliteStore(path.with_name("out.jsonl"), "echo"))
        stores[0].set("offer", None)
        return Damage(None)

    monkeypatch.setattr(salvage, "damage_of", begin)
    with intact(path) as (connection, damage):
        assert damage is None
        assert summarize(connection).rows == ROWS
    stores[0].close("stopped")


def replaced(state: bytes, old: str, new: str) -> bytes:
    assert state.count(old.encode()) == 1
    assert len(old) == len(new)
    return state.replace(old.encode(), new.encode())


@pytest.mark.parametrize("name", ["finished", "halved"])
def test_a_damaged_row_alone_is_generated_again(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    template: Template = request.getfixturevalue(name)
    state = replaced(replaced(template.state, '"row 7 ', '"row 8 '), '"row 13 ', '"row 14 ')
    folder = template.copy(tmp_path / "copy", state)
    with template_store(template) as connection:
        ((before,),) = connection.execute("SELECT count(*) FROM rows")
    assert template.work(folder)
    assert template.asked == ROWS - before + 2
    (told,) = template.told
    assert "2 rows are generated again" in told
    assert (folder / "out.jsonl").read_bytes() == template.output
    kept = folder / "out.jsonl.run.db.damaged"
    assert str(kept) in told
    assert kept.read_bytes() == state
    assert template.work(folder)
    assert template.asked == 0
    assert template.told == []


@contextlib.contextmanager
def template_store(template: Template) -> Any:
    with intact(template.folder / "out.jsonl.run.db") as (connection, damage):
        assert damage is None
        yield connection


def test_every_column_of_a_row_is_sealed(finished: Template, tmp_path: Path) -> None:
    with template_store(finished) as connection:
        columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(rows)")]
    for column in columns:
        folder = finished.copy(tmp_path / "copy")
        with contextlib.closing(sqlite3.connect(folder / "out.jsonl.run.db")) as connection:
            connection.execute(f"UPDATE rows SET {column} = 777 WHERE row = 20")
            connection.commit()
        with intact(folder / "out.jsonl.run.db") as (_, damage):
            assert damage is not None, column
        if column == "row":
            continue
        assert finished.work(folder), column
        assert finished.asked == 1, column
        assert (folder / "out.jsonl").read_bytes() == finished.output, column


def test_seals_are_the_same_in_every_python() -> None:
    """Else a newer one would take every row for a damaged one."""
    record = (
        7,
        -(2**63),
        2,
        "server",
        1,
        "ä☃ text",
        1764418888.25,
        None,
        2**53,
        0,
        *[None] * 3,
        0.5,
        3,
        None,
    )
    assert sealed("rows", *record)[-1] == -2805896064954053201
    assert sealed("info", "command", "{}")[-1] == -5570492436327545062


@pytest.mark.parametrize("table", ["info", "sessions"])
def test_damage_beside_the_rows_costs_none(finished: Template, tmp_path: Path, table: str) -> None:
    """What the run was asked for is there twice."""
    folder = finished.copy(tmp_path / "copy")
    with contextlib.closing(sqlite3.connect(folder / "out.jsonl.run.db")) as connection:
        column = "value" if table == "info" else "command"
        connection.execute(f"UPDATE {table} SET {column} = replace({column}, 'echo', 'etho')")
        connection.commit()
    assert finished.work(folder)
    assert finished.asked == 0
    assert "no row is lost" in finished.told[0]
    assert (folder / "out.jsonl").read_bytes() == finished.output


def test_what_the_run_was_asked_for_is_lost(finished: Template, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "copy")
    with contextlib.closing(sqlite3.connect(folder / "out.jsonl.run.db")) as connection:
        connection.execute("DELETE FROM info WHERE key = 'command'")
        connection.commit()
    with pytest.raises(DamagedError, match="what the run was asked for cannot be read"):
        finished.work(folder)


@pytest.mark.parametrize("page", [1, "rows"])
def test_a_page_of_the_structure_costs_no_row(finished: Template, tmp_path: Path, page: Any) -> None:
    """Where SQLite itself reads nothing any more."""
    if page == "rows":
        with template_store(finished) as connection:
            ((page,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'rows'")
    state = bytearray(finished.state)
    state[(page - 1) * PAGE_BYTES : page * PAGE_BYTES] = bytes(PAGE_BYTES)
    folder = finished.copy(tmp_path / "copy", bytes(state))
    with pytest.raises(sqlite3.Error), contextlib.closing(sqlite3.connect(folder / "out.jsonl.run.db")) as it:
        it.execute("SELECT result FROM rows").fetchall()
    assert finished.work(folder)
    assert finished.asked == 0
    assert f"{ROWS} rows can be read and kept, and the others are generated again" in finished.told[0]
    assert (folder / "out.jsonl").read_bytes() == finished.output


def test_the_records_of_an_undamaged_file_are_those_that_sqlite_reads(finished: Template) -> None:
    with template_store(finished) as connection:
        stored = connection.execute("SELECT * FROM rows ORDER BY row").fetchall()
    found = [
        (number, *values[1:])
        for number, values in records(finished.folder / "out.jsonl.run.db")
        if len(values) == len(stored[0])
    ]
    assert sorted(found) == stored


def with_a_batch(folder: Path) -> Path:
    """Give a run a record of offline batches, and return its state."""
    store = SqliteStore(folder / "out.jsonl", "echo")
    store.set("batches", True)
    store.close("stopped")
    with BatchLedger(store.path) as ledger:
        ledger.open_run("made-0")
    return store.path


def test_damage_to_a_row_costs_no_offline_batch(finished: Template, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "copy")
    path = with_a_batch(folder)
    path.write_bytes(replaced(path.read_bytes(), '"row 7 ', '"row 8 '))
    assert finished.work(folder)
    assert finished.asked == 1
    with BatchLedger(path) as ledger:
        assert ledger.run_keys() == ["made-0"]


@pytest.mark.parametrize("page", [1, "last"])
def test_offline_batches_are_not_forgotten(finished: Template, tmp_path: Path, page: Any) -> None:
    """They are paid for: where the record of them cannot be read, somebody has to look for them."""
    folder = finished.copy(tmp_path / "copy")
    path = with_a_batch(folder)
    state = bytearray(path.read_bytes())
    if page == 1:
        state[:PAGE_BYTES] = bytes(PAGE_BYTES)
    else:  # the ledger's
        state[-PAGE_BYTES:] = b"\xff" * PAGE_BYTES
    path.write_bytes(state)
    with pytest.raises(StoreError, match="the record of its offline batches"):
        finished.work(folder)
    assert path.read_bytes() == state
    assert not path.with_name(f"{path.name}.damaged").exists()


def test_a_damaged_record_of_a_batch_is_told(finished: Template, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "copy")
    path = with_a_batch(folder)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(batch_chunks)")]
        values = ["made-0" if name == "key" else 0 if name == "number" else "?" for name in columns]
        connection.execute(f"INSERT INTO batch_chunks VALUES ({', '.join('?' * len(values))})", values)
        connection.commit()
    with pytest.raises(DamagedError, match="its offline batches cannot be read"):
        finished.work(folder)


def test_records_in_the_log_are_read_as_well(tmp_path: Path) -> None:
    """As a killed process leaves it; the later version of a page counts."""
    store = SqliteStore(tmp_path / "out.jsonl", "echo")
    for kind in ("server", "timeout"):
        for index in range(200):
            store.put(Row(index, 1), GenerationError(f"row {index}", kind=kind), 1.0)
        store.commit()
    assert Path(f"{store.path}-wal").stat().st_size > PAGE_BYTES
    found = {record[0]: record[3] for table, record in salvage._sealed_records(store.path) if table == "rows"}
    assert found == dict.fromkeys(range(200), "timeout")
    store.close("stopped")


def test_a_second_damaged_state_replaces_no_first_one(finished: Template, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "copy")
    (folder / "out.jsonl.run.db.damaged").write_text("mine")
    state = replaced(finished.state, '"row 7 ', '"row 8 ')
    (folder / "out.jsonl.run.db").write_bytes(state)
    assert finished.work(folder)
    assert (folder / "out.jsonl.run.db.damaged").read_text() == "mine"
    assert (folder / "out.jsonl.run.db.damaged-2").read_bytes() == state


def test_damage_of_a_state_at_work_is_seen_before_the_output_is_written(
    finished: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished.copy(tmp_path / "copy")
    (folder / "out.jsonl").unlink()
    give_up = SqliteStore.give_up_reserve
    damaged: list[bool] = []

    def damaging(store: SqliteStore) -> Any:
        if not damaged:
            damaged.append(True)
            store.connection.execute(
                "UPDATE rows SET result = replace(result, 'row 7 ', 'row 8 ') WHERE row = 7"
            )
        return give_up(store)

    with monkeypatch.context() as patch:
        patch.setattr(SqliteStore, "give_up_reserve", damaging)
        assert finished.work(folder)
    assert finished.asked == 1
    assert finished.told == ["1 row did not read as written: generated again"]
    assert (folder / "out.jsonl").read_bytes() == finished.output


def test_a_state_of_which_nothing_can_be_read(finished: Template, tmp_path: Path) -> None:
    begins = finished.state[:PAGE_BYTES]
    for state, hint in (
        (begins, "--restart"),
        (bytes(5000), "move it away"),
        (b"mine" * 2000, "move it away"),
    ):
        folder = finished.copy(tmp_path / "copy", state)
        with pytest.raises(DamagedError, match="nothing of it can be read") as refused:
            finished.work(folder)
        assert hint in refused.value.hint
        assert (folder / "out.jsonl.run.db").read_bytes() == state


def retry_of(kinds: list[str]) -> Callable[[SqliteStore], int]:
    return lambda store: store.requeue(kinds)


def test_rows_that_wait_for_a_retry_keep_their_seals(finished: Template, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "copy")
    store = SqliteStore(folder / "out.jsonl", "echo")
    assert retry_of(["invalid_input"])(store) == len(FAILING)
    store.close("stopped")
    with intact(store.path) as (connection, damage):
        assert damage is None
        assert [row for (row,) in connection.execute("SELECT row FROM rows WHERE state = 0")] == sorted(
            FAILING
        )
    # A page that is not used any more may still have them as failed: the later record counts.
    state = bytearray(store.path.read_bytes())
    state[:PAGE_BYTES] = bytes(PAGE_BYTES)
    store.path.write_bytes(state)
    with intact(store.path) as (connection, damage):
        assert damage is not None
        assert [row for (row,) in connection.execute("SELECT row FROM rows WHERE state = 0")] == sorted(
            FAILING
        )
