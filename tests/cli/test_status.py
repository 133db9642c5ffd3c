"""`stillhouse status`: what a run works on, how long it took, and how fast it is."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from stillhouse.jobs.reporting.status import Places, latest_counts, status_as_json
from stillhouse.jobs.reporting.tables import status_lines
from stillhouse.jobs.runs import pace, reach
from stillhouse.jobs.runs.statistics import RunStatistics
from stillhouse.jobs.runs.summary import Session, Summary, summarize
from stillhouse.jobs.selection.choosing import Choice
from stillhouse.jobs.store import store

from .conftest import Result, write_rows
from .terminals import PATIENCE, on_pty, plain


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
    monkeypatch.setattr(pace, "facts_of", lambda _: {"reach": [120, False]})
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
    for facts in (
        {},
        {"total": "x"},
        {"reach": [5, False]},
        {"reach": "xy"},
        {"reach": [99]},
        {"reach": [9.5, 1]},
    ):
        monkeypatch.setattr(pace, "facts_of", lambda _, facts=facts: facts)
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
        assert pace.facts_of(connection)["reach"] == [7, False]


def test_the_total_of_a_file_of_lines_is_estimated_from_what_was_read(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "facts_of", lambda _: {"reach": [3_004, True]})
    with state_of(output) as connection:
        summary = summary_of(connection, 0.0, 10.0)
        found = pace.pace_of(connection, summary, working=False)
        assert (found.total, found.total_is_estimated) == (3004, True)
        assert dict(status_lines(summary, False, found))["rows finished"] == "60 of ~3,000"


def test_a_state_of_an_earlier_version_has_the_total_that_its_input_knew(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "facts_of", lambda _: {"total": 120})
    with state_of(output) as connection:
        found = pace.pace_of(connection, summary_of(connection, 0.0, 10.0), working=False)
        assert (found.total, found.total_is_estimated) == (120, False)


def test_a_run_that_was_stopped_says_how_many_rows_it_has_about(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "RECORD_SECONDS", 0.0)
    source = write_rows(tmp_path / "in.jsonl", [{"prompt": f"{number:06}"} for number in range(20_000)])
    stopped = run("generate", source, "--llm", "echo", "-o", tmp_path / "o.jsonl", "--max-tokens-total", 4000,
                  "--param", "max_new_tokens=1", "--max-concurrency", 8)  # fmt: skip
    assert stopped.status == 1, stopped
    facts = json.loads(run("status", tmp_path / "o.jsonl", "--json").out)
    assert facts["rows"] < 10_000
    assert facts["total_is_estimated"] is True
    assert 10_000 < facts["total"] < 40_000


def test_what_a_reader_says_of_itself_ends_no_run() -> None:
    class Reader:
        @property
        def share_read(self) -> float:
            raise RuntimeError

    statistics = RunStatistics(pulled=3)
    reader: Any = Reader()
    assert reach.recorded_total(Choice(), reader, statistics) == [None, False]
    Reader.share_read = float("nan")  # type: ignore[assignment, method-assign]
    assert reach.recorded_total(Choice(), reader, statistics) == [None, False]
    Reader.share_read = 0.5  # type: ignore[assignment]
    assert reach.recorded_total(Choice(), reader, statistics) == [6, True]
    assert reach.recorded_total(Choice(limit=12), reader, statistics) == [6, True]


# A run of 400 rows in this process; each time that the command waits, 20 more of them are finished.
WATCHED = """
import sys, time
from pathlib import Path
from stillhouse.cli import main, status
from stillhouse.jobs.formats.rows import Row
from stillhouse.jobs.store import store as sqlite_store
from stillhouse.jobs.store.store import SqliteStore
sqlite_store.RECORD_SECONDS = 0.0
store = SqliteStore(Path("out.jsonl"), "echo")
store.set("command", {"llm": {"llm": "echo"}, "model_name": "m"})
store.start()
rows, closed = [0], []
store.record("reach", lambda: [400, rows[0] < 300])
def sleep(seconds):
    assert seconds >= status.WATCH_SECONDS
    for number in range(rows[0], rows[0] + 20):
        store.put(Row(number, number + 1, {}), {"generations": ["x"]}, 0.1)
    rows[0] += 20
    store.commit()
    if rows[0] == 400 and not closed:
        closed.append(store.close("interrupted"))
    elif rows[0] > 400:
        raise AssertionError
class Time:
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(sleep)
status.time = Time
session = list(store._session)
session[1] -= 100.0  # it began some time ago
store._session = tuple(session)
with store._transaction():
    store._store_session()
sys.argv = ["stillhouse", "status", "out.jsonl", "--watch"]
main()
"""


@pytest.mark.parametrize(("columns", "environment"), [(80, {}), (40, {}), (20, {}), (80, {"NO_COLOR": "1"})])
def test_watching_redraws_one_line(tmp_path: Path, columns: int, environment: dict[str, str]) -> None:
    status, got = on_pty(["-c", WATCHED], tmp_path, columns, **environment)
    assert status == 0, got
    head, line, after = re.split(r"\x1b\[\?25[lh]", got)
    assert re.match(r"state +running \(process \d+ on ", plain(head)), head
    assert "\n" not in line.strip().removeprefix("\r\n")
    drawn = re.search(r"(\d+)%  +(\d+)/(~?)400", plain(line))
    assert drawn, line
    assert int(drawn[1]) == int(drawn[2]) // 4
    # The line is removed, and the whole status is what stays.
    assert "\x1b[1A\x1b[2K" in after
    assert plain(after).count("rows finished") == 1
    assert "400 of 400" in after
    assert bool(re.search("\x1b\\[[0-9;]*m", got)) is (not environment)


@pytest.mark.parametrize("environment", [{}, {"TERM": "dumb"}], ids=["pipe", "dumb"])
def test_watching_prints_few_lines_where_none_can_change(tmp_path: Path, environment: dict[str, str]) -> None:
    if environment:
        status, text = on_pty(["-c", WATCHED], tmp_path, 80, **environment)
        text = text.replace("\r\n", "\n")
    else:
        process = subprocess.run(
            [sys.executable, "-c", WATCHED], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE
        )
        status, text = process.returncode, process.stdout
        assert process.stderr == ""
    assert status == 0, text
    assert "\r" not in text
    assert "\x1b" not in text
    lines = [line for line in text.splitlines() if re.match(r"\d+ of ~?400 rows \(\d+%\), 0 failed, ", line)]
    assert 1 <= len(lines) < 30, text
    assert all("in flight" not in line for line in lines)
    assert text.startswith("state  running (process ")
    assert "\nstate              interrupted; run the same command again to resume\n" in text


SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "status.schema.json").read_text(encoding="utf-8"))


def check_status(facts: dict[str, Any]) -> None:
    """Hold the facts to the schema, which describes every key."""
    jsonschema.validate(facts, SCHEMA)
    assert {*facts} <= {*SCHEMA["properties"]}
    for name in ("places", "session", "answers", "damaged"):
        assert {*(facts.get(name) or {})} <= {*SCHEMA["properties"][name]["properties"]}, name


def test_the_json_of_a_complete_run_follows_the_schema(run: Callable[..., Result], output: Path) -> None:
    facts = json.loads(run("status", output, "--json").out)
    check_status(facts)
    assert (facts["status"], facts["outcome"], facts["process"]) == (1, "complete", None)
    assert facts["places"] == {
        "output": str(output), "state": f"{output}.run.db", "copied_from": None,
    }  # fmt: skip
    assert (facts["session"]["number"], facts["session"]["done"], facts["session"]["failed"]) == (1, 60, 0)
    assert facts["endings"] == {"stop": 60}


def test_the_json_of_a_resumed_run_tells_the_latest_session_from_the_whole_run(
    run: Callable[..., Result], output: Path
) -> None:
    source = output.with_name("in.jsonl")
    with source.open("a") as stream:
        stream.write('{"prompt": "b"}\nnot JSON\n')
    assert run("generate", source, "--llm", "echo", "-o", output, "--extend", "--quiet").status == 3
    facts = json.loads(run("status", output, "--json").out)
    check_status(facts)
    assert (facts["done"], facts["failed"]) == (61, {"invalid_input": 1})
    assert (facts["session"]["number"], facts["session"]["done"], facts["session"]["failed"]) == (2, 1, 1)
    assert facts["messages"][0]["kind"] == "invalid_input"


def test_the_json_of_a_stopped_and_of_a_copied_run_says_so(
    run: Callable[..., Result], output: Path, tmp_path: Path
) -> None:
    stopped = tmp_path / "stopped.jsonl"
    source = output.with_name("in.jsonl")
    failing = ["--llm", "echo", "--set", "failure_rate=1.0", "--max-failures", 1]
    assert run("generate", source, *failing, "-o", stopped).status
    facts = json.loads(run("status", stopped, "--json").out)
    check_status(facts)
    assert (facts["complete"], facts["outcome"]) == (False, "stopped")
    shutil.copy(f"{output}.run.db", tmp_path / "copied.jsonl.run.db")
    facts = json.loads(run("status", tmp_path / "copied.jsonl", "--json").out)
    check_status(facts)
    assert facts["places"]["copied_from"] == "out.jsonl"


def test_the_json_of_a_working_run_names_its_process(output: Path) -> None:
    with state_of(output) as connection:
        summary = summarize(connection)
        found = status_as_json(
            "out.jsonl", True, summary, pace.pace_of(connection, summary, True),
            Places(output, output.with_name("out.jsonl.run.db"), ""), latest_counts(connection, summary), None,
        )  # fmt: skip
    check_status(found)
    assert (found["outcome"], found["process"]) == ("working", summary.sessions[-1].process)
