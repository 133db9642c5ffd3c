"""`--extend`: a run goes on with an input to which rows were added, and asks for no finished row again."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse import ConfigurationError

from .conftest import Server, read_jsonl

Append = Callable[..., None]


@pytest.fixture
def append() -> Append:
    """Add rows to the end of a file."""

    def call(path: Path, *numbers: int) -> None:
        with path.open("a") as stream:
            stream.writelines(
                f"{json.dumps({'id': number, 'prompt': f'row {number}'})}\n" for number in numbers
            )

    return call


def generations(output: Path) -> list[list[str]]:
    return [row["generations"] for row in read_jsonl(output)]


def expected(count: int) -> list[list[str]]:
    return [[f"row {number}!0"] for number in range(count)]


def test_a_complete_run_goes_on_with_the_new_rows(
    start: Any, server: Server, rows: Any, append: Append, tmp_path: Path
) -> None:
    source, output = rows(5), tmp_path / "out.jsonl"
    assert start(source, "-o", output).wait() == 0
    append(source, 5, 6)
    refused = start(source, "-o", output)
    assert refused.wait() == 1
    assert "input: it changed, but not in the 5 rows that were generated" in refused.err
    assert "use --extend, which keeps finished rows" in refused.err
    process = start(source, "-o", output, "--extend")
    assert process.wait() == 0, process.err
    assert "resuming: 5 rows finished" in process.err
    assert sorted(server.asked[5:]) == ["row 5", "row 6"]
    assert generations(output) == expected(7)
    for options in ([], ["--extend"]):  # it is the run's input now
        again = start(source, "-o", output, *options)
        assert again.wait() == 0
        assert "is complete: 7 rows" in again.err
    assert len(server.asked) == 7
    calm = tmp_path / "calm.jsonl"
    assert start(source, "-o", calm).wait() == 0
    assert calm.read_bytes() == output.read_bytes()


def test_so_does_one_that_was_interrupted(
    start: Any, server: Server, rows: Any, append: Append, tmp_path: Path
) -> None:
    source, output = rows(100), tmp_path / "out.jsonl"
    process = start(source, "-o", output)
    assert server.wait_for(30)
    process.kill(signal.SIGINT)
    assert process.wait() == 130
    append(source, 100, 101)
    assert start(source, "-o", output).wait() == 1
    assert start(source, "-o", output, "--extend").wait() == 0
    assert sorted(server.asked) == sorted(f"row {number}" for number in range(102))
    assert generations(output) == expected(102)


def test_a_fresh_run_may_be_told_from_the_start(
    start: Any, server: Server, rows: Any, append: Append, tmp_path: Path
) -> None:
    """One command for a file that grows each day."""
    source, output = rows(3), tmp_path / "out.jsonl"
    for count in (3, 4, 5):
        process = start(source, "-o", output, "--extend")
        assert process.wait() == 0, process.err
        assert generations(output) == expected(count)
        append(source, count)
    assert len(server.asked) == 5


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda lines: [lines[0], lines[2], *lines[3:], *lines[:2]],
            "4 of 5 rows differ; the first is on line 2",
        ),
        (
            lambda lines: [*lines[:2], lines[2].replace("row", "Row"), *lines[3:], lines[0]],
            "1 of 5 rows differs",
        ),
        (lambda lines: lines[:4], "it has fewer rows than were generated"),
        (lambda lines: [lines[0], *lines], "4 of 5 rows differ"),
    ],
)
def test_rows_that_changed_are_refused_as_without_it(
    start: Any, server: Server, rows: Any, tmp_path: Path, change: Callable[[list[str]], list[str]], told: str
) -> None:
    source, output = rows(5), tmp_path / "out.jsonl"
    assert start(source, "-o", output).wait() == 0
    content = output.read_bytes()
    source.write_text("".join(change(source.read_text().splitlines(keepends=True))))
    for options in ([], ["--extend"]):
        process = start(source, "-o", output, *options)
        assert process.wait() == 1
        assert told in process.err
        assert "--extend" not in process.err
    assert len(server.asked) == 5
    assert output.read_bytes() == content


def test_another_command_is_refused_with_it_too(
    start: Any, server: Server, rows: Any, append: Append, tmp_path: Path
) -> None:
    source, output = rows(3), tmp_path / "out.jsonl"
    assert start(source, "-o", output).wait() == 0
    append(source, 3)
    process = start(source, "-o", output, "--extend", "-n", 2)
    assert process.wait() == 1
    assert "num_generations: it was 1, and is 2 now" in process.err
    assert "input" not in process.err
    assert len(server.asked) == 3


def test_failed_rows_are_kept_and_tried_again_when_asked_for(
    start: Any, server: Server, rows: Any, append: Append, tmp_path: Path
) -> None:
    source, output = rows(4), tmp_path / "out.jsonl"
    server.fails = lambda body: 0 if body["prompt"] == "row 2" else None
    assert start(source, "-o", output).wait() == 3
    append(source, 4)
    server.fails = lambda _: None
    assert start(source, "-o", output, "--extend").wait() == 3
    assert server.asked[4:] == ["row 4"]
    append(source, 5)
    assert start(source, "-o", output, "--extend", "--retry", "all").wait() == 0
    assert sorted(server.asked[5:]) == ["row 2", "row 5"]
    assert generations(output) == expected(6)


def test_rows_that_were_added_meanwhile_are_named(
    start: Any, server: Server, rows: Any, append: Append, tmp_path: Path
) -> None:
    source, output = rows(40), tmp_path / "out.jsonl"
    server.hold()
    process = start(source, "-o", output)
    assert server.wait_for(16)
    append(source, 40)
    server.let_go()
    assert process.wait() == 1
    assert "the input changed during the run" in process.err
    assert "use --extend to generate them" in process.err
    assert "run the same command again" not in process.err
    assert start(source, "-o", output, "--extend").wait() == 0
    assert len(server.asked) == 41
    assert generations(output) == expected(41)


@pytest.mark.parametrize(
    "options", [["--dedupe"], ["--where", "id != 1"], ["--shard", "2/2"], ["--limit", "4"]], ids=" ".join
)
def test_it_goes_with_the_other_choices(
    start: Any, server: Server, rows: Any, append: Append, tmp_path: Path, options: list[str]
) -> None:
    source, output, calm = rows(4), tmp_path / "out.jsonl", tmp_path / "calm.jsonl"
    append(source, 2)
    assert start(source, "-o", output, *options).wait() == 0
    append(source, 5, 2, 6, 7, 5)
    process = start(source, "-o", output, *options, "--extend")
    assert process.wait() == 0, process.err
    asked = len(server.asked)
    assert start(source, "-o", calm, *options).wait() == 0
    assert len(server.asked) == 2 * asked
    assert output.read_bytes() == calm.read_bytes()


def test_an_output_that_somebody_changed_is_not_replaced(
    start: Any, rows: Any, append: Append, tmp_path: Path
) -> None:
    source, output = rows(3), tmp_path / "out.jsonl"
    assert start(source, "-o", output).wait() == 0
    output.write_text("mine\n")
    append(source, 3)
    process = start(source, "-o", output, "--extend")
    assert process.wait() == 1
    assert "was changed after this run wrote it" in process.err
    assert output.read_text() == "mine\n"


def test_an_estimate_tells_what_is_left(rows: Any, append: Append, tmp_path: Path) -> None:
    source, output = rows(3), tmp_path / "out.jsonl"
    stillhouse.run(source, llm="echo", output=output)
    append(source, 3, 4)
    with pytest.raises(ConfigurationError, match="it changed"):
        stillhouse.estimate(source, llm="echo", output=output)
    found = stillhouse.estimate(source, llm="echo", output=output, extend=True)
    assert (found.finished, found.rows) == (3, 2)


@pytest.mark.parametrize("kind", ["parquet", "csv", "rows", "table", "datasets"])
def test_inputs_of_every_kind_may_grow(tmp_path: Path, kind: str) -> None:
    all_rows = [{"prompt": f"row {number}", "n": number} for number in range(6)]
    output = tmp_path / "out.jsonl"
    for count in (4, 6):
        input = _input(kind, all_rows[:count], tmp_path)
        run = stillhouse.run(input, llm="echo", output=output, extend=True)
        assert [row["generations"] for row in run] == [[row["prompt"]] for row in all_rows[:count]]
    with pytest.raises(ConfigurationError, match="fewer rows"):
        stillhouse.run(_input(kind, all_rows[:3], tmp_path), llm="echo", output=output, extend=True)


def _input(kind: str, rows: list[dict[str, Any]], folder: Path) -> Any:
    if kind == "rows":
        return rows
    if kind == "csv":
        path = folder / "in.csv"
        path.write_text("prompt,n\n" + "".join(f"{row['prompt']},{row['n']}\n" for row in rows))
        return path
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pa.Table.from_pylist(rows)
    if kind == "table":
        return table
    if kind == "parquet":
        parquet.write_table(table, folder / "in.parquet")
        return folder / "in.parquet"
    datasets = pytest.importorskip("datasets")
    shutil.rmtree(folder / "saved", ignore_errors=True)
    return datasets.Dataset.from_list(rows)


def test_a_file_that_comes_before_the_others_is_named(
    start: Any, server: Server, rows: Any, tmp_path: Path
) -> None:
    folder, output = tmp_path / "in", tmp_path / "out.jsonl"
    folder.mkdir()
    content = rows(3).read_text()
    (folder / "b.jsonl").write_text(content)
    assert start(folder, "-o", output).wait() == 0
    (folder / "a.jsonl").write_text(content.replace("row", "another"))
    process = start(folder, "-o", output, "--extend")
    assert process.wait() == 1
    assert f"3 of 3 rows differ; the first is {folder}/a.jsonl, line 1" in process.err
    assert len(server.asked) == 3
