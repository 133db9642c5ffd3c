"""One run, written in several ways: its state elsewhere, other formats, and what is done if one fails."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.jobs.conftest import Process, Server, read_jsonl

from stillhouse import ConfigurationError, run


def stillhouse(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from stillhouse.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=folder)


def test_a_finished_run_is_written_in_another_format_without_asking(
    start: Callable[..., Process], server: Server, rows: Callable[[int], Path], tmp_path: Path
) -> None:
    source, first = rows(30), tmp_path / "first.jsonl"
    state = tmp_path / "first.jsonl.run.db"
    assert start(source, "-o", first).wait() == 0
    written = first.read_bytes()
    asked = len(server.asked)
    for name, options in {
        "other.parquet": [],
        "other.csv": ["--text"],
        "other.txt": ["--format", "tsv"],
        "other.ndjson": ["--format", "openai-batch"],
    }.items():
        done = start(source, "-o", tmp_path / name, "--state", state, *options)
        assert done.wait() == 0, done.err
    assert len(server.asked) == asked
    assert first.read_bytes() == written
    assert pq.read_table(tmp_path / "other.parquet").to_pylist()[7]["generations"] == ["row 7!0"]
    with (tmp_path / "other.csv").open(newline="") as stream:
        assert [row["generations"] for row in csv.DictReader(stream)][7] == "row 7!0"
    assert (tmp_path / "other.txt").read_text().startswith("id\tprompt\tgenerations\t")
    lines = read_jsonl(tmp_path / "other.ndjson")
    assert lines[7]["response"]["body"]["choices"][0]["message"]["content"] == "row 7!0"
    # Nothing was written twice, and each can be written again.
    again = start(source, "-o", tmp_path / "other.parquet", "--state", state)
    assert (again.wait(), "is complete" in again.err) == (0, True)
    again = start(source, "-o", first)
    assert (again.wait(), "is complete" in again.err) == (0, True)
    assert len(server.asked) == asked
    assert not list(tmp_path.glob("other.*.run.db"))


def test_an_output_is_written_again_in_another_way(
    start: Callable[..., Process], server: Server, rows: Callable[[int], Path], tmp_path: Path
) -> None:
    source, target = rows(5), tmp_path / "out.jsonl"
    assert start(source, "-o", target).wait() == 0
    asked = len(server.asked)
    assert start(source, "-o", target, "--text", "--output-prefix", "my_").wait() == 0
    assert [row["my_generations"] for row in read_jsonl(target)] == [f"row {number}!0" for number in range(5)]
    assert start(source, "-o", target).wait() == 0
    assert read_jsonl(target)[0]["generations"] == ["row 0!0"]
    assert len(server.asked) == asked


def test_a_state_elsewhere(
    start: Callable[..., Process], server: Server, rows: Callable[[int], Path], tmp_path: Path
) -> None:
    source, target, state = rows(40), tmp_path / "out.csv", tmp_path / "states" / "mine.db"
    state.parent.mkdir()
    server.hold()
    process = start(source, "-o", target, "--state", state)
    server.wait_for(16)
    second = stillhouse("generate", source, "--llm", "echo", "-o", target, "--state", state)
    assert (second.returncode, "another process works on this run" in second.stderr) == (1, True)
    assert json.loads(stillhouse("status", target, "--state", state, "--json").stdout)["working"]
    server.let_go()
    assert process.wait() == 0
    assert {path.name for path in tmp_path.iterdir()} >= {"out.csv", "states"}
    assert not (tmp_path / "out.csv.run.db").exists()
    assert [path.name for path in state.parent.iterdir()] == ["mine.db"]
    for given in ([target, "--state", state], [state]):
        status = stillhouse("status", *given)
        assert (status.returncode, "rows finished      40" in status.stdout) == (0, True), status
        assert "copied or renamed" not in status.stdout
        page = stillhouse("report", *given, "-o", tmp_path / "page.html")
        assert (page.returncode, (tmp_path / "page.html").exists()) == (0, True), page.stderr
        assert stillhouse("batches", *given).returncode == 0
    assert start(source, "-o", target, "--state", state).wait() == 0
    assert len(server.asked) == 40


def test_a_state_is_that_of_one_command(
    start: Callable[..., Process], rows: Callable[[int], Path], tmp_path: Path
) -> None:
    source, state = rows(3), tmp_path / "mine.db"
    assert start(source, "-o", tmp_path / "one.jsonl", "--state", state).wait() == 0
    other = start(source, "-o", tmp_path / "two.jsonl", "--state", state, "--template", "{{ id }}")
    assert (other.wait(), "other settings" in other.err) == (1, True)
    assert not (tmp_path / "two.jsonl").exists()


def test_nothing_of_somebody_else_is_taken_for_a_state_or_replaced(
    start: Callable[..., Process], rows: Callable[[int], Path], tmp_path: Path
) -> None:
    source, first = rows(3), tmp_path / "first.jsonl"
    assert start(source, "-o", first).wait() == 0
    state = tmp_path / "first.jsonl.run.db"
    mine = tmp_path / "mine.txt"
    mine.write_text("my notes")
    folder = tmp_path / "folder"
    folder.mkdir()
    cases = [
        (tmp_path / "x.jsonl", mine, "my notes are no state"),
        (mine, state, "exists, and this run did not write it"),
        (tmp_path / "x.jsonl", folder, "folder"),
        (tmp_path / "x.jsonl", tmp_path / "none" / "x.db", "there is no folder"),
        (tmp_path / "x.jsonl", tmp_path / "x.jsonl", "both need"),
        (tmp_path / "x.jsonl", tmp_path / "x.jsonl.partial", "both need"),
        (tmp_path / "x.jsonl", source, "is read"),
        (state, state, "both need"),
    ]
    for output, place, said in cases:
        options = ["--format", "jsonl", "-o", output, "--state", place]
        for more in ([], ["--restart"]):
            if more and place == state:
                continue
            refused = start(source, *options, *more)
            is_usage = place == folder or not place.parent.exists()
            assert refused.wait() == (2 if is_usage else 1), (output, place, refused.err)
            assert "Traceback" not in refused.err
            assert said in refused.err or place == mine, (output, place, refused.err)
    assert mine.read_text() == "my notes"
    assert not (tmp_path / "x.jsonl").exists()
    again = start(source, "-o", first)
    assert (again.wait(), "is complete" in again.err) == (0, True)


def test_failed_rows_are_asked_for_again_for_every_output(
    start: Callable[..., Process], server: Server, rows: Callable[[int], Path], tmp_path: Path
) -> None:
    """The state is one: an output that was written before is written again with the same command."""
    source, first, other = rows(10), tmp_path / "first.jsonl", tmp_path / "other.jsonl"
    state = tmp_path / "first.jsonl.run.db"
    server.fails = lambda body: 0 if body["prompt"] == "row 3" else None
    assert start(source, "-o", first).wait() == 3
    assert start(source, "-o", other, "--state", state).wait() == 3
    server.fails = lambda _: None
    assert start(source, "-o", other, "--state", state, "--retry", "all").wait() == 0
    assert read_jsonl(other)[3]["error"] is None
    assert read_jsonl(first)[3]["error"] is not None
    asked = len(server.asked)
    assert start(source, "-o", first).wait() == 0
    assert read_jsonl(first) == read_jsonl(other)
    assert len(server.asked) == asked


BREAKING = """
import sys
from stillhouse.cli import main
from stillhouse.jobs.formats.arrow import RowSpool

def finish(self):
    raise NotImplementedError("cast from struct to struct")

RowSpool.finish = finish
main()
"""


def test_a_writer_that_fails_says_how_the_rows_are_written(
    rows: Callable[[int], Path], tmp_path: Path
) -> None:
    """Whatever a format cannot hold: everything is paid for by then."""
    source, target = rows(5), tmp_path / "out.parquet"
    arguments = ["generate", source, "--llm", "echo", "-o", target]
    failed = subprocess.run(
        [sys.executable, "-c", BREAKING, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert failed.returncode == 1
    assert "NotImplementedError: cast from struct to struct" in failed.stderr
    assert f"-o OTHER.jsonl --state {target}.run.db" in failed.stderr
    assert "Traceback" not in failed.stderr
    done = stillhouse(
        "generate", source, "--llm", "echo", "-o", tmp_path / "other.jsonl", "--state", f"{target}.run.db"
    )
    assert done.returncode == 0, done.stderr
    assert len(read_jsonl(tmp_path / "other.jsonl")) == 5
    assert not target.exists()


def test_a_link_to_another_disk_keeps_its_target(rows: Callable[[int], Path], tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm") if Path("/dev/shm").is_dir() else tmp_path
    disk = elsewhere / f"stillhouse-test-{os.getpid()}"
    disk.mkdir()
    try:
        file, folder = tmp_path / "link.csv", tmp_path / "folder"
        file.symlink_to(disk / "there.csv")
        folder.symlink_to(disk)
        source = rows(3)
        assert stillhouse("generate", source, "--llm", "echo", "-o", file).returncode == 0
        assert stillhouse("generate", source, "--llm", "echo", "-o", folder / "in.csv").returncode == 0
        assert file.is_symlink()
        assert file.read_bytes() == (disk / "in.csv").read_bytes()
        names = {"there.csv", "there.csv.run.db", "in.csv", "in.csv.run.db"}
        assert {path.name for path in disk.iterdir()} == names
        assert stillhouse("status", file).returncode == 0
    finally:
        for path in disk.iterdir():
            path.unlink()
        disk.rmdir()


# As the provider writes its results


def test_lines_of_a_batch_name_the_rows(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    rows: list[dict[str, Any]] = [
        {"custom_id": "mine", "prompt": "a"}, {"prompt": "b"}, {"custom_id": 7, "prompt": "c"}, {"id": 4},
    ]  # fmt: skip
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    target = tmp_path / "out.jsonl"
    arguments = ["generate", source, "--llm", "echo", "-o", target, "--format", "openai-batch", "-n", "2"]
    assert stillhouse(*arguments).returncode == 3
    first, *_, failed = lines = read_jsonl(target)
    assert [line["custom_id"] for line in lines] == ["mine", "2", "7", "4"]
    assert all([*line] == ["id", "custom_id", "response", "error"] for line in lines)
    assert len({line["id"] for line in lines}) == 4
    assert (failed["response"], failed["error"]["code"]) == (None, "invalid_input")
    assert first["error"] is None
    assert first["response"]["status_code"] == 200
    choices = first["response"]["body"]["choices"]
    assert [(choice["index"], choice["message"]["content"]) for choice in choices] == [(0, "a"), (1, "a")]
    before = target.read_bytes()
    target.unlink()
    assert stillhouse(*arguments).returncode == 3
    assert target.read_bytes() == before


def test_a_run_that_is_only_written_ended_nothing_in_this_session(tmp_path: Path) -> None:
    source, output = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    for options, ended in (([], ["2"]), (["--text"], ["2", "0"])):  # by the whole run, and in this session
        done = stillhouse("generate", source, "--llm", "echo", "-o", output, *options)
        assert done.returncode == 0, done.stderr
        (line,) = (line for line in done.stderr.splitlines() if line.startswith("ended: stop"))
        assert line.split()[2:] == ended


def test_the_run_of_another_output_is_not_forgotten(tmp_path: Path) -> None:
    first, state = tmp_path / "first.jsonl", tmp_path / "first.jsonl.run.db"
    run(["a"], llm="echo", output=first)
    before = state.read_bytes()
    with pytest.raises(ConfigurationError, match=r"is the state of the run of first\.jsonl") as raised:
        run(["a"], llm="echo", output=tmp_path / "e.jsonl", state=state, restart=True)
    assert "leave out restart=True" in raised.value.hint
    assert state.read_bytes() == before
    assert not (tmp_path / "e.jsonl").exists()
    run(["b"], llm="echo", output=first, state=state, restart=True)  # its own
    for _ in range(2):
        run(["c"], llm="echo", output=tmp_path / "e.jsonl", state=tmp_path / "e.db", restart=True)
