"""`stillhouse status`: what a run works on, how long it took, and how fast it is."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stillhouse.jobs.reporting.tables import status_lines
from stillhouse.jobs.runs import pace
from stillhouse.jobs.runs.summary import Session, Summary, summarize

from .conftest import Result, write_rows


def state_of(output: Path) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(f"file:{output}.run.db?mode=ro", uri=True))


def summary_of(connection: sqlite3.Connection, started: float, ended: float | None) -> Summary:
    """The summary of a run whose only session is one that a test says."""
    session = Session(started, ended, None, 1, "host", "0")
    return replace(summarize(connection), complete=False, sessions=[session])


@pytest.fixture
def output(run: Callable[..., Result], tmp_path: Path) -> Path:
    source = write_rows(tmp_path / "in.jsonl", [{"prompt": "a"}] * 60)
    assert run("generate", source, "--llm", "echo", "-o", tmp_path / "out.jsonl", "--quiet").status == 0
    return tmp_path / "out.jsonl"


def test_a_complete_run_says_what_it_was_and_of_how_many_rows(
    run: Callable[..., Result], output: Path
) -> None:
    lines = dict(re.split("  +", line, maxsplit=1) for line in run("status", output).out.splitlines())
    assert lines["state"] == "complete"
    assert lines["LLM"] == "echo"
    assert lines["input"] == str(output.with_name("in.jsonl"))
    assert lines["rows finished"] == "60 of 60"
    assert re.fullmatch("[0-9]+:[0-9]{2}", lines["elapsed"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d\d:\d\d", lines["last row finished"])
    assert not {"speed", "ETA"} & {*lines}
    facts = json.loads(run("status", output, "--json").out)
    assert (facts["total"], facts["llm"], facts["model"], facts["rows"]) == (60, "echo", "echo", 60)
    assert (facts["rows_per_second"], facts["seconds_left"]) == (None, None)


def test_a_run_that_works_says_how_fast_it_is_and_when_it_ends(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "facts_of", lambda _: {"total": 120})
    with state_of(output) as connection:
        last = summarize(connection).last_finished
        assert last is not None
        monkeypatch.setattr(pace.time, "time", lambda: last + 1)
        summary = summary_of(connection, last - 99, None)
        found = pace.pace_of(connection, summary, working=True)
        assert (found.total, found.seconds, found.rows_per_second) == (120, 100.0, 2.0)
        lines = dict(status_lines(summary, True, found))
        assert (lines["rows finished"], lines["elapsed"]) == ("60 of 120", "1:40")
        assert (lines["speed"], lines["ETA"]) == ("2.0 rows/s", "0:30")
        killed = pace.pace_of(connection, summary, working=False)
        assert (killed.seconds, killed.rows_per_second, killed.seconds_left) == (99.0, None, None)


def test_a_number_of_rows_that_is_not_known_or_wrong_is_left_out(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for total in (None, "x", 5):
        monkeypatch.setattr(pace, "facts_of", lambda _, total=total: {"total": total})
        with state_of(output) as connection:
            summary = summary_of(connection, 0.0, 10.0)
            found = pace.pace_of(connection, summary, working=False)
            assert (found.total, found.seconds) == (None, 10.0)
            assert dict(status_lines(summary, False, found))["rows finished"] == "60"


def test_a_run_of_a_table_records_how_many_rows_it_has(run: Callable[..., Result], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.table({"prompt": ["a"] * 7}), tmp_path / "in.parquet")
    output = tmp_path / "out.jsonl"
    assert run("generate", tmp_path / "in.parquet", "--llm", "echo", "-o", output).status == 0
    with state_of(output) as connection:
        assert pace.facts_of(connection)["total"] == 7
