"""Runs that are killed, stopped and cut off lose nothing and ask for nothing twice."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stillhouse.jobs.store.salvage import intact

from .conftest import Server, read_jsonl

CONCURRENCY = 16

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def committed(output: Path) -> set[str]:
    """The prompts of the rows that the state of a run has."""
    path = output.with_name(f"{output.name}.run.db")
    if not path.exists():
        return set()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'rows'").fetchone():
            return set()
        return {f"row {index}" for (index,) in connection.execute("SELECT row FROM rows")}


@pytest.mark.parametrize("times", [6, pytest.param(100, marks=pytest.mark.soak)])
def test_a_run_that_is_killed_many_times_equals_an_undisturbed_one(
    start: Any, server: Server, rows: Callable[[int], Path], tmp_path: Path, times: int
) -> None:
    source, output, undisturbed = rows(3000), tmp_path / "killed.jsonl", tmp_path / "calm.jsonl"
    chance = random.Random(20)
    finished: set[str] = set()
    kills = asked = 0
    while kills < times:
        process = start(source, "-o", output)
        if chance.random() < 0.8:
            server.wait_for(asked + chance.randrange(60), 5.0)
        else:  # also where nothing is asked: while it starts, and while it writes the output
            server.wait_for(10**9, chance.uniform(0, 0.1))
        process.kill()
        assert process.wait() in (-signal.SIGKILL, 0)
        again = finished & set(server.asked[asked:])
        assert not again, f"kill {kills}: finished rows were asked for again"
        if output.with_name(f"{output.name}.run.db").exists():
            with intact(output.with_name(f"{output.name}.run.db")) as (_, damage):
                assert damage is None
        now = committed(output)
        in_flight = len(server.asked) - asked - len(now - finished)
        assert now >= finished
        assert 0 <= in_flight <= 2 * CONCURRENCY  # some of them answered and not taken in yet
        finished, asked = now, len(server.asked)
        kills += 1
        if len(finished) > 2900:  # begin anew, so that every kill hits a run at work
            for suffix in ("-wal", "-shm", ""):
                output.with_name(f"{output.name}.run.db{suffix}").unlink(missing_ok=True)
            finished = set()
    before = len(server.asked)
    process = start(source, "-o", output)
    assert process.wait() == 0, process.err
    assert len(server.asked) - before == 3000 - len(finished)
    assert start(source, "-o", undisturbed).wait() == 0
    assert output.read_bytes() == undisturbed.read_bytes()
    left = {path.name for path in tmp_path.iterdir() if not path.name.startswith(("rows", "std"))}
    assert left == {f"{path.name}{suffix}" for path in (output, undisturbed) for suffix in ("", ".run.db")}


@pytest.mark.parametrize(
    "options", [["--dedupe"], ["--extend"], ["--shard", "2/3"]], ids=lambda options: options[0]
)
@pytest.mark.parametrize("times", [6, pytest.param(40, marks=pytest.mark.soak)])
def test_so_does_one_of_chosen_rows(
    start: Any, server: Server, tmp_path: Path, times: int, options: list[str]
) -> None:
    """Rows that repeat others, rows that are added between two kills, and every third row."""
    source, output, undisturbed = (tmp_path / name for name in ("rows.jsonl", "killed.jsonl", "calm.jsonl"))
    chance = random.Random(times)
    # As many distinct prompts as rows, but for those that are asked for once.
    lines = [
        f'{{"prompt": "row {number if options[0] != "--dedupe" else number // 3}"}}\n'
        for number in range(900)
    ]
    grown = 300 if options[0] == "--extend" else len(lines)
    source.write_text("".join(lines[:grown]))
    kills = asked = 0
    finished: set[str] = set()
    while kills < times:
        process = start(source, "-o", output, *options)
        if chance.random() < 0.8:
            server.wait_for(asked + chance.randrange(40), 0.5)
        else:
            server.wait_for(10**9, chance.uniform(0, 0.1))
        process.kill()
        assert process.wait() in (-signal.SIGKILL, 0)
        assert not finished & set(server.asked[asked:]), f"kill {kills}: finished rows were asked for again"
        asked, kills = len(server.asked), kills + 1
        finished = _finished(output)
        if options[0] == "--extend" and grown < len(lines):
            grown += chance.randrange(100)
            source.write_text("".join(lines[:grown]))
    source.write_text("".join(lines))
    process = start(source, "-o", output, *options)
    assert process.wait() == 0, process.err
    assert not finished & set(server.asked[asked:])
    assert start(source, "-o", undisturbed, *options).wait() == 0
    assert output.read_bytes() == undisturbed.read_bytes()


def _finished(output: Path) -> set[str]:
    """The prompts that the state of a run has an answer for."""
    path = output.with_name(f"{output.name}.run.db")
    if not path.exists():
        return set()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'rows'").fetchone():
            return set()
        return {
            json.loads(result)["generations"][0].partition("!")[0]
            for (result,) in connection.execute("SELECT result FROM rows")
        }


@pytest.mark.parametrize("rounds", [3, pytest.param(20, marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    "number",
    [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)],
)
def test_stopped_run_repeats_no_request_when_resumed(
    start: Any, server: Server, rows: Callable[[int], Path], tmp_path: Path, number: int, rounds: int
) -> None:
    count = 200 * rounds
    source, output = rows(count), tmp_path / "out.jsonl"
    chance = random.Random(rounds)
    for asked in sorted(chance.sample(range(50, count // 2), rounds)):
        is_held = chance.random() < 0.5
        server.hold() if is_held else None
        process = start(source, "-o", output)
        assert server.wait_for(
            len(server.asked) + CONCURRENCY if is_held else max(asked, len(server.asked) + 1)
        )
        process.kill(number)
        server.let_go()
        assert process.wait() == 130
        assert "stopping: waiting for the rows in flight" in process.err
        assert "run the same command again" in process.err
        assert not output.exists()
    assert start(source, "-o", output).wait() == 0
    assert Counter(server.asked) == Counter(f"row {index}" for index in range(count))
    assert [row["generations"] for row in read_jsonl(output)] == [
        [f"row {index}!0"] for index in range(count)
    ]


def test_a_second_interrupt_does_not_wait(
    start: Any, server: Server, rows: Callable[[int], Path], tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    server.hold()
    process = start(rows(50), "-o", output)
    assert server.wait_for(CONCURRENCY)
    process.kill(signal.SIGINT)
    while "stopping" not in process.err:
        server.wait_for(10**9, 0.01)
    process.kill(signal.SIGINT)
    assert process.wait() == 130
    assert "Traceback" not in process.err


def test_a_server_that_vanishes_for_a_while_is_waited_for(
    start: Any, server: Server, rows: Callable[[int], Path], tmp_path: Path
) -> None:
    source, output = rows(400), tmp_path / "out.jsonl"
    process = start(source, "-o", output)
    assert server.wait_for(100)
    server.vanish()
    server.come_back()
    assert process.wait() == 0, process.err
    assert [row["generations"] for row in read_jsonl(output)] == [[f"row {index}!0"] for index in range(400)]


def test_permanently_unreachable_server_stops_the_run_which_can_resume(
    start: Any, server: Server, rows: Callable[[int], Path], tmp_path: Path
) -> None:
    source, output = rows(400), tmp_path / "out.jsonl"
    process = start(source, "-o", output, "--set", "retry_timeout=0.2")
    assert server.wait_for(100)
    server.vanish()
    assert process.wait() == 1
    assert "cannot be reached" in process.err
    assert "finished rows are saved in" in process.err
    finished = committed(output)
    assert 0 < len(finished) < 400
    server.come_back()
    asked = len(server.asked)
    # How long a request is tried is not part of what the run was asked for. What broke off while the
    # server went down failed for good; it is tried again when that is asked for.
    process = start(source, "-o", output, "--retry", "connection")
    assert process.wait() == 0, process.err
    assert len(server.asked) - asked <= 400 - len(finished) + CONCURRENCY
    assert [row["generations"] for row in read_jsonl(output)] == [[f"row {index}!0"] for index in range(400)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk_stops_the_run_which_can_resume(
    start: Any, server: Server, small_disk: Path, tmp_path: Path
) -> None:
    source, output = tmp_path / "rows.jsonl", small_disk / "out.jsonl"
    texts = [f"row {index} " + "x" * 4000 for index in range(400)]
    source.write_text("".join(f'{{"prompt": "{text}"}}\n' for text in texts))
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(3 << 20))
    process = start(source, "-o", output)
    assert process.wait() == 1
    assert "is full" in process.err
    assert "make room" in process.err
    assert "Traceback" not in process.err
    asked, kept = len(server.asked), len(committed(output))
    assert 0 < kept < 400
    assert asked == kept  # what was in flight got the room that was kept for it
    ballast.unlink()
    process = start(source, "-o", output)
    # There is room for the state now, and still none for the output beside it.
    if process.wait() == 1:
        assert "No space left" in process.err or "is full" in process.err
        assert not output.exists()
        subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
        process = start(source, "-o", output)
        assert process.wait() == 0, process.err
    assert [row["generations"] for row in read_jsonl(output)] == [[f"{text}!0"] for text in texts]
    assert len(server.asked) == 400


def test_only_missing_generations_of_a_row_are_requested_again(
    start: Any, server: Server, rows: Callable[[int], Path], tmp_path: Path
) -> None:
    source, output = rows(4), tmp_path / "out.jsonl"
    given = {"row 1": 2, "row 2": 0}
    server.fails = lambda body: given.get(body["prompt"])
    process = start(source, "-o", output, "-n", 5, "--param", "seed=10")
    assert process.wait() == 3
    first = read_jsonl(output)
    assert first[1]["generations"] == ["row 1!10", "row 1!11"]
    assert first[1]["error"] == {"kind": "server", "message": "broken"}
    assert first[2]["generations"] is None
    server.bodies.clear()
    given["row 1"] = 1
    process = start(source, "-o", output, "-n", 5, "--param", "seed=10", "--retry", "server,timeout")
    assert process.wait() == 3
    assert "retrying 2 failed rows" in process.err
    assert sorted((body["prompt"], body["n"], body["seed"]) for body in server.bodies) == [
        ("row 1", 3, 12),
        ("row 2", 5, 10),
    ]
    assert read_jsonl(output)[1]["generations"] == ["row 1!10", "row 1!11", "row 1!12"]
    given.clear()
    server.bodies.clear()
    assert start(source, "-o", output, "-n", 5, "--param", "seed=10", "--retry", "all").wait() == 0
    assert sorted((body["prompt"], body["n"]) for body in server.bodies) == [("row 1", 2), ("row 2", 5)]
    last = read_jsonl(output)
    assert [row["generations"] for row in last] == [
        [f"row {index}!{seed}" for seed in range(10, 15)] for index in range(4)
    ]
    assert all(row["error"] is None for row in last)
    assert last[0] == first[0]
