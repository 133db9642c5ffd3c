"""The state of a run that an older version began."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from stillhouse import GenerateOutput, prepare_output
from stillhouse.jobs.formats.rows import Row
from stillhouse.jobs.runs.summary import summarize
from stillhouse.jobs.store.database import APPLICATION_ID, SCHEMA_VERSION, connect, read, reading, store_path
from stillhouse.jobs.store.store import SqliteStore

# As version 0.1 made it.
FIRST = """
CREATE TABLE info (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE rows (
    row INTEGER PRIMARY KEY, digest INTEGER NOT NULL, state INTEGER NOT NULL, kind TEXT, made INTEGER NOT NULL,
    result TEXT NOT NULL, finished REAL NOT NULL, seconds REAL, input_tokens INTEGER, output_tokens INTEGER,
    cached_tokens INTEGER, written_tokens INTEGER
);
CREATE INDEX failures ON rows (kind) WHERE kind IS NOT NULL;
CREATE TABLE sessions (
    session INTEGER PRIMARY KEY, started REAL NOT NULL, ended REAL, outcome TEXT, process INTEGER NOT NULL,
    host TEXT NOT NULL, version TEXT NOT NULL
);
"""

OFFER = {"backend": "anthropic", "model": "claude-haiku-4-5", "api_url": None}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An output whose run was begun by version 0.1, with one row."""
    output = tmp_path / "out.jsonl"
    with contextlib.closing(sqlite3.connect(store_path(output))) as connection:
        connection.executescript(
            f"{FIRST} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;"
            'INSERT INTO rows VALUES (0, 5, 1, NULL, 1, \'{"generations": ["old"]}\', 1.0, 1.0, 1000, 10, 600, 100);'
        )
        connection.execute("INSERT INTO info VALUES ('offer', ?)", (json.dumps(OFFER),))
        connection.commit()
    return output


def columns(connection: sqlite3.Connection) -> list[str]:
    return [row[1] for row in connection.execute("PRAGMA main.table_info(rows)")]


def test_reading_an_older_state_leaves_it_as_it_is(output: Path) -> None:
    pytest.importorskip("genai_prices")
    before = store_path(output).read_bytes()
    with reading(store_path(output)) as connection:
        summary = summarize(connection)
    assert (summary.done, summary.input_tokens, summary.cached_tokens, summary.written_tokens) == (
        1,
        1000,
        600,
        100,
    )
    assert summary.cost is not None
    assert summary.cached_cost
    assert summary.written_cost
    assert 0 < summary.cached_cost + summary.written_cost < summary.cost
    assert store_path(output).read_bytes() == before
    assert [path.name for path in output.parent.iterdir()] == [store_path(output).name]


def test_going_on_with_an_older_state_adds_what_it_lacks(output: Path, tmp_path: Path) -> None:
    store = SqliteStore(output, "m")
    result: GenerateOutput = prepare_output(["new"], [20], [2])
    result["statistics"] |= {"cache_creation_tokens": [9], "cache_creation_1h_tokens": [4], "cost": [0.5]}
    store.start()
    store.put(Row(1, "line 2", {}, 7), result, 1.0)
    store.commit()
    rows = store.connection.execute(
        "SELECT row, input_tokens, written_tokens, written_1h_tokens, cost FROM rows"
    )
    assert rows.fetchall() == [(0, 1000, 100, None, None), (1, 20, 9, 4, 0.5)]
    store.close("interrupted")
    with (
        contextlib.closing(connect(tmp_path / "new.db")) as new,
        contextlib.closing(read(store_path(output))) as old,
    ):
        assert columns(new) == columns(old)
        for connection in (new, old):
            assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


def test_two_that_add_it_at_once_add_it_once(output: Path) -> None:
    for _ in range(2):
        connect(store_path(output)).close()
    with contextlib.closing(read(store_path(output))) as connection:
        names: Any = columns(connection)
    assert len(names) == len(set(names))
