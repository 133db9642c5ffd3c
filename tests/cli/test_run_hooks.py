"""What hooks see of a run: the row of each input, the rows that cannot be read, its beginning and its end."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse import Row, RunInfo, RunSummary, hookimpl

from .test_own_batches import EngineLLM

ROWS: list[Any] = [
    {"prompt": "one", "id": 7},
    {"prompt": "two", "tags": ["a"]},
    "",
    "{not json",
    {"text": "no prompt"},
]


class Watcher:
    """Writes down what it is shown."""

    def __init__(self) -> None:
        self.before: list[Row | None] = []
        self.after: list[tuple[Row | None, Any, str | None, Any]] = []
        self.started: list[RunInfo] = []
        self.finished: list[RunSummary] = []

    @hookimpl
    def before_generate(self, row: Row | None) -> None:
        self.before.append(row)

    @hookimpl
    def after_generate(self, input: Any, output: Any, error: Any, row: Row | None) -> None:
        self.after.append((row, input, error and error.kind, output and output["generations"]))

    @hookimpl
    def run_started(self, run: RunInfo) -> None:
        self.started.append(run)

    @hookimpl
    def run_finished(self, summary: RunSummary) -> None:
        self.finished.append(summary)

    @property
    def rows(self) -> list[tuple[int, int, dict[str, Any]]]:
        return sorted(
            ((row.index, row.line, row.columns) for row, *_ in self.after if row), key=lambda seen: seen[:2]
        )


@pytest.fixture
def watcher(own_registry: stillhouse.Registry) -> Watcher:
    watcher = Watcher()
    own_registry.register_hooks("watcher", watcher)
    return watcher


@pytest.mark.parametrize("target", ["out.jsonl", "-"])
def test_hooks_are_shown_the_row_of_each_input(
    run: Any, rows_file: Any, watcher: Watcher, tmp_path: Path, target: str
) -> None:
    output = target if target == "-" else tmp_path / target
    assert run("generate", rows_file(ROWS), "--llm", "echo", "-o", output).status == 3
    first, second = sorted((row for row in watcher.before if row), key=lambda row: row.index)
    assert (first.index, first.line, first.columns) == (0, 1, ROWS[0])
    assert (second.index, second.line, second.columns) == (1, 2, ROWS[1])
    assert watcher.rows == [(0, 1, ROWS[0]), (1, 2, ROWS[1]), (2, 4, {}), (3, 5, {"text": "no prompt"})]


def test_rows_that_cannot_be_used_are_seen_too(
    run: Any, rows_file: Any, watcher: Watcher, tmp_path: Path
) -> None:
    run("generate", rows_file(ROWS), "--llm", "echo", "-o", tmp_path / "out.jsonl")
    unusable = {
        row.index: (input, kind, output) for row, input, kind, output in watcher.after if row and kind
    }
    assert unusable == {2: (None, "invalid_input", None), 3: (None, "invalid_input", None)}


def test_hooks_are_shown_the_row_where_the_engine_has_an_order(
    run: Any, rows_file: Any, watcher: Watcher, own_registry: stillhouse.Registry, tmp_path: Path
) -> None:
    own_registry.register("engine", EngineLLM)
    rows = [{"prompt": word, "id": number} for number, word in enumerate(["pear", "fig", "clementine"])]
    result = run("generate", rows_file(rows), "--llm", "engine", "--batch", "-o", tmp_path / "out.jsonl")
    assert result.status == 0, result.err
    assert watcher.rows == [(number, number + 1, row) for number, row in enumerate(rows)]


def test_an_answer_belongs_to_the_row_that_it_is_shown_with(
    run: Any, rows_file: Any, watcher: Watcher, tmp_path: Path
) -> None:
    rows = [{"prompt": f"row {number}"} for number in range(300)]
    assert run("generate", rows_file(rows), "--llm", "echo", "-o", tmp_path / "out.jsonl").status == 0
    assert len(watcher.after) == 300
    assert all(row and output == [row.columns["prompt"]] for row, _, _, output in watcher.after)


def test_a_run_begins_and_ends(run: Any, rows_file: Any, watcher: Watcher, tmp_path: Path) -> None:
    source, output = rows_file(ROWS), tmp_path / "out.jsonl"
    run("generate", source, "--llm", "echo:parrot", "-o", output)
    info = RunInfo(str(source), str(output), "echo", "parrot", None, resumed=False)
    assert watcher.started == [info]
    (summary,) = watcher.finished
    assert summary.run == info
    assert (summary.outcome, summary.done, summary.failed, summary.skipped) == (
        "complete", 2, {"invalid_input": 2}, 0
    )  # fmt: skip
    assert (summary.failures, summary.input_tokens, summary.output_tokens) == (2, 2, 2)
    assert summary.cost is None
    assert summary.seconds > 0
    run("generate", source, "--llm", "echo:parrot", "-o", output)
    assert len(watcher.started) == 1, "there was nothing to do"


def test_what_was_done_before_is_not_counted_again(
    run: Any, rows_file: Any, watcher: Watcher, tmp_path: Path
) -> None:
    source = rows_file([{"prompt": str(number)} for number in range(10)])
    run("generate", source, "--llm", "echo", "-o", tmp_path / "out.jsonl", "--limit", 4)
    run("generate", source, "--llm", "echo", "-o", tmp_path / "out.jsonl")
    assert [run.resumed for run in watcher.started] == [False, True]
    assert [(summary.done, summary.skipped) for summary in watcher.finished] == [(4, 0), (6, 4)]


def test_the_number_of_rows_is_known_of_a_parquet_file(run: Any, watcher: Watcher, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"prompt": ["a", "b", "c"]}), tmp_path / "rows.parquet")
    for options in ([], ["--restart", "--limit", 2]):
        run("generate", tmp_path / "rows.parquet", "--llm", "echo", "-o", tmp_path / "out.jsonl", *options)
    assert [run.rows for run in watcher.started] == [3, 2]


def test_a_run_that_an_error_stops_has_an_end(
    run: Any, rows_file: Any, watcher: Watcher, own_registry: stillhouse.Registry, tmp_path: Path
) -> None:
    source = rows_file([{"prompt": "a"}])
    options = ["--set", "failure_rate=1.0", "--set", "failure_kind=authentication"]
    result = run("generate", source, "--llm", "echo", *options, "-o", tmp_path / "out.jsonl")
    assert result.status in (1, 3)
    (summary,) = watcher.finished
    assert summary.outcome == ("stopped" if result.status == 1 else "complete")


def test_a_run_that_is_interrupted_has_an_end(
    run: Any, rows_file: Any, watcher: Watcher, own_registry: stillhouse.Registry, tmp_path: Path
) -> None:
    class Interrupting:
        @hookimpl
        def after_generate(self, row: Row) -> None:
            if row.index == 0:
                signal.raise_signal(signal.SIGINT)

    own_registry.register_hooks("interrupting", Interrupting())
    source = rows_file([{"prompt": str(number)} for number in range(500)])
    result = run("generate", source, "--llm", "echo", "-o", tmp_path / "out.jsonl")
    assert result.status == 130, result.err
    assert [summary.outcome for summary in watcher.finished] == ["interrupted"]
    assert watcher.finished[0].done < 500


def test_a_run_from_python_begins_and_ends_too(watcher: Watcher, tmp_path: Path) -> None:
    stillhouse.run([{"prompt": "a"}, {"prompt": "b"}], llm="echo", output=tmp_path / "out.jsonl")
    assert [row for _, _, row in watcher.rows] == [{"prompt": "a"}, {"prompt": "b"}]
    assert [summary.done for summary in watcher.finished] == [2]


class Hostile:
    """Changes everything that it is shown."""

    @hookimpl(tryfirst=True)
    def before_generate(self, input: Any, arguments: Any, row: Any) -> None:
        input[0]["content"] = "changed"
        input.clear()
        row.columns["prompt"] = "changed"
        row.columns["tags"].append("changed")
        arguments["max_new_tokens"] = 1

    @hookimpl(tryfirst=True)
    def after_generate(self, input: Any, output: Any, error: Any, row: Any) -> None:
        row.columns.clear()
        if error is not None:
            error.kind = "timeout"
            error.message = "changed"
        if output is not None:
            output["generations"][0] = "changed"
            output["statistics"]["output_tokens"].append(10**6)

    @hookimpl(tryfirst=True)
    def run_finished(self, summary: Any) -> None:
        summary.failed.clear()


@pytest.mark.parametrize("target", ["out.jsonl", "-"])
def test_what_a_hook_changes_stays_as_it_is(
    run: Any,
    rows_file: Any,
    own_registry: stillhouse.Registry,
    watcher: Watcher,
    tmp_path: Path,
    target: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = rows_file([{"prompt": "the first row", "tags": ["a"]}, {"text": "no prompt", "tags": []}])
    own_registry.register_hooks("hostile", Hostile())
    output = target if target == "-" else tmp_path / target
    result = run("generate", source, "--llm", "echo", "-o", output)
    written = result.out if target == "-" else (tmp_path / target).read_text()
    first, second = map(json.loads, written.splitlines())
    assert (first["prompt"], first["tags"], first["generations"]) == (
        "the first row", ["a"], ["the first row"]
    )  # fmt: skip
    assert first["statistics"]["output_tokens"] == [3]
    assert (second["error"]["kind"], second["text"]) == ("invalid_input", "no prompt")
    assert watcher.rows[0][2] == {"prompt": "the first row", "tags": ["a"]}
    assert watcher.finished[0].failed == {"invalid_input": 1}
    assert "read-only" in caplog.text, "the arguments are one dict for all inputs"


def test_a_hook_that_raises_at_the_beginning_or_the_end_stops_nothing(
    run: Any, rows_file: Any, own_registry: stillhouse.Registry, watcher: Watcher, tmp_path: Path, caplog: Any
) -> None:
    class Raising:
        @hookimpl
        def run_started(self) -> None:
            raise RuntimeError("not today")

        @hookimpl
        def run_finished(self, summary: RunSummary) -> None:
            raise RuntimeError("nor tomorrow")

    own_registry.register_hooks("raising", Raising())
    assert run("generate", rows_file(ROWS[:2]), "--llm", "echo", "-o", tmp_path / "out.jsonl").status == 0
    assert len(watcher.started) == len(watcher.finished) == 1
    assert caplog.text.count("of the plugin raising failed") == 2
